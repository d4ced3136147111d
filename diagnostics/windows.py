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
from .blocks import Made
from .rank_windows import MOST_COLUMNS, NO_RANKS, RankSamples, RankTable
from .tables import KEPT_STEPS, NO_SAMPLES, LayerSamples, Samples, Table, combine

NO_LAYERS = LayerSamples(np.empty(0, dtype=np.int64), np.empty((0, 0)), ())


@dataclass
class History:
    """The tables of one attempt, by family; by rank too, where more than one rank writes it."""

    tables: dict[str, Table] = field(default_factory=dict)
    by_rank: dict[str, RankTable] = field(default_factory=dict)
    _lone: dict[str, int] = field(default_factory=dict)
    _made: dict[str, tuple[tuple[Any, ...], Any]] = field(default_factory=dict, repr=False)

    def add(self, frames: Sequence[Frame], schemas: Mapping[str, Schema]) -> None:
        """Take the frames of one family at one step, one a rank, sorted by rank."""
        schema = next((schemas[f.schema] for f in frames if f.schema in schemas), None)
        if schema is None:
            return
        same = [frame for frame in frames if frame.schema == schema.hash]
        table = self.tables.get(schema.family)
        if table is None:
            table = self.tables[schema.family] = Table(schema)
        elif table.schema is not schema and table.schema.hash != schema.hash:
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

    def column(
        self, family: str, name: str, after: int, upto: int, count: int | None = None
    ) -> Samples:
        """Return at most the last `count` samples of a column with after < step <= upto."""
        table = self.tables.get(family)
        if table is None or name not in table.schema.index:
            return NO_SAMPLES
        low, high = table.between(after, upto)
        return table.column(name, low if count is None else max(low, high - count), high)

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
        return column if table is None else table.written(column) or column

    def largest(self, family: str, quantity: str, after: int, upto: int) -> Samples:
        """Return the samples of a quantity with after < step <= upto, of several columns the largest.

        Where a run has several optimizers, each has a column of its own: `edge_ratio/1`.
        """
        table = self.tables.get(family)
        names = [] if table is None else table.named(quantity)
        found = [self.column(family, name, after, upto) for name in names]
        if len(found) <= 1:
            return found[0] if found else NO_SAMPLES
        return Samples(found[0].steps, np.fmax.reduce([samples.values for samples in found]))

    def first_column(self, family: str, quantity: str) -> str | None:
        """Return the written name of a quantity's first column: `lr` is `lr/0.0`."""
        table = self.tables.get(family)
        names = [] if table is None else table.named(quantity)
        return names[0] if names else None

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
        return table.layers(quantity, group, low if count is None else max(low, high - count), high)


def _seeded(table: Table, lone: int | None) -> RankTable:
    """Return a table by rank with the rows that one rank wrote while it was alone."""
    if lone is None:
        return RankTable(table.schema)
    apart = RankTable(table.schema, [lone])
    for row in range(table.count):
        apart.append_values(int(table.steps[row]), {lone: table.rows[row]})
    return apart


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
        table = self.history.tables.get(family)
        if table is None:
            return NO_SAMPLES
        return table.samples(column, self._after(span), self.step, count)

    def rows(
        self, family: str, columns: Sequence[str], after: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return steps int64[n] and columns float64[n, columns] of the samples behind a step.

        `columns` are written names; one that was not recorded is NaN.
        """
        table = self.history.tables.get(family)
        if table is None:
            return NO_SAMPLES.steps, np.empty((0, len(columns)))
        low, high = table.between(max(after, self._after(None)), self.step)
        places = [table.schema.index.get(name, -1) for name in columns]
        found = table.rows[low:high, places].astype(np.float64)
        if -1 in places:
            found[:, [place < 0 for place in places]] = np.nan
        return table.steps_of(low, high), found

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

    def derived(
        self,
        family: str,
        name: str,
        begin: Callable[[Table], Made | None],
        *,
        count: int | None = None,
        span: int | None = None,
    ) -> LayerSamples | None:
        """Return what is made of each of the last samples by itself, and kept; see `Table.derived`."""
        table = self.history.tables.get(family)
        if table is None:
            return None
        low, high = table.between(self._after(span), self.step)
        low = low if count is None else max(low, high - count)
        return table.derived(name, begin, low, high)

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
        if table.latest <= self.step:  # nearly always
            return table.latest
        high = table.between(self.step, self.step)[1]
        return int(table.steps[high - 1]) if high else -1

    def _after(self, span: int | None) -> int:
        return max(self.since, self.step - min(span or KEPT_STEPS, KEPT_STEPS))
