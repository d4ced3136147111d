"""The delivery of one run on one rank: each frame once and in order, again where it was lost."""

from __future__ import annotations

import logging
import time

from ..store import Event, Frame, Schema, Sink, StoreError, StreamName
from ..store.recording import RecordingSink
from ..store.retention import Retention
from ..store.rollups import Rollups
from ..store.schemas import Json
from .backlog import BATCH, Batch
from .ring import Ring

log = logging.getLogger("otoscope")


class Delivery:
    """Writes batches into a sink, and remembers enough of them to make it whole after a loss.

    After any error it asks for the last id of every stream: what the store has is not sent again,
    what it has lost is sent from the ring, and what is in the ring no longer becomes a `gap`.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.ring = Ring()
        self.rollups = Rollups()
        self.retention = Retention()
        self.schemas: dict[str, Schema] = {}
        self.told = Batch()
        """All fields of Meta so far."""
        self.lost = False
        """Whether the store has said that something is gone."""
        self.in_doubt = False
        """Whether an error came since the store was last asked what it holds."""
        self.resent_frames = 0
        self._owed: list[Event] = []
        self._told_of_tending = False

    def remember(self, batch: Batch) -> None:
        """Take note of schemas and fields that are on their way, wherever they go first."""
        self.schemas |= {schema.hash: schema for schema in batch.schemas}
        self.told.merge(batch.fields)

    def send(self, sink: Sink, batch: Batch, attempt: int) -> int:
        """Write a batch; returns how many of its frames the store refused for their ids."""
        if self.in_doubt:
            self._settle(sink, attempt)
        batch.number(attempt)
        for schema in batch.schemas:
            sink.add_schema(self.run, schema)
        frames = batch.frames
        if batch.buckets is None:  # a recording is rolled up when it is taken in
            recorded = isinstance(sink, RecordingSink)
            batch.buckets = [] if recorded else self.rollups.take(frames)
        if batch.in_doubt:
            # the reply was lost, or the write refused: only the store knows which
            last = {stream: sink.last_id(self.run, stream) for stream in {f.stream for f in frames}}
            frames = [f for f in frames if f.id > (last[f.stream] or (-1, 0))]
        refused = sink.append(
            self.run,
            frames,
            batch.events,
            batch.fields,
            resent=batch.in_doubt,
            buckets=batch.buckets,
        )
        self.ring.keep(batch.frames, batch.events, batch.buckets)
        self.retention.note(batch.frames)
        return refused

    def tend(self, sink: Sink) -> None:
        """Cut what is beyond the hard caps; apart from `send`, which must not fail behind its batch."""
        try:
            self.retention.enforce(sink, self.run)
        except StoreError as error:  # a lost connection is met again by the next batch
            if not self._told_of_tending:
                log.warning("run %s: old samples cannot be cut now: %s", self.run, error)
            self._told_of_tending = True

    def finish(self, sink: Sink) -> None:
        """Store the buckets that are not complete: no frame will come any more."""
        buckets = self.rollups.open()
        if buckets:
            sink.append(self.run, [], buckets=buckets)

    def _settle(self, sink: Sink, attempt: int) -> None:
        """Make the store whole as far as it can be; may be begun anew at any point of it."""
        stored: dict[StreamName, tuple[int, int] | None] = {
            stream: sink.last_id(self.run, stream) for stream in self.ring.last
        }
        for schema in self.schemas.values():
            sink.add_schema(self.run, schema)
        fields: dict[str, Json] = dict(self.told.fields)
        frames: list[Frame] = []
        if self.ring.lost(stored):
            fields["attempt"] = attempt
            frames, gaps = self.ring.missing(stored)
            known = [event.body for event in (*self.ring.events, *self._owed)]
            self._owed += [gap for gap in gaps if gap.body not in known]
            for event in self._owed:
                event.t = event.t or time.time()
            log.warning(
                "run %s: the store lost samples that it had taken; %d are sent again%s",
                self.run,
                len(frames),
                "".join(f", {_words(gap)} cannot be" for gap in gaps),
            )
        # events first: they wait for the frames of their step, frames do not wait for them
        events = [*self.ring.first_events, *self.ring.events, *self._owed]
        sink.append(self.run, [], events, fields, resent=True)
        self.ring.keep([], self._owed)
        self._owed = []
        if frames or self.lost:
            sink.append(self.run, [], buckets=self.ring.buckets, resent=True)
        self.lost = False
        for first in range(0, len(frames), BATCH):
            part = frames[first : first + BATCH]
            sink.append(self.run, part, resent=True)
            self.resent_frames += len(part)
        self.in_doubt = False


def _words(gap: Event) -> str:
    body = gap.body
    return f"{body['family']} of steps {body['from']} to {body['to']}"
