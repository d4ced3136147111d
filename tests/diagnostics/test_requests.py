"""Requests: what people ask for counts where it did, in a replay too, however late it was read."""

from __future__ import annotations

from pathlib import Path

import pytest
from otoscope.diagnostics import Context, Daemon, Window, judge, request, summary
from otoscope.diagnostics.fold import Fold
from otoscope.diagnostics.rule import Rule, fine
from otoscope.store import Event, MemoryHome, Meta, Store
from otoscope.store.schemas import dumps

from . import lab
from .lab import Lab
from .scripted import NUMBERS, RUN, TRAIN, frames, judged, rule, said

RULES = (rule(), rule("dead_units", 3.0))


def a_home(events: tuple[Event, ...] = ()) -> MemoryHome:
    home = MemoryHome()
    home.begin_attempt(RUN)
    home.write_meta(RUN, {"name": "scripted", "batch_size": 64})
    home.add_schema(RUN, TRAIN)
    home.append(RUN, [], [Event("started", body={"world_size": 1}, id="started"), *events])
    return home


ASKED = [
    ("override", {"key": "plateau.fire", "value": 2.5}),
    ("project", {"numbers": {"plateau.fire": 2.5}}),
    ("profile", {"task": "gan"}),
    ("action", {"parameter": "lr", "from": 0.1, "to": 0.03}),
    ("closed", {"finding": "plateau:run:1:50"}),
]


@pytest.mark.parametrize(("kind", "body"), ASKED, ids=[kind for kind, _ in ASKED])
def test_a_request_that_is_read_late_counts_in_a_replay_where_it_did(
    kind: str, body: dict[str, object], tmp_path: Path
) -> None:
    home, log = a_home(), frames(range(1, 401), lambda step: 2.0 if step >= 50 else 0.5)
    daemon = Daemon(home, heartbeat=tmp_path / "beat", rules=RULES)
    home.append(RUN, log[:207])
    daemon.tick()
    home.add_event(RUN, Event(kind, step=120, body=body, id="asked"))
    daemon.tick()
    home.append(RUN, log[207:])
    daemon.tick()
    live = dumps(summary(Store(home), RUN))
    assert live == dumps(judge(Store(home), RUN, rules=RULES))
    told = [event for _, event in home.events(RUN) if event.kind == "counted"]
    assert [(event.step, event.body["event"]) for event in told] == [(200, "asked")]
    early = a_home((Event(kind, step=120, body=body, id="asked"),))
    early.append(RUN, log)
    assert live != dumps(judge(Store(early), RUN, rules=RULES)), "else the test cannot fail"


def test_a_finding_that_a_person_closes_is_resolved_at_once_and_keeps_quiet(tmp_path: Path) -> None:
    home = a_home()
    daemon = Daemon(home, heartbeat=tmp_path / "beat", rules=RULES)
    home.append(RUN, frames(range(1, 101), lambda step: 2.0))
    home.append(RUN, [], [Event("finished", step=100, body={"reason": "done"})])
    daemon.tick()
    (finding,) = home.judgement(RUN).findings
    request(Store(home), RUN, "closed", {"finding": finding.id})
    daemon.tick()
    (finding,) = home.judgement(RUN).findings
    assert (finding.state, finding.closed, finding.outcome) == ("resolved", True, None)


def test_a_closed_finding_comes_back_only_after_a_while() -> None:
    closed = Event("closed", step=100, body={"finding": "plateau:run:1:10"})
    log = frames(range(1, 801), lambda step: 2.0)
    assert [f.state for f in judged([rule()], log[:590], [closed]).findings()] == ["resolved"]
    again = judged([rule()], log, [closed]).findings()
    assert [(item.state, item.last_step > 590) for item in again] == [
        ("firing", True),
        ("resolved", False),
    ]


def test_a_profile_that_switches_a_rule_off_resolves_what_it_found() -> None:
    fold = judged(RULES, frames(range(1, 201), lambda step: 2.0), [_profile("gan", 100)])
    assert [item.state for item in fold.findings()] == ["resolved"]
    judged_rules, missing = fold.coverage()
    assert "plateau" not in judged_rules
    assert "gan" in missing["plateau"]


def test_a_profile_that_is_not_known_changes_nothing() -> None:
    fold = judged(RULES, frames(range(1, 201), lambda step: 2.0), [_profile("nonsense", 100)])
    assert [item.state for item in fold.findings()] == ["firing"]
    assert fold.settings.profile == "supervised"


