"""The journal of a run: its frames, events and news, numbered and let go in order."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..store import Event, Frame, Schema
from ..store.schemas import Json
from .ledger import Ledger, Row, Told
from .sender import Sender
from .transfer import Fill, Held, Pending, Transfer

RANKS_OWN = ("exception",)
"""Events that every rank tells for itself; all others come from rank 0 alone."""

TELL_SECONDS = 1.0
"""Heartbeat, progress and overhead are told at most this often."""


class Journal:
    """Keeps what the steps brought until they are over for good, then hands it to the sender.

    Schemas and events may come before it is opened: they leave when it is. `overhead` and `pace`
    (seconds of a step) are asked for whenever news are told; `closed` is told of the steps that
    leave, and returns the events that they bring; `seen` of their numbers.
    """

    sender: Sender

    def __init__(
        self,
        overhead: Callable[[], dict[str, Any]],
        rank: int = 0,
        *,
        pace: Callable[[], float] = lambda: math.nan,
        closed: Callable[[Sequence[Row]], Told] = lambda rows: {},
        seen: Callable[[int, np.ndarray], None] = lambda step, numbers: None,
    ) -> None:
        self.step = 0
        self.is_open = False
        self.calm_until = 0.0
        """The reading of `time.perf_counter` until which a step that begins finds nothing to do here."""
        self._overhead = overhead
        self._pace = pace
        self._rank = rank
        self._schemas: dict[str, Schema] = {}
        self._held = Held()
        self._seqs: dict[str, tuple[int, int]] = {}
        self._told_at = 0.0
        self._paused = False
        self._ledger = Ledger(rank, closed, seen)

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
        about_run = {} if self._rank else {**fields, "ended": None}
        here = {str(self._rank): socket.gethostname()} if fields.get("world_size", 1) > 1 else {}
        sender.emit({**about_run, **self._news(time.time()), "hosts": here})
        self.is_open = True

    def shut(self) -> None:
        """Keep nothing any more: there is nobody to hand it to."""
        self.is_open = False

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
        self.calm_until = 0.0

    def follow(self, schema: Schema, fill: Fill) -> None:
        """Take the schema of `train`, and what puts late values into its frames."""
        self._train, self._fill = schema.hash, fill
        self.enlist(schema)

    def done(self, row: Row) -> None:
        """Keep the row of the step that ended."""
        self._ledger.add(row)

    def event(self, kind: str, body: Mapping[str, Json] | None = None) -> None:
        """Keep an event of the current step; it leaves after the frames of the step."""
        if self._rank and kind not in RANKS_OWN:
            return
        attempt = self.sender.attempt if self.is_open else 1
        now = time.time()
        self._held.events.append(Event(kind, self.step, attempt, self._rank, now, dict(body or {})))
        self.calm_until = 0.0

    def turn(self, now: float) -> None:
        """Begin a step: what comes from now on belongs to it; those before leave once it is time.

        `now` is a reading of `time.perf_counter`.
        """
        held, self._paused = self._held, False
        if held.others or held.events:
            self._hand_on(held)
        if self._ledger.is_due(now):
            self._settle()
        elif self._transfer.is_busy:
            self._transfer.poll()
        self.calm_until = 0.0 if self._transfer.is_busy else self._ledger.rests_until

    def _hand_on(self, held: Held) -> None:
        """Put what came since the last row to it."""
        self._held = Held()
        if self._ledger.rows:
            last = self._ledger.rows[-1]
            last.held = held if last.held is None else last.held.with_more(held)
        else:  # no step has ended yet
            self._transfer.put(held.in_order())

    def _settle(self, keep: int = 0) -> None:
        self._transfer.poll()
        attempt = self.sender.attempt
        items = self._ledger.settle(self._train, attempt, self._fill, keep=keep)
        if items:
            self._transfer.put(items)
        self._tell()

    def pause(self) -> None:
        """Tell at once that a pause begins (a validation, a checkpoint), which may be long."""
        if self.is_open and not self._paused:
            self._paused, self._told_at = True, 0.0
            self.calm_until = 0.0
            self.alive()

    def alive(self) -> None:
        """Tell that the run goes on, also where it makes no steps (in a long validation)."""
        if self.is_open:
            if len(self._ledger.rows) > 1:  # the last waits for what belongs to its step
                self._settle(keep=1)
            self._tell()

    def _tell(self) -> None:
        now = time.time()
        if now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            self.sender.emit(self._news(now))

    def _news(self, now: float) -> dict[str, Json]:
        heartbeat: dict[str, Json] = {"heartbeat": {str(self._rank): now}}
        if self._rank:
            return heartbeat
        return {
            **heartbeat,
            "progress": {
                "step": self.step,
                "pause": int(self._paused),
                "loss": self._ledger.loss_last,
                "loss_best": self._ledger.loss_best,
                "step_seconds": self._pace(),
                "spark": self._ledger.spark.means(),
            },
            "overhead": self._overhead(),
        }

    def close(self, how: str, reason: str, deadline: float = 5.0) -> None:
        """Wait for what is under way, tell the end and let the sender finish."""
        self._hand_on(self._held)
        self._settle()
        self._transfer.poll(wait=True)
        now = time.time()
        ended = {"attempt": self.sender.attempt, "how": how, "t": now, "reason": reason}
        end = {"left": {str(self._rank): now}, **({} if self._rank else {"ended": ended})}
        self.sender.emit({**self._news(now), **end})
        self.sender.close(deadline)
