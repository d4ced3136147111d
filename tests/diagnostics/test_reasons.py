"""Why a rule, or a part of one, was not judged: a reason that is true, and says what to do."""

from __future__ import annotations

from typing import Any

import pytest
from otoscope.diagnostics.judging import report_of
from otoscope.diagnostics.rules import RULES
from otoscope.store import Event

from . import made, told

MODES = {"train_loss": 1.0, "eval_loss": 1.0}
HEAD = {
    "probability_rows": 0.0, "as_logits": 1.0, "as_probabilities": 2.0, "predicted_entropy": 1.9,
    "label_entropy": 2.0, "never_predicted": 0.0, "rows": 512.0,
}  # fmt: skip
NORM = {"name": "1.weight", "layer": "1", "kind": "norm", "ndim": 1, "numel": 8}
BATCH_NORM = [{**NORM, "module": "BatchNorm2d"}]


def of_one_process(steps: int, *, events: tuple[Event, ...] = ()) -> dict[str, str]:
    run = made.Made(*(rule.id for rule in RULES), max_steps=1000)
    run.add("train", made.train(made.falling(steps)))
    run.fold.push(events=events)
    run.judge()
    return run.fold.coverage()[1]


def test_every_rule_without_a_sample_says_so_in_words_of_its_own() -> None:
    missing = of_one_process(400)
    assert missing["rank_desync"] == missing["straggler"] == "the run has one process"
    assert missing["overfitting"] == "no validation loss was recorded"
    assert missing["dead_units"] == "the layers' outputs were not looked at yet"
    assert not [rule for rule, why in missing.items() if why == "no sample yet"]


def test_a_reason_is_told_anew_behind_a_change_of_the_rate() -> None:
    jump = Event("lr", step=150, body={"from": 0.1, "to": 0.01, "phase": "decay"}, id="lr-150")
    assert "course" in of_one_process(160, events=(jump,))["rank_desync"]
    assert of_one_process(400, events=(jump,))["rank_desync"] == "the run has one process"


def head(families: dict[str, dict[str, float]], **how: Any) -> told.Made:
    steps = range(10, 600, 20)
    rows = {
        family: {name: dict.fromkeys(steps, value) for name, value in columns.items()}
        for family, columns in families.items()
    }
    return told.Made("wrong_head", rows, steps=600, **how)


def test_a_head_that_was_seen_whole_is_judged_whole() -> None:
    for run in (head({"head": HEAD}), head({"head": HEAD, "modes": MODES}, parameters=BATCH_NORM)):
        assert run.fold.coverage() == (["wrong_head"], {})


def test_a_net_with_batch_norm_is_judged_in_part_until_its_modes_were_compared() -> None:
    run = head({"head": HEAD}, parameters=BATCH_NORM)
    assert run.fold.coverage()[0] == ["wrong_head"]
    assert run.why == "in part: BatchNorm's loss in eval mode was not compared (from step 250 on)"
    off = Event("probe_off", step=20, body={"probe": "modes", "why": "too dear"}, id="off")
    assert "its probe is off: too dear" in head({"head": HEAD}, events=[off]).why
    norm = [{**NORM, "module": "LayerNorm"}]
    assert head({"head": HEAD}, parameters=norm).why == ""


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({**HEAD, "as_logits": float("nan")}, "no labels of classes"),
        ({**HEAD, "label_entropy": float("nan")}, "in part: classes: they are counted of nets"),
        ({**HEAD, "rows": 20.0}, "in part: classes: too few labels"),
    ],
)
def test_what_of_the_head_cannot_be_told_is_named(columns: dict[str, float], reason: str) -> None:
    assert reason in head({"head": columns}).why


def test_a_regression_with_batch_norm_is_judged_by_its_modes_alone() -> None:
    columns = {**HEAD, "as_logits": float("nan")}
    run = head({"head": columns, "modes": MODES}, parameters=BATCH_NORM)
    assert run.fold.coverage() == (["wrong_head"], {})


def test_a_verdict_counts_no_check_as_passed_that_was_judged_in_part() -> None:
    run = head({"head": HEAD}, parameters=BATCH_NORM)
    assert report_of(run.fold)["verdict"].startswith(
        "Healthy so far (step 600): 0 checks passed, 1"
    )
