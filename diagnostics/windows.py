"""Windows: the last samples of a column, with their steps, as a rule may see them at one point.

A window counts samples and carries a largest span in steps. It is rebuilt from raw frames, so
nothing in it depends on how those frames arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..store import Frame, Schema
from .rank_windows import MOST_COLUMNS, NO_RANKS, RankSamples, RankTable

KEPT_READS = 64
"""Answers that are kept for the next rule that asks the same: those of a point or two."""

KEPT_STEPS = 2000
"""Steps behind the point that are kept: no rule may ask for a larger span."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One column: `steps` int64[n] ascending, `values` float64[n]; NaN where not measured.

    Both arrays are read-only: rules share them.
    """

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def finite(self) -> Samples:
        """The samples that are neither NaN nor infinite."""
        keep = np.isfinite(self.values)
        return self if keep.all() else Samples(self.steps[keep], self.values[keep])


@dataclass(frozen=True, slots=True)
class LayerSamples:
    """One quantity of every layer: `steps` int64[n], `values` float64[n, layers], `layers` names.

    Both arrays are read-only: rules share them.
    """

    steps: np.ndarray
    values: np.ndarray
    layers: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass
class Table:
    """The kept frames of one family, one row a step, in the columns of the latest schema."""

    schema: Schema
    steps: np.ndarray = field(init=False)
    rows: np.ndarray = field(init=False)
    count: int = 0
    grown: int = 0
    """Rows that ever came, and changes of the schema: another number is another content."""
    _layers: dict[tuple[str, str | None], tuple[np.ndarray | slice, tuple[str, ...]]] = field(
        default_factory=dict
    )
    _order: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.steps = np.empty(64, dtype=np.int64)
        self.rows = np.empty((64, len(self.schema.columns)), dtype=np.float32)

    def append(self, step: int, values: np.ndarray) -> None:
        if self.count == len(self.steps):
            self._make_room(step)
        self.steps[self.count] = step
        self.rows[self.count] = values
        self.count += 1
        self.grown += 1

    def _make_room(self, step: int) -> None:
        first = int(np.searchsorted(self.steps[: self.count], step - KEPT_STEPS, side="left"))
        kept = self.count - first
        size = len(self.steps) * (2 if kept > len(self.steps) // 2 else 1)
        steps = np.empty(size, dtype=np.int64)
        rows = np.empty((size, self.rows.shape[1]), dtype=np.float32)
        steps[:kept], rows[:kept] = self.steps[first : self.count], self.rows[first : self.count]
        self.steps, self.rows, self.count = steps, rows, kept

    def between(self, after: int, upto: int) -> tuple[int, int]:
        """Return the rows with after < step <= upto, as the first one and that behind the last."""
        steps = self.steps[: self.count]
        low = int(steps.searchsorted(after, side="right"))
        return low, int(steps.searchsorted(upto, side="right"))

    def follow(self, schema: Schema) -> None:
        """Go on with another schema; what it does not have of the old one is let go."""
        rows = np.full((len(self.steps), len(schema.columns)), np.nan, dtype=np.float32)
        for name, place in schema.index.items():
            if name in self.schema.index:
                rows[:, place] = self.rows[:, self.schema.index[name]]
        self.schema, self.rows = schema, rows
        self.grown += 1
        self._layers.clear()
        self._order.clear()

    def of_layers(
        self, quantity: str, group: str | None
    ) -> tuple[np.ndarray | slice, tuple[str, ...]]:
        """Return where a quantity's layers stand in a row, and their names, in model order."""
        key = (quantity, group)
        if key not in self._layers:
            chosen = [
                (place, column.layer)
                for place, column in enumerate(self.schema.columns)
                if column.quantity == quantity
                and column.layer is not None
                and group in (None, column.group)
            ]
            places = _evenly([place for place, _ in chosen])
            self._layers[key] = (places, tuple(layer for _, layer in chosen))
        return self._layers[key]

    def layer_order(self) -> dict[str, int]:
        """Return the place of each layer among the layers, by where its first column stands."""
        if not self._order:
            for column in self.schema.columns:
                if column.layer is not None:
                    self._order.setdefault(column.layer, len(self._order))
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


NO_SAMPLES = Samples(np.empty(0, dtype=np.int64), np.empty(0))
NO_LAYERS = LayerSamples(np.empty(0, dtype=np.int64), np.empty((0, 0)), ())


