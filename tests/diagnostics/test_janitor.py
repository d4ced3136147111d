"""The janitor: what goes when a server fills up, what never goes, and how it is told."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from otoscope.diagnostics import Daemon
from otoscope.diagnostics.janitor import (
    LOOK_SECONDS,
    LOST_SECONDS,
    OLD_SECONDS,
    RECENT_SECONDS,
    Janitor,
    ttl_of,
)
from otoscope.store import Column, ConfigError, Frame, Home, MemoryHome, Schema, StoreFullError
from otoscope.store.redis_home import RedisHome
from otoscope.store.retention import Memory

from tests.conftest import RedisProcess

SCHEMA = Schema("gradients", tuple(Column.of(f"q{i}") for i in range(2000)))
NOW = 1e9
DAY = 86_400.0


class Full(MemoryHome):
    """A home that counts each run as ten bytes of hundred."""

    policy = "noeviction"
    foreign = 0

    def memory(self) -> Memory | None:
        return Memory(10 * len(self.run_ids()) + self.foreign, 100, self.policy)

    def size(self, run: str) -> int | None:
        return 10


def add(
    home: Home, run: str, seen: float, *, ended: str | None = "finished", tags: tuple[str, ...] = ()
) -> None:
    end = None if ended is None else {"attempt": 1, "how": ended, "t": seen}
    fields = {"name": run, "attempt": 1, "heartbeat": {"0": seen}, "tags": list(tags), "ended": end}
    home.write_meta(run, fields)


def left(home: Home) -> set[str]:
    return {run for run, _ in home.run_ids()}


@pytest.fixture
def full() -> Full:
    home = Full(lambda: NOW - DAY)
    add(home, "live", NOW - 1, ended=None)
    add(home, "kept", NOW - 50 * DAY, tags=("keep",))
    add(home, "silent", NOW - LOST_SECONDS / 2, ended=None)
    add(home, "lost", NOW - 40 * DAY, ended=None)
    for i in range(4):
        add(home, f"done-{i}", NOW - (10 - i) * DAY, ended="failed" if i == 1 else "finished")
    return home


def test_the_oldest_finished_runs_go_until_there_is_room(
    full: Full, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="otoscope"):
        assert Janitor(full, clock=lambda: NOW).sweep() == ["done-0"]
    assert full.memory() == Memory(70, 100)
    told = full.settings()["janitor"]
    assert (told["why"], told["t"], told["used"], told["most"]) == ("memory", NOW, 70, 100)
    assert told["deleted"] == [{"id": "done-0", "name": "done-0", "last_seen": NOW - 10 * DAY}]
    assert "deleted to make room: done-0 (done-0)" in caplog.text


def test_a_live_run_and_one_that_is_to_be_kept_never_go(
    full: Full, caplog: pytest.LogCaptureFixture
) -> None:
    full.set_labels("done-3", {"tags": ["keep", "x"]})
    for i in range(8):
        add(full, f"other-{i}", NOW - 2, ended=None)
    janitor = Janitor(full, clock=lambda: NOW)
    with caplog.at_level(logging.WARNING, logger="otoscope"):
        gone = janitor.sweep()
    assert gone == ["done-0", "done-1", "done-2", "lost"]  # what broke off goes last
    assert {"live", "kept", "silent", "done-3"} <= left(full)
    assert "no finished run is left to delete" in caplog.text


def test_a_run_that_was_heard_of_minutes_ago_stays_though_it_failed_or_was_closed(
    full: Full,
) -> None:
    now = [NOW]
    for i in range(4):
        full.delete(f"done-{i}")
    full.delete("lost")
    for i in range(6):
        add(full, f"other-{i}", NOW - 2, ended=None)
    add(full, "failed", NOW - 60, ended="failed")  # its launcher starts it again in a minute
    full.set_labels("live", {"closed": True})
    janitor = Janitor(full, clock=lambda: now[0])
    assert janitor.sweep() == []
    now[0] += RECENT_SECONDS
    add(full, "live", now[0] - 1, ended=None)
    assert janitor.sweep() == ["failed"]


def test_an_old_recording_that_is_being_taken_in_stays() -> None:
    home = Full(lambda: NOW - 5)
    for i in range(10):
        add(home, f"half-{i}", NOW - 40 * DAY, ended=None)
    assert Janitor(home, clock=lambda: NOW).sweep() == []
    assert Janitor(home, clock=lambda: NOW + RECENT_SECONDS).sweep() == [
        "half-0",
        "half-1",
        "half-2",
    ]


def test_nothing_goes_on_a_server_that_makes_room_by_itself(full: Full) -> None:
    full.policy = "allkeys-lru"
    assert Janitor(full, clock=lambda: NOW).sweep() == []
    full.policy = "volatile-lru"  # runs have no time to live, so that none of them is evicted
    assert Janitor(full, clock=lambda: NOW).sweep() == ["done-0"]


def test_no_run_goes_for_what_others_keep_on_the_server(
    full: Full, caplog: pytest.LogCaptureFixture
) -> None:
    for run in left(full) - {"live", "done-0", "done-1"}:
        full.delete(run)
    full.foreign = 60
    janitor = Janitor(full, clock=lambda: NOW)
    with caplog.at_level(logging.WARNING, logger="otoscope"):
        assert janitor.sweep() == []
    assert left(full) == {"live", "done-0", "done-1"}
    assert "most of it by other than runs" in caplog.text
    full.foreign = 20
    for i in range(4):
        add(full, f"other-{i}", NOW - 2, ended=None)
    # ninety used, seventy by runs
    assert Janitor(full, clock=lambda: NOW).sweep() == ["done-0", "done-1"]


def test_the_memory_is_looked_at_every_ten_seconds(full: Full) -> None:
    now = [NOW]
    janitor = Janitor(full, clock=lambda: now[0])
    assert janitor.sweep() == ["done-0"]
    add(full, "more", NOW - 1, ended=None)
    assert janitor.sweep() == []
    now[0] += LOOK_SECONDS
    assert janitor.sweep() == ["done-1"]


def test_finished_runs_over_age_go_where_that_was_asked_for() -> None:
    home, now = MemoryHome(), [NOW]
    add(home, "old", NOW - 15 * DAY)
    add(home, "kept", NOW - 15 * DAY, tags=("keep",))
    add(home, "young", NOW - 13.99 * DAY)
    add(home, "live", NOW - 1, ended=None)
    janitor = Janitor(home, ttl=14 * DAY, clock=lambda: now[0])
    assert janitor.sweep() == ["old"]
    assert home.settings()["janitor"]["why"] == "age"
    now[0] += OLD_SECONDS
    assert janitor.sweep() == []
    now[0] += DAY
    assert janitor.sweep() == ["young"]
    assert left(home) == {"kept", "live"}
    assert Janitor(home, clock=lambda: NOW + 1000 * DAY).sweep() == []


@pytest.mark.parametrize("text", ["14", "14 days", "-3d", "0d", "forever"])
def test_a_lifetime_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="OTOSCOPE_TTL"):
        ttl_of({"OTOSCOPE_TTL": text})


@pytest.mark.redis
def test_a_full_server_takes_samples_again_once_the_daemon_has_swept(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
    server.start()
    try:
        home = RedisHome(server.url)
        wide = np.zeros(2000, np.float32)

        def send(run: str, step: int) -> None:
            home.append(run, [Frame("gradients", 0, 1, step, NOW, SCHEMA.hash, wide)])

        for run, age, steps in (("oldest", 9.0, 300), ("older", 5.0, 50)):
            add(home, run, NOW - age * DAY)
            for step in range(1, steps):
                send(run, step)
        add(home, "live", NOW - 1, ended=None)
        stored = 0
        with pytest.raises(StoreFullError):
            for step in range(1, 5000):
                send("live", step)
                stored = step
        Daemon(home, clock=lambda: NOW, heartbeat=tmp_path / "beat").tick()
        assert left(home) == {"older", "live"}
        assert [row["id"] for row in home.settings()["janitor"]["deleted"]] == ["oldest"]
        for step in range(stored + 1, stored + 50):
            send("live", step)
        memory = home.memory()
        assert memory is not None
        assert 0 < memory.share < 0.9
    finally:
        server.stop()
