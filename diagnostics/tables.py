"""Tables: the kept frames of one family, and what is read of them at a point.

What is read is handed out as views of columns that grow with the table: a window of 2,000 steps is not
copied anew at every point. Rows that were handed out are never written again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..store import Column, Schema
from .blocks import Block, Line, Lines, Made, locked
from .medians import median_of

KEPT_STEPS = 2000
"""Steps behind the point that are kept: no rule may ask for a larger span."""

LONGEST = 1024
"""Rows of the layers' columns that are kept as they are read; of more it would be as much memory again."""

FEW = 32
"""Columns of a table that are read together: to read one costs hardly less."""

NARROW = 4
"""Numbers that are made of a row and kept of any window, however long."""

KEPT_READS = 64
"""Answers that are kept for the next rule that asks the same: those of a point or two."""


@dataclass(slots=True, eq=False)
class Samples:
    """One column: `steps` int64[n] ascending, `values` float64[n]; NaN where not measured.

    Both arrays are read-only: rules share them, and what the first one asks of them is kept.
    """

    steps: np.ndarray
    values: np.ndarray
    _whole: bool = False
    """Whether all of them are known to be finite."""
    _finite: Samples | None = field(default=None, repr=False)
    _median: float | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def finite(self) -> Samples:
        """The samples that are neither NaN nor infinite."""
        if self._whole:
            return self
        if self._finite is None:
            keep = np.isfinite(self.values)
            if keep.all():
                self._whole = True  # a reference to itself would outlive the point
                return self
            self._finite = Samples(self.steps[keep], self.values[keep], True)
        return self._finite

    @property
    def median(self) -> float:
        """The median of the values; NaN of none, or where one of them is."""
        if self._median is None:
            self._median = median_of(self.values)
        return self._median


NO_SAMPLES = Samples(np.empty(0, dtype=np.int64), np.empty(0), True)


