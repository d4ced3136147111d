"""Exporting: a family of a run as tables of bounded size, one after the other.

A long run does not fit into memory, so it is read in ranges of steps; attempts are overlaid and
ranks combined as `Store.read` does it for the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from .errors import EmptySelectionError
from .reading import Store
from .schemas import Series, StreamName, family_order
from .tiers import first_step, last_step

NUMBERS_AT_ONCE = 500_000
"""Values read at once over all ranks: 2 MB, and a dozen copies of it while they are combined."""
MARGIN = 128
"""Steps read beside a range of several ranks: whether a rank that skips a step was running (its part
of a sum is missing) or had ended is seen from the steps around it."""
WIDEST = 8**8
WHOLE = 1 << 40
"""More points than any range holds: as fine as it is stored."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The steps that an attempt contributes: first and last, inclusive.

    From each of the `edges` on a finer level is held: raw, or buckets of fewer steps.
    """

    attempt: int
    first: int
    last: int
    edges: tuple[int, ...] = ()

    def next_edge(self, step: int) -> int:
        """Return the last step before the next edge behind a step."""
        return min([edge - 1 for edge in self.edges if edge > step], default=self.last)


@dataclass(slots=True)
class Table:
    """Rows of an export: `attempts` int32[n] beside what a Series holds."""

    series: Series
    attempts: np.ndarray

    def __len__(self) -> int:
        return len(self.attempts)


@dataclass(frozen=True, slots=True)
class Export:
    """What to read: one family of one run, its columns chosen, its attempts cut to their steps."""

    store: Store
    run: str
    family: str
    columns: list[str]
    pieces: list[Piece]
    ranks: int
    rank: int | None
    units: dict[str, str]

    @property
    def first(self) -> int:
        return self.pieces[0].first

    @property
    def last(self) -> int:
        return self.pieces[-1].last

    def tables(self, progress: Callable[[int, int], None] | None = None) -> Iterator[Table]:
        """Yield every stored sample, in order; `progress` is told (steps done, steps in all)."""
        target = max(16, NUMBERS_AT_ONCE // (max(len(self.columns), 1) * self.ranks))
        span, every = 8 ** (target.bit_length() // 3), max(self.last - self.first + 1, 1)
        for piece in self.pieces:
            start = piece.first
            while start <= piece.last:
                # ranges end where buckets of rolled up steps do, and where raw begins
                stop = min(start - start % span + span - 1, piece.last, piece.next_edge(start))
                series = self._read(start, stop, WHOLE, piece.attempt)
                if len(series):
                    yield Table(series, np.full(len(series), piece.attempt, np.int32))
                start = stop + 1
                if 8 * len(series) < target:  # a sparse family, or one that is rolled up
                    span = min(8 * span, WIDEST)
                elif len(series) > target:
                    span = max(span // 8, 8)
                if progress is not None:
                    progress(min(start, self.last + 1) - self.first, every)

    def reduced(self, points: int) -> Table:
        """Return at least `points` rows where there are as many; low and high are the extremes."""
        attempt = self.pieces[0].attempt if len(self.pieces) == 1 else None
        series = self._read(self.first, self.last, points, attempt)
        ends = np.array([piece.last for piece in self.pieces])
        numbers = np.array([piece.attempt for piece in self.pieces], np.int32)
        places = np.minimum(np.searchsorted(ends, series.steps), len(ends) - 1)
        return Table(series, numbers[places])

    def _read(self, start: int, stop: int, points: int, attempt: int | None) -> Series:
        """Read a range with exactly the chosen columns, also where a rank or a layer is silent."""
        margin = MARGIN if self.ranks > 1 and points == WHOLE else 0
        series = self.store.read(
            self.run,
            self.family,
            self.columns,
            max(start - margin, 0),
            stop + margin,
            points,
            self.rank,
            attempt,
        )
        asked = slice(*np.searchsorted(series.steps, [start, stop + 1]))
        there = {name: i for i, name in enumerate(series.columns)}
        kept = [i for i, name in enumerate(self.columns) if name in there]
        found = [there[self.columns[i]] for i in kept]
        steps = series.steps[asked]

        def chosen(values: np.ndarray) -> np.ndarray:
            table = np.full((len(steps), len(self.columns)), np.nan, np.float32)
            table[:, kept] = values[asked][:, found]
            return table

        values = chosen(series.values)
        whole = series.low is series.values and series.high is series.values
        low, high = (values, values) if whole else (chosen(series.low), chosen(series.high))
        return Series(steps, series.times[asked], values, low, high, self.columns)


def families(store: Store, run: str) -> list[str]:
    """Return the families of a run that hold samples, in the order of the fold."""
    return sorted({stream.family for stream in store.home.streams(run)}, key=family_order)


def select_export(
    store: Store,
    run: str,
    family: str,
    *,
    columns: Sequence[str] = (),
    start: int | None = None,
    stop: int | None = None,
    rank: int | None = None,
    attempt: int | None = None,
) -> Export:
    """Return what to export of a family.

    Args:
        store: where the run is.
        run: a run id.
        family: `train`, `gradients`, …
        columns: written names or globs (`grad_norm/*`); none means all, recorded and derived.
        start: first step, inclusive.
        stop: last step, inclusive.
        rank: one rank alone.
        attempt: one attempt alone; None overlays them.

    Raises:
        UnknownRunError: no such run.
        EmptySelectionError: no such family, rank, attempt or column, or no sample in the range.
    """
    streams = _streams(store, run, family, rank, attempt)
    pieces = _pieces(store, run, family, streams)
    first, last = pieces[0].first, pieces[-1].last
    cut = [
        replace(
            p, first=max(p.first, start or 0), last=p.last if stop is None else min(p.last, stop)
        )
        for p in pieces
    ]
    cut = [piece for piece in cut if piece.first <= piece.last]
    if not cut:
        raise EmptySelectionError(
            f"{run} holds no samples of {family} in the steps asked for, "
            f"{'' if start is None else start}–{'' if stop is None else stop}; "
            f"it has them from step {first} to {last}"
        )
    known = _columns(store, run, family, streams, rank)
    units = {c.name: c.unit for schema in store.schemas(run, family) for c in schema.columns}
    ranks = len({stream.rank for stream in streams})
    chosen = _matching(known, columns, family)
    return Export(store, run, family, chosen, cut, ranks, rank, units)


def _streams(
    store: Store, run: str, family: str, rank: int | None, attempt: int | None
) -> list[StreamName]:
    store.meta(run)  # raises for a run that is not there
    there = families(store, run)
    if family not in there:
        raise EmptySelectionError(
            f"{run} holds no samples of a family {family!r}; it has {', '.join(there) or 'none'}"
        )
    streams = [stream for stream in store.home.streams(run) if stream.family == family]
    for what, asked, numbers in (
        ("rank", rank, {stream.rank for stream in streams}),
        ("attempt", attempt, {stream.attempt for stream in streams}),
    ):
        if asked is not None and asked not in numbers:
            raise EmptySelectionError(
                f"{run} holds no samples of {family} from {what} {asked}; "
                f"it has them from {what} {', '.join(map(str, sorted(numbers)))}"
            )
    return [s for s in streams if rank in (None, s.rank) and attempt in (None, s.attempt)]


def _pieces(store: Store, run: str, family: str, streams: Sequence[StreamName]) -> list[Piece]:
    """Return the steps that each attempt contributes: a later one replaces from its first step on."""
    found: list[Piece] = []
    for number in sorted({stream.attempt for stream in streams}, reverse=True):
        piece = _piece(store, run, [s for s in streams if s.attempt == number])
        if piece is None:
            continue
        last = min([piece.last, *(later.first - 1 for later in found)])
        if piece.first <= last:
            found.append(replace(piece, last=last))
    if not found:
        raise EmptySelectionError(
            f"{run} holds no samples of {family}; all were trimmed or damaged"
        )
    return found[::-1]


def _piece(store: Store, run: str, streams: Sequence[StreamName]) -> Piece | None:
    """Return the steps that an attempt has samples of, on any of its ranks."""
    extents = store.home.extents(run, streams).values()
    firsts = [step for extent in extents if (step := first_step(extent)) is not None]
    lasts = [step for extent in extents if (step := last_step(extent)) is not None]
    if not firsts or not lasts:
        return None
    levels = ([extent for extent in level if extent] for level in zip(*extents, strict=True))
    edges = tuple(max(extent.begin for extent in level) for level in levels if level)
    return Piece(streams[0].attempt, min(firsts), max(lasts), edges)


def _columns(
    store: Store, run: str, family: str, streams: Sequence[StreamName], rank: int | None
) -> list[str]:
    """Return every column's written name: those of `each` exist only where a rank has samples."""
    steps = {frame.step for s in streams for frame in store.home.frames(run, s, count=1)}
    names: dict[str, None] = {}
    for step in sorted(steps):
        names |= dict.fromkeys(store.read(run, family, start=step, stop=step, rank=rank).columns)
    return list(names)


def _matching(known: Sequence[str], asked: Sequence[str], family: str) -> list[str]:
    """Return the columns that the names and globs mean, in the order of the question.

    >>> _matching(["loss", "lr/0.0", "lr/0.1"], ["lr/*", "loss"], "train")
    ['lr/0.0', 'lr/0.1', 'loss']
    """
    if not asked:
        return list(known)
    found: dict[str, None] = {}
    for pattern in asked:
        names = [pattern] if pattern in known else []
        names = names or [name for name in known if fnmatchcase(name, pattern)]
        # a bare quantity means it for every layer and rank, as in Store.read
        names = names or [name for name in known if name.startswith((f"{pattern}/", f"{pattern}@"))]
        if not names:
            shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
            raise EmptySelectionError(
                f"no column of {family} matches {pattern!r}; it has {len(known)}: {shown}"
            )
        found |= dict.fromkeys(names)
    return list(found)
