"""The journal of a run: its frames, events and news, numbered and let go in order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..store import Event, Frame, Schema
from ..store.schemas import Json
from .sender import Sender
from .spark import Spark
from .transfer import Fill, Held, Pending, Transfer

TELL_SECONDS = 1.0
"""Heartbeat, progress and overhead are told at most this often."""


class Journal:
    """Keeps what a step brought until the next begins, then hands it to the sender.

    Schemas and events may come before it is opened: they leave when it is. `overhead` and `pace`
    (seconds of a step) are asked for whenever news are told.
    """

    sender: Sender

    def __init__(
        self,
        overhead: Callable[[], dict[str, Any]],
        rank: int = 0,
        *,
        pace: Callable[[], float] = lambda: math.nan,
    ) -> None:
        self.step = 0
        self.is_open = False
        self._overhead = overhead
        self._pace = pace
        self._rank = rank
        self._schemas: dict[str, Schema] = {}
        self._held = Held()
        self._seqs: dict[str, tuple[int, int]] = {}
        self._told_at = 0.0
        self._loss_last = self._loss_best = math.nan
        self._spark = Spark()

    def open(
        self,
        sender: Sender,
        step: int,
        fields: Mapping[str, Json],
        begins: Mapping[str, Mapping[str, Json]],
    ) -> None:
        """Begin to send, at the step that the attempt starts from.

        `fields` are those of Meta, `begins` the events (kind: body) that the run begins with.
        """
        self.sender = sender
        self.step = step
        self._transfer = Transfer(sender.emit)
        earlier, self._held.events = self._held.events, []
        for kind, body in begins.items():
            self.event(kind, body)
        self._held.events += earlier  # probes that went off before the run began
        for event in self._held.events:
            event.step, event.attempt = step, sender.attempt
        for schema in self._schemas.values():
            sender.emit(schema)
        sender.emit({**fields, "ended": None, **self._news(time.time())})
        self.is_open = True

    def enlist(self, schema: Schema) -> None:
        """Take a schema, before the first of its frames."""
        if schema.hash not in self._schemas:
            self._schemas[schema.hash] = schema
            if self.is_open:
                self.sender.emit(schema)

    def frame(self, family: str, schema: str, values: np.ndarray) -> Frame:
        """Return a frame of the current step; a second one of a family counts its sequence on."""
        step, seq = self._seqs.get(family, (-1, 0))
        seq = seq + 1 if step == self.step else 1
        self._seqs[family] = (self.step, seq)
        attempt = self.sender.attempt
        return Frame(family, self._rank, attempt, self.step, time.time(), schema, values, seq)

    def keep(self, frames: Sequence[Pending]) -> None:
        """Keep frames of the current step."""
        self._held.others += frames

    def keep_train(self, frame: Frame, late: Sequence[Any], fill: Fill) -> None:
        """Keep the frame of `train`, which leaves after all others of its step."""

        def filled(values: np.ndarray, arrays: list[np.ndarray]) -> None:
            if arrays:
                fill(values, arrays)
            loss = self._loss_last = float(values[0])
            self._spark.add(loss)
            if math.isfinite(loss) and not loss >= self._loss_best:
                self._loss_best = loss

        self._held.train.append(Pending(frame, late, filled))

    def event(self, kind: str, body: Mapping[str, Json] | None = None) -> None:
        """Keep an event of the current step; it leaves after the frames of the step."""
        attempt = self.sender.attempt if self.is_open else 1
        now = time.time()
        self._held.events.append(Event(kind, self.step, attempt, self._rank, now, dict(body or {})))

    def release(self) -> None:
        """Let the current step go: everything of it has come by now."""
        self._transfer.poll()
        held, self._held = self._held, Held()
        items = held.in_order()
        if not items:
            return
        self._transfer.put(items)
        self.alive()

    def alive(self) -> None:
        """Tell that the run goes on, also where it makes no steps (in a long validation)."""
        now = time.time()
        if self.is_open and now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            self.sender.emit(self._news(now))

    def _news(self, now: float) -> dict[str, Json]:
        return {
            "heartbeat": {str(self._rank): now},
            "progress": {
                "step": self.step,
                "loss": self._loss_last,
                "loss_best": self._loss_best,
                "step_seconds": self._pace(),
                "spark": self._spark.means(),
            },
            "overhead": self._overhead(),
        }

    def close(self, how: str, reason: str, deadline: float = 5.0) -> None:
        """Wait for what is under way, tell the end and let the sender finish."""
        self.release()
        self._transfer.poll(wait=True)
        now = time.time()
        ended = {"attempt": self.sender.attempt, "how": how, "t": now, "reason": reason}
        self.sender.emit({**self._news(now), "ended": ended})
        self.sender.close(deadline)
