"""Rollups: frames on their way to the store become buckets of four tiers, each eight times coarser.

The sender makes them, not the daemon: a stopped daemon must not cost history when raw is trimmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .buckets import FACTOR_BITS, TIERS, Bucket, bucket_steps
from .frames import VECTOR
from .schemas import Frame, StreamName


class Stored(Protocol):
    """What `Rollups.restore` asks of a home."""

    def last_id(self, run: str, stream: StreamName) -> tuple[int, int] | None: ...

    def frames(self, run: str, stream: StreamName, *, start: int | None = None) -> list[Frame]: ...

    def buckets(
        self,
        run: str,
        stream: StreamName,
        tier: int,
        *,
        start: int | None = None,
        stop: int | None = None,
        count: int | None = None,
        latest: bool = False,
    ) -> list[Bucket]: ...


class Rollups:
    """The open buckets of a process's streams.

    Call `take` once for every frame that is about to be stored, in the order of its stream, and
    store the buckets that it returns in the same transaction. A batch that is sent again is sent
    with the same buckets: those that are stored already are refused by their ids.
    """

    def __init__(self) -> None:
        self._lines: dict[StreamName, _Line] = {}

    def take(self, frames: Iterable[Frame]) -> list[Bucket]:
        """Add frames, with their final attempt numbers; return the buckets that they completed."""
        groups: dict[tuple[str, int, int, str, int], list[Frame]] = {}
        for frame in frames:
            key = (frame.family, frame.rank, frame.attempt, frame.schema, len(frame.values))
            groups.setdefault(key, []).append(frame)
        if len({key[:3] for key in groups}) < len(groups):
            return self._take_mixed(groups)
        done: list[Bucket] = []
        for (family, rank, attempt, schema, _), rows in groups.items():
            self._line(StreamName(family, rank, attempt)).add(rows, schema, done)
        return done

    def open(self) -> list[Bucket]:
        """End every open bucket and return them: parts, which a later part may go on from."""
        done: list[Bucket] = []
        for line in self._lines.values():
            line.end(done)
        return done

    def restore(self, home: Stored, run: str, stream: StreamName) -> None:
        """Go on where a store stands in the middle of its buckets, from the frames it holds.

        For a recording of which the store has a part, and for a store that lost its last frames:
        what was in this stream's open buckets is forgotten.
        """
        line = self._lines[stream] = _Line(stream)
        last = home.last_id(run, stream)
        if last is not None:
            line.restore(home, run, last[0])

    def forget(self) -> None:
        """Forget every open bucket."""
        self._lines.clear()

    def _line(self, stream: StreamName) -> _Line:
        line = self._lines.get(stream)
        if line is None:
            line = self._lines[stream] = _Line(stream)
        return line

    def _take_mixed(
        self, groups: dict[tuple[str, int, int, str, int], list[Frame]]
    ) -> list[Bucket]:
        """Take a batch in which a schema changed: in the order of each stream's steps."""
        done: list[Bucket] = []
        for frame in sorted((f for rows in groups.values() for f in rows), key=lambda f: f.id):
            self._line(frame.stream).add([frame], frame.schema, done)
        return done


@dataclass(slots=True)
class _Open:
    """The sums of a bucket that is not complete yet."""

    step: int
    time: float
    first: int
    last: int
    frames: int
    lo: np.ndarray
    total: np.ndarray
    hi: np.ndarray
    n: np.ndarray | int
    bad: np.ndarray | int

    def absorb(self, other: _Open) -> None:
        """Add a later part of the same bucket."""
        self.last = other.last
        self.frames += other.frames
        self.lo = np.fmin(self.lo, other.lo)
        self.hi = np.fmax(self.hi, other.hi)
        self.total = self.total + other.total
        self.n = self.n + other.n
        self.bad = self.bad + other.bad

    def values(self) -> np.ndarray:
        """Return float32[3, c] of lowest, mean, highest; float32[1, c] of a single frame."""
        if self.frames == 1:
            return self.lo[None]
        values = np.empty((3, len(self.lo)), np.float32)
        values[0], values[2] = self.lo, self.hi
        if isinstance(self.n, int) and self.n:
            np.divide(self.total, self.n, out=values[1], casting="unsafe")
            return values
        with np.errstate(invalid="ignore", divide="ignore"):
            # without a finite value the mean is what was there: an infinity, or nothing
            mean = self.total / np.asarray(self.n)
            values[1] = np.where(np.greater(self.n, 0), mean, self.lo + self.hi)
        return values


def _summed(frames: Sequence[Frame], rows: np.ndarray, finite: bool) -> _Open:
    """Return the sums of a few frames, whose values are the float32[k, c] `rows`."""
    n: np.ndarray | int = len(rows)
    bad: np.ndarray | int = 0
    if len(rows) == 1:
        lo = hi = rows[0].copy()
    elif finite:
        lo, hi = np.minimum.reduce(rows), np.maximum.reduce(rows)
    else:
        lo, hi = np.fmin.reduce(rows), np.fmax.reduce(rows)
    if finite:
        total = np.add.reduce(rows, axis=0, dtype=np.float64)
    else:
        there = np.isfinite(rows)
        total = np.add.reduce(np.where(there, rows, 0), axis=0, dtype=np.float64)
        n = np.add.reduce(there, axis=0, dtype=np.int64)
        bad = np.add.reduce(np.isinf(rows), axis=0, dtype=np.int64)
    first, last = frames[0], frames[-1]
    return _Open(first.step, first.time, first.step, last.step, len(rows), lo, total, hi, n, bad)


