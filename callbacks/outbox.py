"""The outbox: what waits in memory, the queue that `emit` fills and the batch under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..store import Event, Frame, Schema
from ..store.schemas import Json
from .backlog import BATCH, BATCH_BYTES, Batch

HELD_BYTES = 64 * 2**20

Item = Frame | Event | Schema | dict[str, Json]


class Outbox:
    """Items in order. One thread appends to `queue`, another one takes batches out.

    `batch` is the one under way: it stays until it is set to None. `held` frames, or HELD_BYTES,
    are what shall wait in memory at most.
    """

    def __init__(self, held: int) -> None:
        self.queue: deque[Item] = deque()
        self.batch: Batch | None = None
        self._held = held

    @property
    def waits(self) -> bool:
        """Whether anything waits."""
        return bool(self.queue) or self.batch is not None

    @property
    def frames(self) -> int:
        """Frames that wait, and the few other items of the queue."""
        batch = self.batch
        return len(self.queue) + (len(batch.frames) if batch else 0)

    def next_batch(self) -> Batch:
        """Take the next batch out of the queue."""
        batch, size = Batch(), 0
        self.batch = (
            batch  # at once: what was taken out and is nowhere yet would not wait for `flush`
        )
        while self.queue and len(batch.frames) < BATCH and size < BATCH_BYTES:
            item = self.queue.popleft()
            if isinstance(item, Frame):
                batch.frames.append(item)
                size += item.values.nbytes
            else:
                _put(batch, item)
        return batch

    def excess(self, times: int = 1) -> int:
        """Return how many frames wait beyond `times` what may be held."""
        batch = self.batch
        waiting = list(batch.frames) if batch else []
        waiting += [item for item in list(self.queue) if isinstance(item, Frame)]
        sizes = [frame.values.nbytes for frame in waiting]
        most, size = times * self._held, sum(sizes)
        excess = 0
        while len(sizes) - excess > most or size > times * HELD_BYTES:
            size -= sizes[excess]
            excess += 1
        return excess

    def drop_oldest(self, times: int) -> int:
        """Let the oldest frames go, beyond `times` what may be held; nothing else is lost.

        Returns how many went; the batch holds a `gap` event of each of their streams.
        """
        kept, excess = self.batch, self.excess(times)
        if kept is None or not excess:
            return 0
        gone = kept.frames[:excess]
        del kept.frames[:excess]
        while len(gone) < excess:
            item = self.queue.popleft()
            if isinstance(item, Frame):
                gone.append(item)
            else:
                _put(kept, item)
        _tell_gaps(kept, gone)
        return excess

    def clear(self) -> int:
        """Let everything go; returns how many frames that were."""
        lost = 0
        while self.waits:
            batch, self.batch = self.batch or self.next_batch(), None
            lost += len(batch.frames)
        return lost


def _put(batch: Batch, item: Event | Schema | dict[str, Json]) -> None:
    if isinstance(item, Event):
        batch.events.append(item)
    elif isinstance(item, Schema):
        batch.schemas.append(item)
    else:
        batch.merge(item)


def _tell_gaps(batch: Batch, gone: Sequence[Frame]) -> None:
    """Put `gap` events into a batch that name the frames that went, and those that went before."""
    first = {(e.body["family"], e.rank): e.body["from"] for e in batch.events if e.kind == "gap"}
    widened: dict[tuple[str, int], Event] = {}
    for frame in gone:
        key = (frame.family, frame.rank)
        step = first.setdefault(key, frame.step)
        body = {"family": frame.family, "rank": frame.rank, "from": step, "to": frame.step}
        widened[key] = Event("gap", frame.step, frame.attempt, frame.rank, frame.time, body)
    # new events, for the disk may hold the narrower ones under their ids already
    batch.events = [
        e for e in batch.events if e.kind != "gap" or (e.body["family"], e.rank) not in widened
    ]
    batch.events += widened.values()
