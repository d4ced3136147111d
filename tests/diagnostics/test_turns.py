"""Turns: runs that train are judged in every tick, and what waits gets its part of each."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from otoscope.diagnostics import Daemon, judge, summary
from otoscope.diagnostics.turns import LEAST, TURN, Turns
from otoscope.store import Event, Frame, Home, MemoryHome, Meta, Store
from otoscope.store.redis_home import RedisHome
from otoscope.store.schemas import dumps

from ..conftest import RedisProcess
from .clock import Clock
from .lab import RUN, Lab
from .scripted import TRAIN, frames, rule

STARTED = Event("started", body={"world_size": 1}, id="started")


def recorded(home: Home, run: str, steps: int, **meta: object) -> None:
    """Put a run into a home that ended long ago, at once."""
    home.write_meta(run, {"name": run, "started": 1.0, "heartbeat": {"0": 2.0}, **meta})
    home.add_schema(run, TRAIN)
    home.append(run, frames(range(1, steps + 1)), [STARTED])
    home.write_meta(run, {"ended": {"attempt": 1, "how": "finished", "t": 2.0, "reason": "done"}})


def steps_judged(home: Home, run: str) -> int:
    return int((home.judgement(run).state.get("place") or {}).get("step", 0))


@pytest.mark.redis
def test_a_live_run_is_judged_in_every_tick_beside_hundreds_that_wait(
    faulty: Lab, tmp_path: Path
) -> None:
    server = RedisProcess(tmp_path).start()
    try:
        home = RedisHome(server.url)
        home.begin_attempt(RUN)
        home.write_meta(RUN, {**faulty.told(), "heartbeat": {"0": time.time()}})
        for schema in faulty.schemas.values():
            home.add_schema(RUN, schema)
        home.append(RUN, [], [STARTED])
        waiting = [f"run-{i:03d}" for i in range(300)]
        for run in waiting:
            recorded(home, run, 40)  # seen later than the run that trains
        daemon = Daemon(home, heartbeat=tmp_path / "beat")
        for first in range(0, faulty.steps, 60):
            portion = [f for f in faulty.frames if first < f.step <= first + 60]
            home.append(RUN, portion, [e for e in faulty.events if first < e.step <= first + 60])
            daemon.tick()
            assert steps_judged(home, RUN) == min(first + 60, faulty.steps)
        assert dumps(summary(Store(home), RUN)) == dumps(judge(Store(home), RUN))
        assert summary(Store(home), RUN)["findings"]
        done = [run for run in waiting if steps_judged(home, run) == 40]
        ticks = -(-faulty.steps // 60)
        assert len(done) == ticks * TURN // LEAST, "a turn's worth of them in each tick"
        assert daemon.has_more
        home.close()
    finally:
        server.stop()


def test_all_that_wait_are_judged_first_come_first_served_while_others_train(
    tmp_path: Path, clock: Clock
) -> None:
    home = MemoryHome(clock)
    home.write_meta("live", {"name": "live", "heartbeat": {"0": clock.now}})
    home.add_schema("live", TRAIN)
    home.append("live", [], [STARTED])
    recorded(home, "long", 5000)
    daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=[rule()])
    daemon.tick()
    for i in range(30):
        clock.now += 1
        recorded(home, f"short-{i:02d}", 100)
    ended: list[str] = []
    for first in range(0, 300, 30):
        home.write_meta("live", {"heartbeat": {"0": clock.now}})
        home.append("live", frames(range(first + 1, first + 31)))
        daemon.tick()
        assert steps_judged(home, "live") == first + 30
        now = {run for run, _ in home.run_ids() if run != "live" and steps_judged(home, run)}
        ended += sorted(now - {*ended})
    assert steps_judged(home, "long") == 5000
    assert len(ended) == 31
    assert ended[0] == "long", "it came first, and keeps its place however long it takes"
    assert not daemon.has_more


def test_a_live_run_that_is_far_behind_leaves_time_for_the_others(
    tmp_path: Path, clock: Clock
) -> None:
    home = MemoryHome(clock)
    for run, steps in (("behind", 9000), ("beside", 50)):
        home.write_meta(run, {"name": run, "heartbeat": {"0": clock.now}})
        home.add_schema(run, TRAIN)
        home.append(run, frames(range(1, steps + 1)), [STARTED])
    daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=[rule()])
    daemon.tick()
    assert steps_judged(home, "beside") == 50
    assert 0 < steps_judged(home, "behind") <= 20 * TURN
    assert daemon.has_more
    for _ in range(5):
        daemon.tick()
    assert steps_judged(home, "behind") == 9000


def test_an_answer_to_a_finding_of_a_judged_run_does_not_queue(
    tmp_path: Path, clock: Clock
) -> None:
    home = MemoryHome(clock)
    home.write_meta("old", {"name": "old", "started": 1.0})
    home.add_schema("old", TRAIN)
    home.append("old", frames(range(1, 101), lambda step: 2.0), [STARTED])
    home.write_meta("old", {"ended": {"attempt": 1, "how": "finished", "t": 2.0, "reason": ""}})
    daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=[rule()])
    daemon.tick()
    for i in range(3):
        recorded(home, f"long-{i}", 9000)
    (finding,) = home.judgement("old").findings
    home.add_event("old", Event("acknowledged", step=100, body={"finding": finding.id}))
    for _ in range(10):  # resting runs are looked at in every tenth tick
        daemon.tick()
    assert home.judgement("old").findings[0].acknowledged
    assert daemon.has_more


def test_a_run_in_the_queue_keeps_its_place_until_it_trains_again() -> None:
    turns, asked = Turns(), []

    def meta(heartbeat: float):  # type: ignore[no-untyped-def]
        def told(run: str) -> Meta:
            asked.append(run)
            return Meta(heartbeat={"0": heartbeat})

        return told

    assert turns.queues("a", 1.0, False, meta(0.0), 1000.0)
    assert turns.queues("b", 2.0, False, meta(0.0), 1000.0)
    assert turns.queues("a", 1.0, False, meta(999.0), 1000.0), "asked once as long as none was seen"
    assert asked == ["a", "b"]
    assert turns.queues("a", 3.0, False, meta(0.0), 1000.0)
    assert turns.queue() == ["a", "b"]
    assert not turns.queues("a", 4.0, False, meta(999.0), 1000.0)
    assert turns.queue() == ["b"]
    turns.keep({})
    assert not turns


def test_a_turn_goes_on_with_frames_that_were_read_and_not_judged(
    tmp_path: Path, clock: Clock
) -> None:
    """Of two ranks one is silent for long; once it is left out, thousands of steps are complete."""
    home = MemoryHome(clock)
    home.write_meta("two", {"name": "two", "world_size": 2, "heartbeat": {"0": clock.now}})
    home.add_schema("two", TRAIN)
    home.append("two", frames(range(1, 5001)), [Event("started", body={"world_size": 2}, id="s")])
    values = np.ones(3, dtype=np.float32)
    home.append("two", [Frame("train", 1, 1, 5, clock.now, TRAIN.hash, values)])
    daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=[rule()])
    daemon.tick()
    assert steps_judged(home, "two") == 0
    clock.now += 31
    for _ in range(4):
        daemon.tick()
    assert steps_judged(home, "two") == 5000


def test_a_backlog_that_another_daemon_holds_is_waited_for_and_not_asked_for_again_and_again(
    tmp_path: Path, clock: Clock
) -> None:
    home = MemoryHome(clock)
    held = [f"held-{i:02d}" for i in range(3 * TURN // LEAST)]
    for run in held:
        recorded(home, run, 40)
        home.acquire(run, "another", 1_000_000)
    daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=[rule()])
    daemon.tick()
    assert daemon.has_more, "those that were not asked for yet may be free"
    for _ in range(3):
        daemon.tick()
    assert not daemon.has_more
    home.release(held[-1], "another")
    for _ in range(4):  # a turn asks for a third of them
        daemon.tick()
    assert [run for run in held if steps_judged(home, run)] == [held[-1]]
    recorded(home, "free", 40)
    for _ in range(4):
        daemon.tick()
    assert steps_judged(home, "free") == 40
