"""Rank windows: what each process of a distributed run wrote itself, which combining lets go of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..store import Frame, Schema

KEPT_ROWS = 256
"""Samples of each rank that are kept: with 512 ranks `train` takes 9 MB, at most
(its rows twice, of 9 of 15 columns)."""

MOST_COLUMNS = 32
"""Families of more columns (layers) are not kept by rank: none of their rules compares ranks."""


@dataclass(frozen=True, slots=True)
class RankSamples:
    """One column of every rank: `steps` int64[n], `values` float64[n, ranks], `ranks` their numbers.

    NaN where a rank measured nothing, or wrote no frame (`wrote` bool[n, ranks]).
    """

    steps: np.ndarray
    values: np.ndarray
    wrote: np.ndarray
    ranks: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.steps)


NO_RANKS = RankSamples(np.empty(0, np.int64), np.empty((0, 0)), np.empty((0, 0), bool), ())


@dataclass
class RankTable:
    """The last rows of one family, rank by rank: float32[row, rank, column].

    Columns that are alike on all ranks (`same`) are left out.
    """

    schema: Schema
    ranks: list[int] = field(default_factory=list)
    steps: np.ndarray = field(init=False)
    rows: np.ndarray = field(init=False)
    wrote: np.ndarray = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self._choose()
        self.steps = np.empty(64, dtype=np.int64)
        self.rows = np.full((64, len(self.ranks), len(self._index)), np.nan, np.float32)
        self.wrote = np.zeros((64, len(self.ranks)), bool)

    def _choose(self) -> None:
        own = [(i, c.name) for i, c in enumerate(self.schema.columns) if c.ranks != "same"]
        self._places = np.array([i for i, _ in own], dtype=np.int64)
        self._index = {name: place for place, (_, name) in enumerate(own)}

    def append(self, frames: Sequence[Frame]) -> None:
        """Take the frames of one step, one a rank."""
        for frame in frames:
            if frame.rank not in self.ranks:
                self._widen(frame.rank)
        self.append_values(frames[0].step, {frame.rank: frame.values for frame in frames})

    def append_values(self, step: int, values: dict[int, np.ndarray]) -> None:
        """Take one step's whole rows of some of the known ranks."""
        if self.count == len(self.steps):
            self._make_room()
        row = self.count
        self.steps[row], self.wrote[row], self.rows[row] = step, False, np.nan
        for rank, numbers in values.items():
            place = self.ranks.index(rank)
            self.rows[row, place] = numbers[self._places]
            self.wrote[row, place] = True
        self.count += 1

    def _widen(self, rank: int) -> None:
        place = sum(known < rank for known in self.ranks)
        self.ranks.insert(place, rank)
        self.rows = np.insert(self.rows, place, np.nan, axis=1)
        self.wrote = np.insert(self.wrote, place, False, axis=1)

    def _make_room(self) -> None:
        kept = min(self.count, KEPT_ROWS)
        size = max(2 * kept, 64)
        first = self.count - kept
        for name in ("steps", "rows", "wrote"):
            old = getattr(self, name)
            new = np.empty((size, *old.shape[1:]), old.dtype)
            new[:kept] = old[first : self.count]
            setattr(self, name, new)
        self.count = kept

    def follow(self, schema: Schema) -> None:
        """Go on with another schema; what it does not have of the old one is let go."""
        old_rows, old_index = self.rows, self._index
        self.schema = schema
        self._choose()
        shape = (*old_rows.shape[:2], len(self._index))
        self.rows = np.full(shape, np.nan, np.float32)
        for name, place in self._index.items():
            if name in old_index:
                self.rows[..., place] = old_rows[..., old_index[name]]

    def column(self, name: str, after: int, upto: int) -> RankSamples:
        """Return a column of all ranks with after < step <= upto, at most KEPT_ROWS rows."""
        if name not in self._index:
            return NO_RANKS
        low, high = np.searchsorted(self.steps[: self.count], [after, upto], side="right")
        # how many rows lie behind depends on when the table was rebuilt last; these never do
        low = max(low, self.count - KEPT_ROWS, 0)
        wrote = self.wrote[low:high]
        heard = np.flatnonzero(wrote.any(axis=0))
        if len(heard) < 2:
            return NO_RANKS
        values = self.rows[low:high, :, self._index[name]][:, heard].astype(np.float64)
        ranks = tuple(self.ranks[place] for place in heard)
        return RankSamples(self.steps[low:high].copy(), values, wrote[:, heard].copy(), ranks)
