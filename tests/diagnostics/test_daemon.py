"""The daemon: killed, doubled and left alone by its server, it finds what one pass finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from otoscope.diagnostics import Daemon, judge, summary
from otoscope.diagnostics.daemon import is_alive
from otoscope.store import Column, Event, Frame, MemoryHome, Schema, Store, StoreUnavailableError
from otoscope.store.redis_home import RedisHome
from otoscope.store.schemas import dumps

from ..conftest import RedisProcess
from .clock import Clock
from .lab import RUN, Lab

LOSS = Schema("train", (Column.of("loss"), Column.of("non_finite", ranks="sum")))


def begin(home: MemoryHome | RedisHome, lab: Lab) -> None:
    home.begin_attempt(RUN)
    home.write_meta(RUN, lab.told())
    for schema in lab.schemas.values():
        home.add_schema(RUN, schema)
    home.append(RUN, [], [Event("started", body={"world_size": 1}, id="started")])


def portions(lab: Lab, size: int) -> list[list[Frame]]:
    return [lab.frames[i : i + size] for i in range(0, len(lab.frames), size)]


def in_one_pass(lab: Lab) -> str:
    home = MemoryHome()
    begin(home, lab)
    home.append(RUN, lab.frames, lab.events)
    return dumps(judge(Store(home), RUN))


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_the_daemon_commits_what_one_pass_over_the_run_finds(faulty: Lab, tmp_path: Path) -> None:
    home = MemoryHome()
    begin(home, faulty)
    daemon = Daemon(home, heartbeat=tmp_path / "beat")
    for portion in portions(faulty, 37):
        home.append(RUN, portion)
        daemon.tick()
    home.append(RUN, [], faulty.events)
    daemon.tick()
    assert dumps(summary(Store(home), RUN)) == in_one_pass(faulty)
    assert summary(Store(home), RUN)["findings"]


def test_two_daemons_that_take_turns_find_what_one_finds(faulty: Lab, tmp_path: Path) -> None:
    clock = Clock()
    home = MemoryHome(clock)
    begin(home, faulty)
    pair = [Daemon(home, clock=clock, token=name, heartbeat=tmp_path / name) for name in ("a", "b")]
    judged = [0, 0]
    for i, portion in enumerate(portions(faulty, 50)):
        home.append(RUN, portion)
        for which in (0, 1) if i % 2 else (1, 0):
            judged[which] += pair[which].tick()
        if i % 3 == 0:
            clock.now += 11  # the lease runs out: whoever comes next takes over
    home.append(RUN, [], faulty.events)
    clock.now += 11
    pair[1].tick()
    pair[0].tick()
    assert min(judged) > 0
    assert dumps(summary(Store(home), RUN)) == in_one_pass(faulty)


def test_a_daemon_without_the_lease_judges_nothing(faulty: Lab, tmp_path: Path) -> None:
    home = MemoryHome()
    begin(home, faulty)
    home.append(RUN, faulty.frames)
    home.acquire(RUN, "another", 60_000)
    assert Daemon(home, heartbeat=tmp_path / "beat").tick() == 0
    assert home.judgement(RUN).cursor is None


def test_a_rank_that_falls_silent_is_excluded_by_an_event(tmp_path: Path) -> None:
    clock = Clock()
    home = MemoryHome(clock)
    home.begin_attempt(RUN)
    home.write_meta(RUN, {"name": "two", "world_size": 2})
    home.add_schema(RUN, LOSS)

    def send(rank: int, first: int, last: int) -> None:
        values = np.array([1.0, 0.0], dtype=np.float32)
        home.append(
            RUN,
            [
                Frame("train", rank, 1, s, clock.now, LOSS.hash, values)
                for s in range(first, last + 1)
            ],
        )

    daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat")
    send(0, 1, 40)
    send(1, 1, 12)
    daemon.tick()
    clock.now += 31
    daemon.tick()
    daemon.tick()
    excluded = [event for _, event in home.events(RUN) if event.kind == "excluded"]
    assert [(e.body["rank"], e.body["from_step"]) for e in excluded] == [(1, 12)]
    assert home.judgement(RUN).state["place"]["step"] == 40


def test_a_finished_run_still_takes_an_acknowledgement(faulty: Lab, tmp_path: Path) -> None:
    clock = Clock()
    home = MemoryHome(clock)
    begin(home, faulty)
    home.append(RUN, faulty.frames, faulty.events)
    daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat")
    daemon.tick()
    clock.now += 60
    daemon.tick()
    found = home.judgement(RUN).findings[0]
    home.add_event(RUN, Event("acknowledged", step=300, body={"finding": found.id}))
    for _ in range(10):
        daemon.tick()
    assert next(f for f in home.judgement(RUN).findings if f.id == found.id).acknowledged


def test_a_run_that_cannot_be_judged_does_not_stop_the_others(
    faulty: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryHome):
        def schemas(self, run: str) -> dict[str, Schema]:
            if run == "broken-01":
                raise ArithmeticError("planted")
            return super().schemas(run)

    home = Broken()
    home.write_meta("broken-01", {"name": "broken"})
    home.add_schema("broken-01", LOSS)
    values = np.array([1.0, 1.0], dtype=np.float32)
    frames = [Frame("train", 0, 1, s, 1e9, LOSS.hash, values) for s in range(1, 31)]
    home.append("broken-01", frames)
    begin(home, faulty)
    home.append(RUN, faulty.frames, faulty.events)
    Daemon(home, heartbeat=tmp_path / "beat").tick()
    assert home.judgement(RUN).findings
    assert "broken-01 cannot be judged" in caplog.text


def test_a_janitor_that_cannot_work_does_not_stop_the_judging(
    faulty: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(MemoryHome):
        def memory(self) -> None:
            raise ArithmeticError("planted")

    home = Odd()
    begin(home, faulty)
    home.append(RUN, faulty.frames, faulty.events)
    Daemon(home, heartbeat=tmp_path / "beat").tick()
    assert home.judgement(RUN).findings
    assert "finished runs cannot be deleted" in caplog.text


class GoesAway(MemoryHome):
    away = False

    def run_ids(self) -> list[tuple[str, float]]:
        if self.away:
            raise StoreUnavailableError("nobody answers")
        return super().run_ids()


def test_a_store_that_goes_away_is_waited_for(faulty: Lab, tmp_path: Path) -> None:
    home = GoesAway()
    begin(home, faulty)
    home.append(RUN, faulty.frames[:100])
    stop = threading.Event()
    daemon = Daemon(home, poll=0.01, heartbeat=tmp_path / "beat")
    thread = threading.Thread(target=daemon.run, args=(stop,))
    thread.start()
    wait_for(lambda: home.judgement(RUN).cursor is not None)
    home.away = True
    home.append(RUN, faulty.frames[100:], faulty.events)
    home.away = False
    wait_for(lambda: home.judgement(RUN).state["place"]["step"] == faulty.steps)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert is_alive(tmp_path / "beat")


CHILD = """
import sys, threading
from pathlib import Path
from otoscope.diagnostics import Daemon
from otoscope.store.redis_home import RedisHome
Daemon(RedisHome(sys.argv[1]), poll=0.005, heartbeat=Path(sys.argv[2])).run(threading.Event())
"""


@pytest.mark.redis
def test_a_daemon_that_is_killed_again_and_again_finds_what_one_pass_finds(
    faulty: Lab, tmp_path: Path
) -> None:
    server = RedisProcess(tmp_path).start()
    try:
        home = RedisHome(server.url)
        begin(home, faulty)

        def daemon() -> subprocess.Popen[bytes]:
            command = [sys.executable, "-c", CHILD, server.url, str(tmp_path / "beat")]
            return subprocess.Popen(command, env={**os.environ})

        child = daemon()
        try:
            for i, portion in enumerate(portions(faulty, 60)):
                home.append(RUN, portion)
                if i % 3 == 2:
                    before = home.judgement(RUN).cursor
                    wait_for(lambda before=before: home.judgement(RUN).cursor != before)
                    child.send_signal(signal.SIGKILL)
                    child.wait(10)
                    home.release(RUN, str(_lease(home)))
                    child = daemon()
            home.append(RUN, [], faulty.events)
            wait_for(lambda: home.judgement(RUN).state.get("place", {}).get("step") == faulty.steps)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(10)
        assert dumps(summary(Store(home), RUN)) == in_one_pass(faulty)
        home.close()
    finally:
        server.stop()


def _lease(home: RedisHome) -> str:
    """Who holds the lease: a test lets go of a killed daemon's, instead of waiting ten seconds."""
    from otoscope.store import keys

    held = home._client.get(keys.lease(RUN))
    return (held or b"").decode()


def test_a_restarted_daemon_that_only_hears_of_an_event_keeps_what_it_knew(
    faulty: Lab, tmp_path: Path
) -> None:
    home, curvature = MemoryHome(), Schema("curvature", (Column.of("newton_gain"),))
    begin(home, faulty)
    home.add_schema(RUN, curvature)
    gains = [
        Frame("curvature", 0, 1, step, 1e9, curvature.hash, np.array([7.0], np.float32))
        for step in (10, 20)
    ]
    home.append(RUN, [*gains, *(f for f in faulty.frames if f.family != "curvature")])
    first = Daemon(home, heartbeat=tmp_path / "beat")
    first.tick()
    before = home.judgement(RUN)
    assert before.obstacles["conditioning"]["value"] == 7.0
    finding = before.findings[0].id
    home.add_event(RUN, Event("acknowledged", body={"finding": finding}))
    Daemon(home, token=first.token, heartbeat=tmp_path / "beat").tick()
    after = home.judgement(RUN)
    assert after.findings[0].acknowledged
    assert after.obstacles == before.obstacles
