"""Blocks: what is read of a table's rows as float64, to which rows are added once they are asked for.

What is handed out is a view that cannot be written, of rows that are never written again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .tables import Table

Make = Callable[["Table", int, int], np.ndarray]
"""Makes something of rows `low` to `high` of a table, of each row by itself, [rows, numbers]."""

Made = tuple[Make, int]
"""How it is made, and how many numbers of a row."""


@dataclass(slots=True)
class Line:
    """A column of a table as float64, to which rows are added once they are asked for.

    `first`, `upto`: the rows that it holds, counted from the table's very first; `gap`: the last of
    them whose value is not finite.
    """

    place: int
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    first: int = 0
    upto: int = 0
    gap: int = -1
    _locked: np.ndarray = field(default_factory=lambda: np.empty(0))

    def read(self, table: Table, low: int, high: int) -> tuple[np.ndarray, bool]:
        """Return rows `low` to `high`, read-only, and whether all of them are known to be finite."""
        first, upto = self.first, self.upto
        if high <= low:
            return self._locked[:0], True
        if not first <= low <= upto or high - first > len(self.values):
            self.values = np.empty(2 * max(high - low, 32))
            self._locked = locked(self.values)
            self.first = self.upto = first = upto = low
        if high > upto:
            rows = table.rows[upto - table.gone : high - table.gone, self.place]
            self.values[upto - first : high - first] = rows
            finite = np.isfinite(rows)
            if not finite.all():
                self.gap = upto + int(np.flatnonzero(~finite)[-1])
            self.upto = high
        return self._locked[low - first : high - first], self.gap < low


@dataclass(slots=True)
class Lines:
    """All columns of a table of few as float64, [rows, columns], to which new rows are added at once.

    `first`, `upto`: as of a line; `gaps`: of each column the last row whose value is not finite.
    """

    values: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    gaps: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    first: int = 0
    upto: int = 0
    _locked: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def read(self, table: Table, place: int, low: int, high: int) -> tuple[np.ndarray, bool]:
        """Return rows `low` to `high` of a column, read-only, and whether all are known to be finite."""
        if low < self.first or high > self.upto:
            self._take(table)
        return self._locked[low - self.first : high - self.first, place], self.gaps[place] < low

    def _take(self, table: Table) -> None:
        last = table.gone + table.count
        if self.upto < table.gone or last - self.first > len(self.values):
            self.values = np.empty((2 * max(table.count, 32), table.rows.shape[1]), order="F")
            self.gaps = np.full(table.rows.shape[1], -1)
            self._locked = locked(self.values)
            self.first = self.upto = table.gone
        rows = table.rows[self.upto - table.gone : table.count]
        self.values[self.upto - self.first : last - self.first] = rows
        bad = ~np.isfinite(rows)
        if bad.any():
            latest = last - 1 - bad[::-1].argmax(axis=0)
            self.gaps = np.where(bad.any(axis=0), latest, self.gaps)
        self.upto = last


@dataclass(slots=True)
class Block:
    """What is made of each row of a table, float64[rows, width], in column order; rows are added once
    they are asked for.

    `make`: makes it of rows `low` to `high`, of each row by itself. `first`, `upto`: as of a line.
    """

    make: Make
    width: int
    values: np.ndarray = field(init=False)
    first: int = 0
    upto: int = 0
    told: int = 0
    """The rows up to which it was told whether they hold a finite value."""
    _locked: np.ndarray = field(init=False)
    _finite: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._begin(0, 0)

    def _begin(self, low: int, room: int) -> None:
        self.values, self._finite = np.empty((room, self.width), order="F"), np.empty(room, bool)
        self._locked = locked(self.values)
        self.first = self.upto = self.told = low

    def read(self, table: Table, low: int, high: int) -> np.ndarray:
        """Return what is made of rows `low` to `high`, read-only."""
        if high <= low:
            return self._locked[:0]
        if not self.first <= low <= self.upto or high - self.first > len(self.values):
            self._begin(low, 2 * max(high - low, 32))
        if high > self.upto:
            rows = self.make(table, self.upto - table.gone, high - table.gone)
            self.values[self.upto - self.first : high - self.first] = rows
            self.upto = high
        return self._locked[low - self.first : high - self.first]

    def known(self, low: int, high: int) -> np.ndarray | None:
        """Return which of rows `low` to `high` hold a finite value; None of rows that were let go."""
        if low < self.first or high > self.upto:
            return None
        if high > self.told:
            new = slice(self.told - self.first, high - self.first)
            self._finite[new] = np.isfinite(self.values[new]).any(axis=1)
            self.told = high
        return locked(self._finite[low - self.first : high - self.first])


def locked(values: np.ndarray) -> np.ndarray:
    """Return a view that cannot be written, nor what is cut from it; the array itself still can."""
    view = values.view()
    view.flags.writeable = False
    return view