@dataclass
class _Line:
    """The open buckets of one stream, one a tier."""

    stream: StreamName
    schema: str = ""
    width: int = 0
    open: list[_Open | None] = field(default_factory=lambda: [None] * len(TIERS))
    told: list[tuple[int, int]] = field(default_factory=lambda: [(-1, 0)] * len(TIERS))
    """Id of the last part that was given out, a tier."""

    def add(self, frames: Sequence[Frame], schema: str, done: list[Bucket]) -> None:
        """Add frames of one schema in order; what they complete goes to `done`."""
        width = len(frames[0].values)
        if (schema, width) != (self.schema, self.width):
            self.end(done)
            self.schema, self.width = schema, width
        # joining bytes costs a quarter of np.stack at 1,200 columns
        packed = [np.ascontiguousarray(f.values, dtype=VECTOR).data for f in frames]
        rows = np.frombuffer(b"".join(packed), VECTOR)
        rows = rows.reshape(len(frames), width)
        finite = bool(np.isfinite(rows).all())
        begin, bucket = 0, frames[0].step >> FACTOR_BITS
        for i, frame in enumerate(frames):
            number = frame.step >> FACTOR_BITS
            if number != bucket:
                self._put(frames[begin:i], rows[begin:i], finite, done)
                begin, bucket = i, number
        self._put(frames[begin:], rows[begin:], finite, done)

    def _put(
        self, frames: Sequence[Frame], rows: np.ndarray, finite: bool, done: list[Bucket]
    ) -> None:
        """Add frames of one bucket of the finest tier."""
        self._merge(0, _summed(frames, rows, finite), done)

    def _merge(self, place: int, part: _Open, done: list[Bucket]) -> None:
        """Add a part to the open bucket of a tier; what it completes goes to `done`."""
        span = bucket_steps(TIERS[place])
        part.step -= part.step % span
        bucket = self.open[place]
        if bucket is not None and bucket.step != part.step:
            self._close(place, done)
            bucket = None
        if bucket is None:
            self.open[place] = part
        else:
            bucket.absorb(part)
        if (part.last + 1) % span == 0:
            self._close(place, done)

    def _close(self, place: int, done: list[Bucket]) -> None:
        """Give out a tier's open bucket and add it to the tier above."""
        bucket = self.open[place]
        if bucket is None:
            return
        self.open[place] = None
        step, seq = self.told[place]
        seq = seq + 1 if step == bucket.step else 1
        self.told[place] = (bucket.step, seq)
        done.append(
            Bucket(
                self.stream.family,
                self.stream.rank,
                self.stream.attempt,
                TIERS[place],
                bucket.step,
                self.schema,
                bucket.time,
                bucket.first,
                bucket.last,
                bucket.frames,
                bucket.values(),
                bucket.n,
                bucket.bad,
                seq,
            )
        )
        if place + 1 < len(TIERS):
            self._merge(place + 1, bucket, done)

    def end(self, done: list[Bucket]) -> None:
        """Give out every open bucket, the finest first."""
        for place in range(len(TIERS)):
            self._close(place, done)

    def restore(self, home: Stored, run: str, last: int) -> None:
        """Take up what the store holds of the buckets that are open behind the step `last`.

        A part of a tier covers whole parts of the tier below: all tiers end together where a schema
        or an attempt does.
        """
        covered: list[int] = []
        for place, tier in enumerate(TIERS):
            part = home.buckets(run, self.stream, tier, count=1, latest=True)
            self.told[place] = part[0].id if part else (-1, 0)
            covered.append(part[0].last if part else -1)
        first = max(last - last % bucket_steps(TIERS[0]), covered[0] + 1)
        frames = home.frames(run, self.stream, start=first)
        if frames:
            self.schema, self.width = frames[-1].schema, len(frames[-1].values)
        for place, tier in reversed(list(enumerate(TIERS[1:], 1))):
            first = covered[place] + 1
            first -= first % bucket_steps(tier - 1)
            below = home.buckets(run, self.stream, tier - 1, start=first)
            for bucket in below:
                if bucket.last > covered[place]:
                    self.schema, self.width = bucket.schema, bucket.values.shape[1]
                    self._hold(place, _reopened(bucket))
        for frame in frames:
            self.add([frame], frame.schema, [])

    def _hold(self, place: int, part: _Open) -> None:
        """Add a stored part to a tier's open bucket, giving nothing out."""
        part.step -= part.step % bucket_steps(TIERS[place])
        bucket = self.open[place]
        if bucket is not None and bucket.step == part.step:
            bucket.absorb(part)
        else:
            self.open[place] = part


def _reopened(bucket: Bucket) -> _Open:
    """Return the sums that a stored bucket was made of."""
    n = bucket.n
    total = np.where(np.greater(n, 0), bucket.mean.astype(np.float64), 0) * n
    lo, hi = bucket.lo.copy(), bucket.hi.copy()
    return _Open(
        bucket.step,
        bucket.time,
        bucket.first,
        bucket.last,
        bucket.frames,
        lo,
        total,
        hi,
        n,
        bucket.bad,
    )
