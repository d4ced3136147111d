"""A store that refuses or loses its replies when it is told to, and a sender beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from otoscope.callbacks.sender import Sender
from otoscope.store import (
    Column,
    Frame,
    MemoryHome,
    Schema,
    StoreUnavailableError,
    StreamName,
)

RUN = "run-01"
SCHEMA = Schema("train", (Column.of("loss"),))
STREAM = StreamName("train", 0, 1)


def frame(step: int, attempt: int = 1) -> Frame:
    return Frame(
        "train", 0, attempt, step, 1000.0 + step, SCHEMA.hash, np.array([step], np.float32)
    )


class Flaky(MemoryHome):
    """Refuses, or loses its reply after having stored, as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse: Exception | None = None
        self.lose_reply = False
        self.tries = 0

    def append(self, run: str, *args: Any, **options: Any) -> int:
        self.tries += 1
        if self.refuse is not None:
            raise self.refuse
        refused = super().append(run, *args, **options)
        if self.lose_reply:
            self.lose_reply = False
            raise StoreUnavailableError("the reply was lost")
        return refused

    def last_id(self, run: str, stream: StreamName) -> tuple[int, int] | None:
        self.tries += 1
        if self.refuse is not None:
            raise self.refuse
        return super().last_id(run, stream)


def started(home: Any, spool: Path, **options: Any) -> Sender:
    sender = Sender(RUN, lambda: home, spool, **{"linger": 0.005, **options})
    sender.emit({"name": "a run"})
    sender.emit(SCHEMA)
    sender.start()
    return sender


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.002)


def steps(home: MemoryHome, stream: StreamName = STREAM) -> list[int]:
    return [frame.step for frame in home.frames(RUN, stream)]