@dataclass(frozen=True, slots=True)
class LayerSamples:
    """One quantity of every layer: `steps` int64[n], `values` float64[n, layers], `layers` names.

    Both arrays are read-only: rules share them.
    """

    steps: np.ndarray
    values: np.ndarray
    layers: tuple[str, ...]
    _block: Block | None = field(default=None, compare=False, repr=False)
    _rows: tuple[int, int] = field(default=(0, 0), compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def known(self) -> np.ndarray:
        """Of each sample whether any layer has a finite value, bool[n]."""
        found = None if self._block is None else self._block.known(*self._rows)
        return np.asarray(np.isfinite(self.values).any(axis=1)) if found is None else found


@dataclass
class Table:
    """The kept frames of one family, one row a step, in the columns of the latest schema.

    `gone`: rows that were let go, so that a row's number stays the same while it is kept; `latest`: the
    last row's step.
    """

    schema: Schema
    steps: np.ndarray = field(init=False)
    rows: np.ndarray = field(init=False)
    count: int = 0
    gone: int = 0
    latest: int = -1
    _places: dict[tuple[str, str | None], tuple[np.ndarray | slice, tuple[str, ...]]] = field(
        default_factory=dict
    )
    _by_quantity: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _order: dict[str, int] = field(default_factory=dict)
    _names: dict[str, str | None] = field(default_factory=dict)
    _made: dict[str, Any] = field(default_factory=dict)
    _lines: dict[str, Line] = field(default_factory=dict)
    _few: Lines = field(default_factory=Lines)
    _blocks: dict[str | tuple[str, str | None], Block | None] = field(default_factory=dict)
    _locked: np.ndarray = field(init=False)
    _between: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    _columns: dict[tuple[str, int, int], Samples] = field(default_factory=dict)
    _layers: dict[tuple[str, str | None, int, int], LayerSamples] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.steps = np.empty(64, dtype=np.int64)
        self.rows = np.empty((64, len(self.schema.columns)), dtype=np.float32)
        self._locked = locked(self.steps)

    def append(self, step: int, values: np.ndarray) -> None:
        if self.count == len(self.steps):
            self._make_room(step)
        self.steps[self.count] = step
        self.rows[self.count] = values
        self.count += 1
        self.latest = step
        self._between.clear()

    def _make_room(self, step: int) -> None:
        first = int(np.searchsorted(self.steps[: self.count], step - KEPT_STEPS, side="left"))
        kept = self.count - first
        size = len(self.steps) * (2 if kept > len(self.steps) // 2 else 1)
        steps = np.empty(size, dtype=np.int64)
        rows = np.empty((size, self.rows.shape[1]), dtype=np.float32)
        steps[:kept], rows[:kept] = self.steps[first : self.count], self.rows[first : self.count]
        self.steps, self.rows, self.count = steps, rows, kept
        self._locked = locked(steps)
        self.gone += first

    def between(self, after: int, upto: int) -> tuple[int, int]:
        """Return the rows with after < step <= upto, as the first one and that behind the last.

        None of them lies KEPT_STEPS or more behind `upto`: which are still there depends on when the table
        last made room, and after a restart fewer are.
        """
        known = self._between.get((after, upto))
        if known is None:
            steps = self.steps[: self.count]
            low = int(steps.searchsorted(max(after, upto - KEPT_STEPS), side="right"))
            high = self.count  # nearly always all up to the last one
            if upto < self.latest:
                high = max(low, int(steps.searchsorted(upto, side="right")))
            known = self._between[after, upto] = (low, high)
        return known

    def samples(self, column: str, after: int, upto: int, count: int | None) -> Samples:
        """Return at most the last `count` samples of a column with after < step <= upto.

        `column`: a written name, or a quantity, which means its first column; of neither none.
        """
        name = self.written(column)
        if name is None:
            return NO_SAMPLES
        low, high = self.between(after, upto)
        return self.column(name, low if count is None else max(low, high - count), high)

    def column(self, name: str, low: int, high: int) -> Samples:
        """Return rows `low` to `high` of the column of a written name."""
        key = (name, low + self.gone, high + self.gone)
        kept = self._columns.get(key)
        if kept is None:
            if len(self._columns) >= KEPT_READS:
                self._columns.clear()
            place = self.schema.index[name]
            if len(self.schema.columns) <= FEW:
                values, whole = self._few.read(self, place, key[1], key[2])
            else:
                line = self._lines.get(name)
                if line is None:
                    line = self._lines[name] = Line(place)
                values, whole = line.read(self, key[1], key[2])
            kept = self._columns[key] = Samples(self.steps_of(low, high), values, whole)
        return kept

    def layers(self, quantity: str, group: str | None, low: int, high: int) -> LayerSamples:
        """Return rows `low` to `high` of every layer that has a quantity."""
        key = (quantity, group, low + self.gone, high + self.gone)
        kept = self._layers.get(key)
        if kept is None:
            if len(self._layers) >= KEPT_READS:
                self._layers.clear()
            places, names = self.of_layers(quantity, group)
            block = None
            if high - low > LONGEST:
                values = self.rows[low:high, places].astype(np.float64, order="F")
                values.flags.writeable = False
            else:
                block = self._blocks.get((quantity, group))
                if block is None:
                    block = Block(lambda table, a, b: table.rows[a:b, places], len(names))
                    self._blocks[quantity, group] = block
                values = block.read(self, key[2], key[3])
            steps = self.steps_of(low, high)
            kept = self._layers[key] = LayerSamples(steps, values, names, block, key[2:])
        return kept

    def derived(
        self, name: str, begin: Callable[[Table], Made | None], low: int, high: int
    ) -> LayerSamples | None:
        """Return what is made of rows `low` to `high`; the layers that it is made of are not named.

        `begin`: returns how it is made of each row by itself, and how many numbers that are; None
        where it cannot be under the schema at hand. It is asked once a schema.
        """
        if name not in self._blocks:
            made = begin(self)
            self._blocks[name] = None if made is None else Block(*made)
        block = self._blocks[name]
        if block is None:
            return None
        steps = self.steps_of(low, high)
        if high - low > LONGEST and block.width > NARROW:
            return LayerSamples(steps, block.make(self, low, high), ())
        rows = (low + self.gone, high + self.gone)
        return LayerSamples(steps, block.read(self, *rows), (), block, rows)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what is made of the schema at hand, once."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def steps_of(self, low: int, high: int) -> np.ndarray:
        """Return the steps of rows `low` to `high`, read-only."""
        return self._locked[low:high]

    def follow(self, schema: Schema) -> None:
        """Go on with another schema; what it does not have of the old one is let go."""
        rows = np.full((len(self.steps), len(schema.columns)), np.nan, dtype=np.float32)
        for name, place in schema.index.items():
            if name in self.schema.index:
                rows[:, place] = self.rows[:, self.schema.index[name]]
        self.schema, self.rows = schema, rows
        for known in (self._places, self._by_quantity, self._order, self._names, self._made):
            known.clear()
        self._lines.clear()
        self._few = Lines()
        self._blocks.clear()
        self._columns.clear()
        self._layers.clear()

    def _of(self, quantity: str) -> list[tuple[int, Column]]:
        """Return the columns of a quantity, with their places."""
        columns = self.schema.columns
        if not self._by_quantity:
            for place, column in enumerate(columns):
                self._by_quantity[column.quantity].append(place)
        return [(place, columns[place]) for place in self._by_quantity.get(quantity, ())]

    def named(self, quantity: str) -> list[str]:
        """Return the written names of a quantity's columns, the first one first."""
        return [column.name for _, column in self._of(quantity)]

    def written(self, column: str) -> str | None:
        """Return a written name as it is, and of a quantity alone its first column's, None of neither."""
        if column not in self._names:
            names = self.named(column)
            known = column in self.schema.index
            self._names[column] = column if known else names[0] if names else None
        return self._names[column]

    def of_layers(
        self, quantity: str, group: str | None
    ) -> tuple[np.ndarray | slice, tuple[str, ...]]:
        """Return where a quantity's layers stand in a row, and their names, in model order."""
        key = (quantity, group)
        if key not in self._places:
            chosen = [
                (place, column.layer)
                for place, column in self._of(quantity)
                if column.layer is not None and group in (None, column.group)
            ]
            places = _evenly([place for place, _ in chosen])
            self._places[key] = (places, tuple(layer for _, layer in chosen))
        return self._places[key]

    def layer_order(self) -> dict[str, int]:
        """Return the place of each layer among the layers, by where its first column stands."""
        if not self._order:
            layers = dict.fromkeys([column.layer for column in self.schema.columns])
            named = [layer for layer in layers if layer is not None]
            self._order.update(zip(named, range(len(named)), strict=True))
        return self._order


def _evenly(places: Sequence[int]) -> np.ndarray | slice:
    """Return places as a slice where they are evenly spaced, which is read in a third of the time.

    >>> _evenly([3, 5, 7]), _evenly([3, 5, 6]).tolist()
    (slice(3, 8, 2), [3, 5, 6])
    """
    gap = places[1] - places[0] if len(places) > 1 else 1
    if places and gap > 0 and list(places) == list(range(places[0], places[-1] + 1, gap)):
        return slice(places[0], places[-1] + 1, gap)
    return np.array(places, dtype=np.int64)


def combine(schema: Schema, values: Sequence[np.ndarray]) -> np.ndarray:
    """Return one row from the ranks' rows, each column as its schema says.

    `same` and `each` take the lowest rank's: a rule that looks at single ranks reads them apart.
    """
    if len(values) == 1:
        return values[0]
    stack = np.stack(values)
    combined = stack[0].copy()
    ways = {"sum": np.sum, "mean": np.mean, "min": np.min, "max": np.max}
    for way, function in ways.items():
        places = [i for i, column in enumerate(schema.columns) if column.ranks == way]
        if places:
            combined[places] = function(stack[:, places], axis=0)
    return combined