def _profile(task: str, step: int) -> Event:
    return Event("profile", step=step, body={"task": task})


def test_what_was_called_normal_is_counted_by_rule() -> None:
    answer = Event("normal", step=20, body={"finding": "plateau:run:1:10"}, id="n")
    fold = judged(RULES, frames(range(1, 41), lambda step: 2.0), [answer, answer])
    assert fold.findings()[0].acknowledged
    assert fold.settings.normal_by_rule() == {"plateau": 1}


@pytest.mark.parametrize(
    ("last", "restarts"),
    [(lambda step: 30 if step % 10 == 0 else 64, False), (lambda step: 64 + step % 7, False),
     (lambda step: 64 if step <= 100 else 128, True)],
    ids=["short last batches", "steps of any size", "a larger batch"],
)  # fmt: skip
def test_windows_begin_anew_where_the_batch_size_changes_for_good(last, restarts) -> None:  # type: ignore[no-untyped-def]
    fold = judged(RULES, frames(range(1, 301), samples=last))
    assert (fold.place.since > 0) is restarts


def test_an_attempt_is_judged_by_its_own_settings_and_not_by_those_of_a_later_one() -> None:
    seen: list[object] = []

    def judge_batch(window: Window, context: Context):  # type: ignore[no-untyped-def]
        seen.append(context.meta.batch_size)
        return fine()

    looks = Rule("plateau", "train", judge_batch, numbers=NUMBERS)
    log = [*frames(range(1, 51)), *frames(range(31, 61), attempt=2)]
    told = [
        Event("started", attempt=n, step=s, body={"world_size": 1, "settings": {"batch_size": b}})
        for n, s, b in ((1, 0, 32), (2, 30, 128))
    ]
    judged([looks], log, told, batch_size=128)
    assert set(seen[:5]) == {32}
    assert set(seen[5:]) == {128}


# ---- memory ---------------------------------------------------------------------------------


def counting() -> Rule:
    def remember(window: Window, context: Context):  # type: ignore[no-untyped-def]
        seen = context.memory.get("seen", [])
        return {"seen": [*seen, window.step][-3:], "pair": (1, float("nan"))}

    return Rule("plateau", "train", lambda w, c: fine(), numbers=NUMBERS, remember=remember)


def test_what_a_rule_remembers_is_plain_json_and_begins_anew_with_an_attempt() -> None:
    fold = judged([counting()], frames(range(1, 51)))
    assert fold.memory == {"plateau": {"seen": [30, 40, 50], "pair": [1, None]}}
    fold.push(frames(range(31, 41), attempt=2))
    fold.judge()
    assert fold.memory["plateau"]["seen"] == [40]


def test_what_a_rule_remembers_survives_a_restart() -> None:
    log = frames(range(1, 101))
    whole, half = judged([counting()], log), judged([counting()], log[:47])
    again = Fold(RUN, Meta(), {TRAIN.hash: TRAIN}, rules=[counting()])
    again.restore(half.state(), half.findings())
    again.rebuild(log[:47])
    again.push(log[40:])
    again.judge()
    assert again.memory == whole.memory
    assert said(again.findings()) == said(whole.findings())


# ---- reviews --------------------------------------------------------------------------------


def test_a_replay_of_a_run_that_was_reviewed_while_it_trained_is_the_live_one_to_the_byte(
    faulty: Lab, tmp_path: Path
) -> None:
    home = MemoryHome()
    home.write_meta(lab.RUN, faulty.told())
    for schema in faulty.schemas.values():
        home.add_schema(lab.RUN, schema)
    home.append(lab.RUN, [], [Event("started", body={"world_size": 1}, id="started")])
    daemon = Daemon(home, heartbeat=tmp_path / "beat")
    review = ["snoozed", "acknowledged", "normal", "snoozed", "closed", "snoozed"]
    for first in range(0, faulty.steps, 30):
        home.append(lab.RUN, [f for f in faulty.frames if first < f.step <= first + 30])
        daemon.tick()
        for finding in home.judgement(lab.RUN).findings[:1] if review else []:
            body = {"finding": finding.id, "until_step": first + 90}
            request(Store(home), lab.RUN, review.pop(0), body)
    home.append(lab.RUN, [], faulty.events)
    daemon.tick()
    live = summary(Store(home), lab.RUN)
    assert not review
    (first, *_) = live["findings"]
    assert (first["acknowledged"], first["closed"]) == (True, True)
    assert first["snoozed_until_step"] > 90
    assert dumps(live) == dumps(judge(Store(home), lab.RUN))
