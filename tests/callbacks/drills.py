"""What the drills share: a training that emits, and what a store then holds."""

from __future__ import annotations

import json
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import redis
from otoscope.callbacks.sender import Sender
from otoscope.store import Column, Event, Frame, Schema, StreamName, keys
from otoscope.store.connecting import open_sink
from otoscope.store.redis_home import RedisHome

RUN = "drill-01"
TRAIN = Schema("train", (Column.of("loss"), Column.of("samples")))
LAYERS = Schema("gradients", tuple(Column.of("grad_sq", layer=f"l{i}") for i in range(50)))
EVERY = 5
"""`gradients` comes every fifth step."""

Id = tuple[str, int, int]
"""Family, step, seq."""


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.005)


@dataclass
class Training:
    """Emits as a recorder does, and notes what it emitted and how long a call took."""

    sender: Sender
    step: int = 0
    emitted: list[Id] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    longest: float = 0.0

    def begin(self) -> Training:
        self.sender.emit(TRAIN)
        self.sender.emit(LAYERS)
        self.sender.emit({"name": "a drill", "world_size": 1, "ended": None})
        self._event("started", {"world_size": 1})
        self.sender.start()
        return self

    def steps(self, count: int, pace: float = 0.0) -> None:
        for _ in range(count):
            self.step += 1
            if self.step % EVERY == 0:
                self._frame(LAYERS)
            self._frame(TRAIN)
            if self.step % 50 == 0:
                self._event("epoch", {"n": self.step // 50})
            if self.step % 10 == 0:
                self._emit({"heartbeat": {"0": time.time()}})
            if pace:
                time.sleep(pace)  # what a step takes, so that the sender has its turns between them

    def _frame(self, schema: Schema) -> None:
        width = len(schema.columns)
        values = np.full(width, self.step, np.float32)
        self._emit(Frame(schema.family, 0, 1, self.step, 1e9 + self.step, schema.hash, values))
        self.emitted.append((schema.family, self.step, 1))

    def _event(self, kind: str, body: dict[str, int]) -> None:
        event = Event(kind, self.step, 1, 0, 1e9 + self.step, dict(body))
        self.events.append(event.id)
        self._emit(event)

    def _emit(self, item: Frame | Event | dict[str, object]) -> None:
        before = time.perf_counter()
        self.sender.emit(item)
        self.longest = max(self.longest, time.perf_counter() - before)


def training(url: str, folder: Path, *, held: int = 100, timeout: float = 1.0) -> Training:
    """A training that sends to a URL with what the callback itself opens."""
    spool = folder / RUN
    sink = lambda: open_sink(url, RUN, spool, timeout=timeout)  # noqa: E731
    return Training(Sender(RUN, sink, spool, linger=0.02, held=held)).begin()


@dataclass
class Stored:
    """What a second connection finds in a server."""

    ids: list[Id]
    """In the order of each stream."""
    events: list[str]
    gaps: list[dict[str, int | str]]

    @property
    def twice(self) -> list[Id]:
        return [row for row, count in Counter(self.ids).items() if count > 1]


def stored(url: str, attempt: int = 1) -> Stored:
    """Read every stream with a client of its own, past every line of ours that counts or reads."""
    client: Any = redis.Redis.from_url(url, socket_timeout=5)
    ids: list[Id] = []
    for family, width in (("train", 2), ("gradients", 50)):
        key = f"{keys.PREFIX}{{{RUN}}}:raw:{family}:0:{attempt}"
        for place, row in client.xrange(key):
            step, seq = (int(part) for part in place.split(b"-"))
            assert row[b"v"] == struct.pack(f"<{width}f", *[step] * width)
            ids.append((family, step, seq))
    rows = [json.loads(row[b"e"]) for _, row in client.xrange(f"{keys.PREFIX}{{{RUN}}}:events")]
    client.close()
    gaps = [row["body"] for row in rows if row["kind"] == "gap"]
    return Stored(ids, [row["id"] for row in rows if row["kind"] != "gap"], gaps)


def assert_whole(drill: Training, url: str) -> None:
    """Nothing missing, nothing twice, everything in order: frames and events."""
    found = stored(url)
    assert set(drill.emitted) - set(found.ids) == set()
    assert set(found.ids) - set(drill.emitted) == set()
    assert found.twice == [] and found.gaps == []
    for family in ("train", "gradients"):
        steps = [step for name, step, _ in found.ids if name == family]
        assert steps == sorted(steps)
    assert found.events == drill.events
    assert_rolled_up(drill, url)


def assert_rolled_up(drill: Training, url: str) -> None:
    """Every sample counts once in its bucket of the finest tier, and in that of the next."""
    home = RedisHome(url)
    for family in ("train", "gradients"):
        steps = [step for name, step, _ in drill.emitted if name == family]
        for tier, span in ((1, 8), (2, 64)):
            buckets = home.buckets(RUN, StreamName(family, 0, 1), tier)
            found = {b.step: (b.frames, float(b.lo[0]), float(b.hi[0])) for b in buckets}
            expected: dict[int, tuple[int, float, float]] = {}
            for first in sorted({step - step % span for step in steps}):
                inside = [step for step in steps if first <= step < first + span]
                expected[first] = (len(inside), float(inside[0]), float(inside[-1]))
            assert found == expected
            assert len(found) == len(buckets)  # no bucket in two parts
    home.close()