@dataclass
class History:
    """The tables of one attempt, by family; by rank too, where more than one rank writes it."""

    tables: dict[str, Table] = field(default_factory=dict)
    by_rank: dict[str, RankTable] = field(default_factory=dict)
    _lone: dict[str, int] = field(default_factory=dict)
    _read: dict[tuple[str, str, str | None, int, int], tuple[int, LayerSamples]] = field(
        default_factory=dict, repr=False
    )
    _columns: dict[tuple[str, str, int, int], Samples] = field(default_factory=dict, repr=False)
    """Answers of this point: until further frames come."""
    _made: dict[str, tuple[tuple[Any, ...], Any]] = field(default_factory=dict, repr=False)

    def add(self, frames: Sequence[Frame], schemas: Mapping[str, Schema]) -> None:
        """Take the frames of one family at one step, one a rank, sorted by rank."""
        known = [frame for frame in frames if frame.schema in schemas]
        if not known:
            return
        self._columns.clear()
        schema = schemas[known[0].schema]
        same = [frame for frame in known if frame.schema == known[0].schema]
        table = self.tables.get(schema.family)
        if table is None:
            table = self.tables[schema.family] = Table(schema)
        elif table.schema.hash != schema.hash:
            table.follow(schema)
        self._add_by_rank(same, schema, table)
        table.append(same[0].step, combine(schema, [frame.values for frame in same]))

    def _add_by_rank(self, frames: Sequence[Frame], schema: Schema, table: Table) -> None:
        family = schema.family
        apart = self.by_rank.get(family)
        if apart is None:
            if len(frames) == 1 and self._lone.setdefault(family, frames[0].rank) == frames[0].rank:
                return
            if len(schema.columns) > MOST_COLUMNS:
                return
            apart = self.by_rank[family] = _seeded(table, self._lone.get(family))
        elif apart.schema.hash != schema.hash:
            apart.follow(schema)
        apart.append(frames)

    def ranks(self, family: str, name: str, after: int, upto: int) -> RankSamples:
        """Return each rank's own samples of a column with after < step <= upto."""
        table = self.by_rank.get(family)
        return NO_RANKS if table is None else table.column(name, after, upto)

    def column(self, family: str, name: str, after: int, upto: int) -> Samples:
        """Return the samples of a column with after < step <= upto."""
        table = self.tables.get(family)
        if table is None or name not in table.schema.index:
            return NO_SAMPLES
        low, high = table.between(after, upto)
        key = (family, name, low, high)  # several rules ask for the same at a point
        kept = self._columns.get(key)
        if kept is None:
            values = table.rows[low:high, table.schema.index[name]].astype(np.float64)
            steps = table.steps[low:high].copy()
            steps.flags.writeable = values.flags.writeable = False
            kept = self._columns[key] = Samples(steps, values)
        return kept

    def once(self, name: str, read: Sequence[Any], make: Callable[[], Any]) -> Any:
        """Return what is made of samples (or names) that were read; made anew only where they are others.

        `name` is the rule's own; what is made must depend on nothing but what was read.
        """
        kept = self._made.get(name)
        same = kept is not None and all(a is b for a, b in zip(kept[0], read, strict=True))
        if kept is None or not same:
            kept = self._made[name] = (tuple(read), make())
        return kept[1]

    def count(self, family: str, after: int, upto: int) -> int:
        """Return how many samples of a family there are with after < step <= upto."""
        table = self.tables.get(family)
        if table is None:
            return 0
        low, high = table.between(after, upto)
        return high - low

    def written(self, family: str, column: str) -> str:
        """Return a written name as it is, and for a quantity alone that of its first column."""
        table = self.tables.get(family)
        if table is not None and column in table.schema.index:
            return column
        return self.first_column(family, column) or column

    def largest(self, family: str, quantity: str, after: int, upto: int) -> Samples:
        """Return the samples of a quantity with after < step <= upto, of several columns the largest.

        Where a run has several optimizers, each has a column of its own: `edge_ratio/1`.
        """
        table = self.tables.get(family)
        names = [c.name for c in table.schema.columns if c.quantity == quantity] if table else []
        found = [self.column(family, name, after, upto) for name in names]
        if not found:
            return NO_SAMPLES
        return Samples(found[0].steps, np.fmax.reduce([samples.values for samples in found]))

    def first_column(self, family: str, quantity: str) -> str | None:
        """Return the written name of a quantity's first column: `lr` is `lr/0.0`."""
        table = self.tables.get(family)
        if table is None:
            return None
        for column in table.schema.columns:
            if column.quantity == quantity:
                return column.name
        return None

    def layers(
        self,
        family: str,
        quantity: str,
        after: int,
        upto: int,
        group: str | None = None,
        count: int | None = None,
    ) -> LayerSamples:
        """Return at most the last `count` samples of a quantity, of every layer, after < step <= upto."""
        table = self.tables.get(family)
        if table is None:
            return NO_LAYERS
        low, high = table.between(after, upto)
        if count is not None:
            low = max(low, high - count)
        # `grown` tells one point's answers from another's
        key = (family, quantity, group, low, high)
        kept, grown = self._read.get(key), table.grown
        if kept is None or kept[0] != grown:
            places, names = table.of_layers(quantity, group)
            values = table.rows[low:high, places].astype(np.float64, order="F")
            steps = table.steps[low:high].copy()
            steps.flags.writeable = values.flags.writeable = False
            if len(self._read) >= KEPT_READS:
                self._read.clear()
            kept = self._read[key] = (grown, LayerSamples(steps, values, names))
        return kept[1]


