"""Judging where raw samples are cut: behind the daemon without a trace, before it with a gap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from otoscope.diagnostics import Daemon, judge, render_report, summary
from otoscope.store import Column, Event, Frame, MemoryHome, Schema, Store, StreamName
from otoscope.store.retention import Retention
from otoscope.store.schemas import dumps

RUN = "unkept-01"
TRAIN = StreamName("train", 0, 1)
SCHEMA = Schema("train", tuple(Column.of(name) for name in ("loss", "lr", "grad_sq", "non_finite")))


def frames(first: int, last: int) -> list[Frame]:
    """A run whose loss falls until step 3,000 and stands still from there on."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=10_001)
    rows = []
    for step in range(first, last + 1):
        loss = 2.3 * (0.3 + np.exp(-min(step, 3_000) / 800)) * (1 + 0.05 * noise[step])
        values = np.array([loss, 0.1, 1.0 + 0.1 * noise[-step], 0.0], np.float32)
        rows.append(Frame("train", 0, 1, step, 1e9 + step, SCHEMA.hash, values))
    return rows


@pytest.fixture
def home() -> MemoryHome:
    home = MemoryHome()
    home.begin_attempt(RUN)
    home.write_meta(RUN, {"name": "unkept", "optimizers": [{"name": "SGD", "lr": 0.1}]})
    home.add_schema(RUN, SCHEMA)
    started = Event("started", t=1e9, body={"world_size": 1, "start_step": 0})
    home.append(RUN, [], [started])
    return home


def whole(last: int) -> str:
    """The judgement of a run of which everything was kept."""
    kept = MemoryHome()
    kept.write_meta(RUN, {"name": "unkept", "optimizers": [{"name": "SGD", "lr": 0.1}]})
    kept.add_schema(RUN, SCHEMA)
    kept.append(RUN, frames(1, last), [Event("started", body={"world_size": 1, "start_step": 0})])
    return dumps(judge(Store(kept), RUN))


def test_what_the_daemon_cuts_leaves_no_trace_in_its_judgement(
    home: MemoryHome, tmp_path: Path
) -> None:
    daemon = Daemon(home, heartbeat=tmp_path / "beat", keep=0.02)
    for first in range(1, 8_000, 500):
        home.append(RUN, frames(first, first + 499))
        daemon.tick()
        if first == 3_501:  # a restarted daemon rebuilds its windows from what was kept
            daemon = Daemon(home, heartbeat=tmp_path / "other", token=daemon.token, keep=0.02)
    steps = [frame.step for frame in home.frames(RUN, TRAIN)]
    assert 5_800 < steps[0] <= 6_001  # 2,000 steps of windows behind step 8,000
    assert dumps(summary(Store(home), RUN)) == whole(8_000)
    assert summary(Store(home), RUN)["judged"]
    assert [event.kind for _, event in home.events(RUN)] == ["started"]


def test_where_unread_samples_are_cut_the_windows_begin_anew_behind_them(
    home: MemoryHome, tmp_path: Path
) -> None:
    sender = Retention(cap=600)
    daemon = Daemon(home, heartbeat=tmp_path / "beat")

    def send(first: int, last: int) -> None:
        for begin in range(first, last, 100):
            part = frames(begin, begin + 99)
            home.append(RUN, part)
            sender.note(part)
            sender.enforce(home, RUN)

    send(1, 1_000)
    daemon.tick()
    before = summary(Store(home), RUN)
    assert before["missed"] and before["missed"][0]["from"] == 1  # it came late
    send(1_001, 4_000)  # and is not there
    gaps = [event for _, event in home.events(RUN) if event.kind == "gap"]
    assert (gaps[0].body["from"], gaps[0].body["family"]) == (1_001, "train")
    first = home.frames(RUN, TRAIN)[0].step
    assert gaps[-1].body["to"] == first - 1

    Daemon(home, heartbeat=tmp_path / "again", token=daemon.token).tick()
    judgement = home.judgement(RUN)
    assert judgement.state["place"]["step"] == 4_000
    assert judgement.state["place"]["since"] == first - 1
    missed = summary(Store(home), RUN)["missed"]
    covered = {step for gap in missed for step in range(gap["from"], gap["to"] + 1)}
    assert covered == {*range(1, before["missed"][0]["to"] + 1), *range(1_001, first)}


def test_a_run_whose_beginning_is_gone_is_judged_only_where_that_does_not_matter(
    home: MemoryHome,
) -> None:
    home.append(RUN, frames(1, 6_000))
    home.trim(RUN, TRAIN, 3_501)  # the loss stood still ever since
    answer = judge(Store(home), RUN)
    assert answer["missed"] == [{"attempt": 1, "from": 1, "to": 3_500}]
    assert "non_finite" in answer["judged"]
    for rule in ("plateau", "lr_too_high", "exploding_gradients", "dead_units"):
        assert "up to step 3,500 are not kept" in answer["not_judged"][rule]
    assert answer["findings"] == []
    page = render_report(Store(home), RUN, answer)
    assert "Not judged: steps 1 to 3,500, whose samples" in page


def test_a_run_that_begins_late_on_its_own_account_misses_nothing(home: MemoryHome) -> None:
    other = "unkept-02"
    home.write_meta(other, {"name": "resumed"})
    home.add_schema(other, SCHEMA)
    started = Event("started", body={"world_size": 1, "start_step": 400})
    home.append(other, frames(401, 900), [started])
    assert judge(Store(home), other)["missed"] == []


def test_a_run_that_a_daemon_judged_is_judged_on_from_there(
    home: MemoryHome, tmp_path: Path
) -> None:
    daemon = Daemon(home, heartbeat=tmp_path / "beat", keep=0.02)
    for first in range(1, 6_000, 500):
        home.append(RUN, frames(first, first + 499))
        daemon.tick()
    assert home.frames(RUN, TRAIN)[0].step > 3_000
    assert dumps(judge(Store(home), RUN)) == whole(6_000)
    home.append(RUN, frames(6_001, 6_500))  # and what it has not seen yet
    assert dumps(judge(Store(home), RUN)) == whole(6_500)
    early = judge(Store(home), RUN, until=5_000)  # judged anew, from what is left
    assert early["missed"] and early["not_judged"]["plateau"].startswith(
        "needs the run's beginning"
    )
