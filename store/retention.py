"""Retention: how much raw a stream keeps, who cuts it, and what is said where unread is cut.

The daemon cuts at the soft cap, and only what it has judged and no window reaches any more. The
sender cuts at the hard cap, where no daemon runs or it lags; what was unread then is told by a
`gap` event. Rolled up history is untouched by both.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .errors import StoreFullError
from .schemas import Event, Frame, StreamName

RAW_FRAMES = 8_192
"""Frames that a stream keeps at most: 42 MB at 1,200 columns, 0.8 MB at 13."""

SOFT_SHARE = 0.5
"""The daemon cuts at half of it, so that it may lag by the other half before anything is lost."""

SLACK = 32
"""One thirty-second of a cap goes at once, when it is reached: a cut costs three round trips."""

MARK_FRAMES = 64

FULL_SHARE = 0.8
"""Share of a server's memory from which the daemon deletes finished runs."""


class Trimmed(Protocol):
    """What `Retention` asks of a place where frames are kept."""

    def trim(self, run: str, stream: StreamName, before: int) -> None: ...

    def judged_to(self, run: str) -> tuple[int, int] | None: ...

    def append(self, run: str, frames: Sequence[Frame], events: Sequence[Event] = (), /) -> int: ...


@dataclass(frozen=True, slots=True)
class Memory:
    """How much memory a home uses and may use, in bytes; `policy` is what it evicts when full."""

    used: int
    most: int
    policy: str = "noeviction"

    @property
    def share(self) -> float:
        """The share in use; 0 where there is no bound.

        >>> Memory(used=30, most=40).share, Memory(used=30, most=0).share
        (0.75, 0.0)
        """
        return self.used / self.most if self.most else 0.0

    @property
    def evicts_live_runs(self) -> bool:
        """Whether a full server throws streams away that are being written."""
        return self.policy.startswith("allkeys")


def place_of(cursor: str | None) -> tuple[int, int] | None:
    """Return (attempt, step) that a daemon's cursor stands at, None where there is none.

    >>> place_of("2:1500:1700000000000-0"), place_of(None)
    ((2, 1500), None)
    """
    parts = (cursor or "").split(":")
    try:
        return int(parts[0]), int(parts[1])
    except (ValueError, IndexError):
        return None


class Retention:
    """Counts a run's frames as they are stored, or read, and cuts what is beyond the cap.

    `share` of the hard cap is kept: all of it by a sender, SOFT_SHARE by a daemon. Frames that were
    stored before the first one it is told of go with the first cut.
    """

    def __init__(
        self,
        share: float = 1.0,
        cap: int = RAW_FRAMES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keep, self._clock = max(round(share * cap), 1), clock
        self._lengths: dict[tuple[str, int, int], _Length] = {}

    def note(self, frames: Iterable[Frame]) -> None:
        """Take notice of frames, in the order of their streams, once they are stored or read.

        Frames that were noted before, because they were sent again, count once.
        """
        for frame in frames:
            name = (frame.family, frame.rank, frame.attempt)
            length = self._lengths.get(name)
            if length is None:
                length = self._lengths[name] = _Length(frame.stream, self._keep)
            length.note(frame.step)

    def enforce(self, home: Trimmed, run: str) -> None:
        """Cut what is beyond the cap, read or not; unread frames are told by a `gap` event.

        The event is written before the cut, so that a daemon that reads on behind the hole knows
        of it; only a full server gets its room first. Raises what the home raises, and may then be
        called again.
        """
        for length in self._lengths.values():
            stream, before = length.stream, length.cut_before(None)
            if before is None:
                continue
            gap = self._gap(stream, length.oldest, before, home.judged_to(run))
            try:
                if gap is not None:
                    home.append(run, [], [gap])
                home.trim(run, stream, before)
            except StoreFullError:
                home.trim(run, stream, before)
                if gap is not None:
                    home.append(run, [], [gap])
            length.note_cut(before)

    def relax(self, home: Trimmed, run: str, judged: tuple[int, int], window: int) -> None:
        """Cut what is beyond the cap and lies `window` steps behind `judged` (attempt, step)."""
        for length in self._lengths.values():
            stream = length.stream
            if stream.attempt > judged[0]:
                continue
            limit = judged[1] - window if stream.attempt == judged[0] else None
            before = length.cut_before(limit)
            if before is not None:
                home.trim(run, stream, before)
                length.note_cut(before)

    def _gap(
        self, stream: StreamName, oldest: int, before: int, judged: tuple[int, int] | None
    ) -> Event | None:
        """Return the event of a cut, None where all of it was judged.

        Where nobody has judged the run yet there is no event either: who begins to read it finds
        its beginning gone (diagnostics/reader.py), and one event a cut would go on for ever.
        """
        if judged is None or judged >= (stream.attempt, before - 1):
            return None
        first = max(oldest, judged[1] + 1) if judged[0] == stream.attempt else oldest
        body = {"family": stream.family, "rank": stream.rank, "from": first, "to": before - 1}
        return Event("gap", before - 1, stream.attempt, stream.rank, self._clock(), body)


@dataclass(slots=True)
class _Length:
    """How many frames of a stream were seen, and at which steps some of the counts stood."""

    stream: StreamName
    keep: int
    frames: int = 0
    last: int = -1
    marks: deque[tuple[int, int]] = field(default_factory=deque)

    @property
    def oldest(self) -> int:
        """The first step that is known to be kept."""
        return self.marks[0][1]

    @property
    def _left(self) -> int:
        """How many frames a cut leaves."""
        return self.keep - max(self.keep // SLACK, 1)

    def note(self, step: int) -> None:
        if step <= self.last:
            return
        self.last = step
        every = max(min(MARK_FRAMES, self.keep // (2 * SLACK)), 1)
        if not self.marks or self.frames - self.marks[-1][0] >= every:
            self.marks.append((self.frames, step))
        self.frames += 1

    def cut_before(self, limit: int | None) -> int | None:
        """Return the step before which frames shall go; None where they are not worth a cut.

        `limit`: the step before which they may go at most.
        """
        found = self.marks[0]
        for mark in self.marks:
            if mark[0] > self.frames - self._left or (limit is not None and mark[1] > limit):
                break
            found = mark
        worth = found[0] - self.marks[0][0] >= self.keep - self._left
        return found[1] if worth else None

    def note_cut(self, before: int) -> None:
        while len(self.marks) > 1 and self.marks[0][1] < before:
            self.marks.popleft()
