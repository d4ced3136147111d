"""The fold: the same log gives the same findings, however it is cut and wherever it restarts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from otoscope.diagnostics.fold import Fold, fold
from otoscope.diagnostics.judging import fold_run
from otoscope.diagnostics.rule import Context, Rule, Verdict, fine
from otoscope.diagnostics.thresholds import SHARED, load
from otoscope.diagnostics.windows import Window
from otoscope.store import Column, Event, Finding, Frame, MemoryHome, Meta, Schema
from otoscope.store.schemas import dumps

from .lab import RUN, Lab

LOSS = Schema("train", (Column.of("loss"), Column.of("non_finite", ranks="sum")))


def train_frame(
    step: int, loss: float = 1.0, bad: float = 0.0, rank: int = 0, attempt: int = 1
) -> Frame:
    values = np.array([loss, bad], dtype=np.float32)
    return Frame("train", rank, attempt, step, 1e9 + step, LOSS.hash, values)


def a_fold(world_size: int = 1) -> Fold:
    return Fold(RUN, Meta(world_size=world_size), {LOSS.hash: LOSS})


def said(findings: list[Finding]) -> str:
    return dumps([finding.to_json() for finding in findings])


def of_lab(lab: Lab) -> tuple[Meta, dict[str, Schema]]:
    return Meta.from_json(lab.told()), {schema.hash: schema for schema in lab.schemas.values()}


def in_portions(lab: Lab, draw: random.Random) -> list[list[Frame]]:
    portions: list[list[Frame]] = []
    rest = list(lab.frames)
    while rest:
        size = draw.choice([1, 2, 7, 40, 400])
        portions.append(rest[:size])
        rest = rest[size:]
    return portions


@pytest.mark.parametrize("seed", range(5))
def test_findings_do_not_depend_on_how_the_log_was_cut(faulty: Lab, seed: int) -> None:
    meta, schemas = of_lab(faulty)
    whole = Fold(RUN, meta, schemas)
    whole.push(faulty.frames, faulty.events)
    whole.judge()
    assert whole.findings()

    parts = Fold(RUN, meta, schemas)
    for portion in in_portions(faulty, random.Random(seed)):
        parts.push(portion)
        parts.judge()
    parts.push(events=faulty.events)
    parts.judge()

    assert said(parts.findings()) == said(whole.findings())


@pytest.mark.parametrize("seed", range(5))
def test_a_fold_that_is_restored_from_its_state_goes_on_byte_for_byte(
    faulty: Lab, seed: int
) -> None:
    meta, schemas = of_lab(faulty)
    whole = Fold(RUN, meta, schemas)
    whole.push(faulty.frames, faulty.events)
    whole.judge()

    draw = random.Random(100 + seed)
    state, findings, past = None, [], []
    for portion in in_portions(faulty, draw):
        # what lies beyond the last point is read again, as a daemon does after a restart
        step = state["place"]["step"] if state else 0
        again = [frame for frame in past if frame.step > step]
        state, findings = fold(
            state,
            [*again, *portion],
            run=RUN,
            meta=meta,
            schemas=schemas,
            findings=findings,
            past=past,
        )
        past += portion
    step = state["place"]["step"] if state else 0
    again = [frame for frame in past if frame.step > step]
    state, findings = fold(
        state,
        [*again, *faulty.events],
        run=RUN,
        meta=meta,
        schemas=schemas,
        findings=findings,
        past=past,
    )

    assert said(findings) == said(whole.findings())


def test_the_state_is_json_of_scalars(faulty: Lab) -> None:
    meta, schemas = of_lab(faulty)
    folded = Fold(RUN, meta, schemas)
    folded.push(faulty.frames, faulty.events)
    folded.judge()
    assert len(dumps(folded.state())) < 20_000


def test_frames_in_the_order_of_streams_give_the_same_as_in_the_order_of_steps(faulty: Lab) -> None:
    meta, schemas = of_lab(faulty)
    shuffled = Fold(RUN, meta, schemas)
    shuffled.push(sorted(faulty.frames, key=lambda f: (f.family, f.step)), faulty.events)
    shuffled.judge()
    home = MemoryHome()
    home.write_meta(RUN, faulty.told())
    for schema in schemas.values():
        home.add_schema(RUN, schema)
    home.append(RUN, faulty.frames, faulty.events)
    assert said(shuffled.findings()) == said(fold_run(home, RUN).findings())


def test_a_point_waits_for_the_slowest_rank() -> None:
    folded = a_fold(world_size=2)
    folded.push([train_frame(step) for step in range(1, 31)])
    assert folded.judge() == 0
    folded.push([train_frame(step, rank=1) for step in range(1, 21)])
    assert folded.judge() == 2
    assert folded.place.step == 20


def test_an_excluded_rank_is_waited_for_no_longer_and_its_later_frames_are_late() -> None:
    folded = a_fold(world_size=2)
    folded.push([train_frame(step) for step in range(1, 41)])
    folded.push([train_frame(step, rank=1) for step in range(1, 16)])
    assert folded.judge() == 1
    folded.push(events=[Event("excluded", step=15, body={"rank": 1, "from_step": 15})])
    assert folded.judge() == 3
    folded.push([train_frame(16, rank=1, bad=1.0)])
    assert folded.log.late == 1
    assert folded.findings() == []


def test_the_last_steps_behind_the_grid_are_judged_when_the_run_has_ended() -> None:
    folded = a_fold()
    folded.push(
        [
            train_frame(step, loss=np.nan if step == 27 else 1.0, bad=step == 27)
            for step in range(1, 28)
        ]
    )
    folded.judge()
    assert folded.findings() == []
    folded.push(events=[Event("exception", step=27, body={"type": "ValueError", "message": "nan"})])
    folded.judge()
    assert [finding.id for finding in folded.findings()] == ["non_finite:run:1:27"]


def test_a_new_attempt_closes_the_one_before_it_and_begins_its_windows_anew() -> None:
    folded = a_fold()
    folded.push([train_frame(step) for step in range(1, 51)])
    folded.push([train_frame(step, attempt=2) for step in range(31, 61)])
    folded.judge()
    assert (folded.place.attempt, folded.place.step, folded.place.start) == (2, 60, 30)
    folded.push([train_frame(55)])
    assert folded.log.late == 1


def test_steps_without_frames_hold_no_points() -> None:
    folded = a_fold()
    folded.push([train_frame(step) for step in (*range(1, 21), *range(1_000_001, 1_000_021))])
    assert folded.judge() == 4


def test_an_lr_event_begins_the_windows_anew() -> None:
    folded = a_fold()
    event = Event("lr", step=25, body={"from": 0.1, "to": 0.2, "phase": "warmup"})
    folded.push([train_frame(step) for step in range(1, 41)], [event])
    folded.judge()
    assert folded.place.since == 25
    judged, missing = folded.coverage()
    assert "non_finite" in judged
    assert "plateau" in missing


def test_a_profile_switches_rules_off_and_says_so(healthy: Lab) -> None:
    meta, schemas = of_lab(healthy)
    folded = Fold(RUN, meta, schemas)
    folded.push(healthy.frames, [Event("profile", step=0, body={"task": "gan"})])
    folded.judge()
    judged, missing = folded.coverage()
    assert "plateau" not in judged
    assert missing["plateau"] == "switched off in the task profile gan"


def test_an_override_counts_from_its_step_on() -> None:
    folded = a_fold()
    folded.push([train_frame(step) for step in range(1, 21)])
    folded.push(events=[Event("override", step=5, body={"key": "plateau.fire", "value": 0.5})])
    folded.judge()
    assert folded.thresholds("plateau").fire == 0.5


def test_what_was_acknowledged_no_longer_asks_for_attention() -> None:
    frames = [train_frame(step, bad=step == 5) for step in range(1, 31)]
    event = Event("acknowledged", step=12, body={"finding": "non_finite:run:1:5"})
    folded = a_fold()
    folded.push(frames, [event])
    folded.judge()
    assert folded.findings()[0].acknowledged


def test_events_with_nonsense_in_them_change_nothing() -> None:
    folded = a_fold()
    nonsense = [
        Event("override", step=1, body={"key": "plateau.fire", "value": "lots"}),
        Event("override", step=1, body={"key": "no.such", "value": 1}),
        Event("excluded", step=1, body={}),
        Event("started", step=0, body={"world_size": "two"}),
        Event("gap", step=1, body={"to": None}),
        Event("snoozed", step=1, body={"until_step": "soon"}),
        Event("something new", step=1),
    ]
    folded.push([train_frame(step) for step in range(1, 31)], nonsense)
    assert folded.judge() == 3
    assert folded.thresholds("plateau").fire == 0.01


def test_frames_of_an_unknown_schema_are_not_judged() -> None:
    folded = Fold(RUN, Meta(), {})
    folded.push([train_frame(step) for step in range(1, 21)])
    assert folded.judge() == 2
    judged, missing = folded.coverage()
    assert judged == []
    assert set(missing) == {rule.id for rule in folded.rules}


def test_a_sample_of_the_warm_up_is_judged_once_the_warm_up_has_ended() -> None:
    """A probe that looks once, at step 5, is not lost to a rule that may judge from step 60 on."""
    seen = Schema("seen", (Column.of("value"),))
    numbers = load("plateau")
    body = {name: getattr(numbers, name) for name in SHARED} | {"warm_up": 60, "cadence": 10}
    judged: list[int] = []

    def judge(window: Window, context: Context) -> Verdict:
        judged.append(window.step)
        return fine()

    rule = Rule("own", "seen", judge, numbers=body)
    folded = Fold(RUN, Meta(), {LOSS.hash: LOSS, seen.hash: seen}, rules=[rule])
    once = Frame("seen", 0, 1, 5, 1e9, seen.hash, np.ones(1, dtype=np.float32))
    folded.push([*(train_frame(step) for step in range(1, 102)), once])
    folded.judge()
    assert judged == [70]
