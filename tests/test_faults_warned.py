"""What the bench tells of runs that are well by their author and were warned of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.faults import warned
from benchmarks.faults.card import row_of
from benchmarks.faults.case import Case, load_cases
from benchmarks.faults.page import page
from benchmarks.faults.running import Task

ADVICE = {"parameter": "lr", "proposed": 0.15, "also": []}


@pytest.fixture(scope="module")
def case() -> Case:
    (found,) = (case for case in load_cases() if case.name == "so-55328966-corrected")
    return replace(found, body={**found.body, "steps": 40})


def told(severity: str) -> dict[str, Any]:
    """Return what judging a run gives that holds one finding."""
    finding = {
        "id": "f1", "rule": "lr_too_low", "severity": severity, "caused": [], "state": "firing",
        "first_step": 210, "title": "", "recommendation": ADVICE,
    }  # fmt: skip
    return {
        "report": {"findings": [finding], "judged": [], "not_judged": []},
        "fired": {},
        "old": False,
    }


def test_the_advice_of_a_false_alarm_is_followed_and_told_beside_the_run_left_alone(
    case: Case, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warned, "OUT", tmp_path)
    task = Task(case, 0, "defaults")
    row = row_of(case, 0, "defaults", told("warning"))
    (asked,) = warned.tasks_of([task], [row])
    ended = warned.followed(asked)
    assert ended["advised"] < 0.9 * ended["nothing"] and ended["nothing"] > 0.98 * ended["first"]
    assert warned.summary([ended]) == {"runs": 1, "untaught": 1, "lower": 1, "higher": 0}
    card = {"seeds": {}, "warned": warned.summary([ended]), "alarms": [ended]}
    assert "so-55328966-corrected | 0 | lr_too_low" in page(
        {"cards": {"published, defaults": card}}
    )


def test_an_info_is_no_alarm_whose_advice_is_followed(case: Case) -> None:
    row = row_of(case, 0, "defaults", told("info"))
    assert warned.tasks_of([Task(case, 0, "defaults")], [row]) == []


def test_what_blew_up_is_as_high_as_what_learned_nothing() -> None:
    ends = [(None, 0.5), (0.995, 0.99), (0.5, 4.0), (0.5, None)]
    rows: list[dict[str, Any]] = [
        {"first": 1.0, "nothing": left, "advised": advised} for left, advised in ends
    ]
    rows.append({"first": 1.0, "nothing": 0.5, "advised": None, "why_not": "for a person"})
    assert warned.summary(rows) == {"runs": 5, "untaught": 2, "lower": 1, "higher": 2}
