"""Tiers: which of raw and the four rolled up levels answer a question, and for which steps.

Level 0 is raw, levels 1 to 4 are the tiers. Pure arithmetic over what each level of a stream holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .buckets import TIERS, bucket_steps

RAW = 0
LEVELS = (RAW, *TIERS)
MOST_POINTS = 1024
"""Rows that one answer holds at most, about; the next coarser level has an eighth of them."""

RAW_SHARE = 2
"""So many times as many rows are read where otherwise fewer than were asked for would come: 2,048
frames of 200 columns take 8 ms (benchmarks/reading.py)."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What a level of a stream holds: the steps from `begin` on, with `first` and `last` sampled.

    `begin` is aligned to the level's buckets, or the first frame of raw; `rows` counts the frames
    of raw.
    """

    begin: int
    first: int
    last: int
    rows: int = 0


LEAST_POINTS = 128
MOST_OF_ALL_RANKS = 131_072
"""Rows that are read of all ranks together, as long as each has LEAST_POINTS: they take 0.5 s."""

Extents = Sequence[Extent | None]
"""By level."""


@dataclass(frozen=True, slots=True)
class Span:
    """The steps that are asked of one stream, both inclusive, and what it holds."""

    extents: Extents
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Steps to be read from one level, both inclusive; buckets that they touch count whole."""

    level: int
    start: int
    stop: int


def first_step(extents: Extents) -> int | None:
    """Return the first step that any level holds."""
    return min((extent.first for extent in extents if extent), default=None)


def last_step(extents: Extents) -> int | None:
    """Return the last step that any level holds."""
    return max((extent.last for extent in extents if extent), default=None)


def choose_levels(attempts: Mapping[int, Mapping[int, Span]], points: int) -> dict[int, int]:
    """Return for each attempt the finest level that covers it, in about 1,024 rows for them all.

    A finer one is taken where that has fewer than `points` and the finer not all too many more.
    `attempts` gives the spans by attempt and rank.
    """
    steps = {number: _steps(ranks.values()) for number, ranks in attempts.items()}
    total = sum(steps.values())
    return {
        number: _choose(ranks.values(), points * steps[number] / total, points)
        for number, ranks in attempts.items()
    }


def _choose(spans: Collection[Span], least: float, points: int) -> int:
    """Return the level of one attempt, which shall have `least` of all `points` rows."""
    most = least * max(MOST_POINTS / points, 1)
    if points <= MOST_POINTS:  # who asks for more, an export, shall have them
        most = max(min(most, MOST_OF_ALL_RANKS / len(spans)), min(most, LEAST_POINTS))
    covering = [
        level for level in LEVELS if all(_reaches(s.extents, level, s.start) for s in spans)
    ]
    if not covering:
        return TIERS[-1]
    rows = [max(_rows(span, level) for span in spans) for level in covering]
    place = next((i for i, count in enumerate(rows) if count <= most), len(covering) - 1)
    if place and rows[place] < least and rows[place - 1] <= RAW_SHARE * most:
        place -= 1
    return covering[place]


def _steps(spans: Iterable[Span]) -> int:
    return max(span.stop - span.start + 1 for span in spans)


def pieces(span: Span, level: int) -> list[Piece]:
    """Return what to read for a span at a level, in order and without overlap.

    Where the span begins or ends inside a bucket, and behind the level's last bucket, finer levels
    are read, as far as they still hold those steps; else the bucket counts whole.
    """
    return _from_inside(span.extents, level, span.start, span.stop)


def _reaches(extents: Extents, level: int, step: int) -> bool:
    """Tell whether a level, or where it is not begun or cut a finer one, holds a step."""
    return any(extent and extent.begin <= step for extent in extents[: level + 1])


def _rows(span: Span, level: int) -> float:
    """Return about how many rows a span has at a level."""
    steps = span.stop - span.start + 1
    raw = span.extents[RAW]
    density = raw.rows / (raw.last - raw.first + 1) if raw else 1.0
    frames = steps * min(density, 1.0)
    return frames if level == RAW else min(frames, steps / bucket_steps(level) + 1)


def _from_inside(extents: Extents, level: int, start: int, stop: int) -> list[Piece]:
    """Return the pieces of steps that may begin inside a bucket."""
    if level == RAW:
        return [Piece(RAW, start, stop)]
    extent, span = extents[level], bucket_steps(level)
    if extent is None or extent.begin > start:
        # not begun yet, or cut: the finer levels hold what there is before
        behind = stop + 1 if extent is None else extent.begin
        found = _from_inside(extents, level - 1, start, min(stop, behind - 1))
        return found + (_from_inside(extents, level, behind, stop) if behind <= stop else [])
    aligned = start - start % span
    if aligned == start or extent.first >= start or not _reaches(extents, level - 1, start):
        return _from_boundary(extents, level, aligned, stop)
    begin = aligned + span
    found = _from_inside(extents, level - 1, start, min(stop, begin - 1))
    return found + (_from_boundary(extents, level, begin, stop) if begin <= stop else [])


def _from_boundary(extents: Extents, level: int, start: int, stop: int) -> list[Piece]:
    """Return the pieces of steps that begin with a bucket and may end inside one."""
    extent, span = extents[level], bucket_steps(level)
    if extent is None or extent.last < start:
        return _from_inside(extents, level - 1, start, stop)
    end = extent.last + 1
    if stop + 1 < end:
        end = (stop + 1) // span * span
        if end <= stop and not _reaches(extents, level - 1, max(end, start)):
            return [Piece(level, start, end + span - 1)]
    found = [Piece(level, start, end - 1)] if end > start else []
    rest = max(end, start)
    return found + (_from_inside(extents, level - 1, rest, stop) if rest <= stop else [])
