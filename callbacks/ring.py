"""The ring: the last frames and events that the store has acknowledged, should it lose them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from ..store import Event, Frame, StreamName
from ..store.buckets import Bucket

RING_FRAMES = 2048
RING_BYTES = 64 * 2**20
"""At 1,200 columns 2,048 frames take 10 MB; this bound is for models of many thousand layers."""
RING_EVENTS = 1000
RING_BUCKETS = 256
"""Of each tier of each stream: 2,048 steps at full resolution, a million at the coarsest."""
LINE_BYTES = 4 * 2**20

Place = tuple[int, int]
_Key = tuple[str, int, int]
"""A StreamName as a tuple: to make and hash one a frame costs a third."""


class Ring:
    """Frames by reference, oldest first, and of every stream how far the store had come.

    >>> import numpy as np
    >>> ring = Ring(frames=2)
    >>> ring.keep([Frame("train", 0, 1, step, 0.0, "", np.zeros(1)) for step in (1, 2, 3)])
    >>> frames, gaps = ring.missing({StreamName("train", 0, 1): None})
    >>> [frame.step for frame in frames], [(gap.body["from"], gap.body["to"]) for gap in gaps]
    ([2, 3], [(1, 1)])
    """

    def __init__(self, *, frames: int = RING_FRAMES, size: int = RING_BYTES) -> None:
        self.events: deque[Event] = deque(maxlen=RING_EVENTS)
        self.first_events: list[Event] = []
        """Those that the attempt began with: without them the rest means little."""
        self.bytes = 0
        self._most, self._largest = frames, size
        self._frames: deque[Frame] = deque()
        self._last: dict[_Key, Place] = {}
        self._first: dict[_Key, Place] = {}
        self._gone: dict[_Key, Place] = {}
        self._buckets: dict[tuple[StreamName, int], deque[Bucket]] = {}

    def __len__(self) -> int:
        return len(self._frames)

    def keep(
        self,
        frames: Iterable[Frame],
        events: Iterable[Event] = (),
        buckets: Iterable[Bucket] = (),
    ) -> None:
        """Take what was acknowledged, in order; the oldest goes where the room is used up."""
        for frame in frames:
            key = (frame.family, frame.rank, frame.attempt)
            if key not in self._last:
                self._first[key] = frame.id
            self._last[key] = frame.id
            self._frames.append(frame)
            self.bytes += frame.values.nbytes
        while len(self._frames) > self._most or (self.bytes > self._largest and self._frames):
            frame = self._frames.popleft()
            self._gone[frame.family, frame.rank, frame.attempt] = frame.id
            self.bytes -= frame.values.nbytes
        for event in events:
            if len(self.first_events) < 10:
                self.first_events.append(event)
            else:
                self.events.append(event)
        for bucket in buckets:
            line = (bucket.stream, bucket.tier)
            if line not in self._buckets:
                most = LINE_BYTES // max(bucket.values.nbytes, 1)
                self._buckets[line] = deque(maxlen=max(min(RING_BUCKETS, most), 1))
            self._buckets[line].append(bucket)

    @property
    def last(self) -> dict[StreamName, Place]:
        """Of each stream the id of the last frame that the store acknowledged."""
        return {StreamName(*key): place for key, place in self._last.items()}

    @property
    def buckets(self) -> list[Bucket]:
        """The last buckets of every tier, each tier's in order."""
        return [bucket for line in self._buckets.values() for bucket in line]

    def lost(self, stored: Mapping[StreamName, Place | None]) -> bool:
        """Tell whether the store holds less than it had acknowledged."""
        return any((stored[stream] or (-1, 0)) < last for stream, last in self.last.items())

    def missing(self, stored: Mapping[StreamName, Place | None]) -> tuple[list[Frame], list[Event]]:
        """Return the frames above what is stored, and a `gap` event for what went out of the ring.

        `stored` holds the last id of every stream in `last`, None where the stream is gone.
        """
        frames = [frame for frame in self._frames if frame.id > (stored[frame.stream] or (-1, 0))]
        gaps: list[Event] = []
        for key, gone in self._gone.items():
            stream = StreamName(*key)
            behind = stored[stream]
            if behind is None or behind < gone:
                first = self._first[key][0] if behind is None else min(behind[0] + 1, gone[0])
                body = {"family": stream.family, "rank": stream.rank, "from": first, "to": gone[0]}
                gaps.append(Event("gap", gone[0], stream.attempt, stream.rank, body=body))
        return frames, gaps