def _seeded(table: Table, lone: int | None) -> RankTable:
    """Return a table by rank with the rows that one rank wrote while it was alone."""
    if lone is None:
        return RankTable(table.schema)
    apart = RankTable(table.schema, [lone])
    for row in range(table.count):
        apart.append_values(int(table.steps[row]), {lone: table.rows[row]})
    return apart


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


@dataclass(frozen=True, slots=True)
class Window:
    """What a rule may see: samples of the current attempt with `since` < step <= `step`."""

    history: History
    step: int
    since: int = 0

    def samples(
        self, family: str, column: str, *, count: int | None = None, span: int | None = None
    ) -> Samples:
        """Return at most the last `count` samples of a column, none older than `span` steps.

        Args:
            family: `train`, `gradients`, …
            column: a written name; a quantity alone means its first column.
            count: the most samples; None takes all within the span.
            span: the most steps back; None takes KEPT_STEPS.
        """
        name = self.history.written(family, column)
        found = self.history.column(family, name, self._after(span), self.step)
        if count is None or len(found) <= count:
            return found
        return Samples(found.steps[-count:], found.values[-count:])

    def layers(
        self,
        family: str,
        quantity: str,
        *,
        count: int | None = None,
        span: int | None = None,
        group: str | None = None,
    ) -> LayerSamples:
        """Return at most the last `count` samples of a quantity, for every layer that has it."""
        return self.history.layers(family, quantity, self._after(span), self.step, group, count)

    def across(
        self, family: str, column: str, *, count: int | None = None, span: int | None = None
    ) -> RankSamples:
        """Return the last samples of a column of all ranks, side by side; at most KEPT_ROWS steps.

        Empty where fewer than two ranks wrote the family, and for a column that is the same on all.
        """
        found = self.history.ranks(family, column, self._after(span), self.step)
        if count is None or len(found) <= count:
            return found
        return RankSamples(
            found.steps[-count:], found.values[-count:], found.wrote[-count:], found.ranks
        )

    def ranks(
        self, family: str, column: str, *, count: int | None = None, span: int | None = None
    ) -> dict[int, Samples]:
        """Return each rank's own last samples of a column: of those steps in which it wrote one.

        `count` is that of steps, for all ranks alike. See `across`, which keeps them side by side.
        """
        found = self.across(family, column, count=count, span=span)
        return {
            rank: Samples(found.steps[wrote], found.values[wrote, place])
            for place, (rank, wrote) in enumerate(zip(found.ranks, found.wrote.T, strict=True))
        }

    def last_step(self, family: str) -> int:
        """Return the step of the family's last sample, -1 where there is none."""
        table = self.history.tables.get(family)
        if table is None:
            return -1
        high = int(table.steps[: table.count].searchsorted(self.step, side="right"))
        return int(table.steps[high - 1]) if high else -1

    def _after(self, span: int | None) -> int:
        return max(self.since, self.step - min(span or KEPT_STEPS, KEPT_STEPS))
