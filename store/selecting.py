"""Selecting: which recorded columns a question needs, and what is derived from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .blocks import Block
from .deriving import DERIVED, Derived, derivations, written
from .noise_reading import NEEDS, is_estimated
from .schemas import Column, Schema


@dataclass(slots=True)
class Selection:
    """The answer's columns: `recorded` is what to fetch, `wanted` what to show, None for all."""

    family: str
    recorded: list[Column]
    layers: list[str | None]
    wanted: list[str] | None

    def derive(self, block: Block) -> Block:
        """Return the block with its derived columns, cut to what was asked for."""
        found = derivations(self.family, self.layers, block.columns)
        made = [name for one in found for name in one.names]
        # a derived share replaces the count of the same name
        names = list(dict.fromkeys([*block.columns, *made]))
        if self.wanted is not None:
            places = self._places(names)
            names = sorted(places, key=places.__getitem__)
        asked = set(names)
        found = [one for one in found if asked.intersection(one.names)]
        made = [name for one in found for name in one.names]
        if names == block.columns and not made:
            return block
        tables = list(block.tables)
        parts = [[table] for table in tables]
        for one in found:
            parts[0].append(one.values(tables[0]))
            if block.rolled:
                for part, bound in zip(parts[1:], one.bounds(*tables[1:]), strict=True):
                    part.append(bound)
        where = {name: i for i, name in enumerate([*block.columns, *made])}  # the last one counts
        order = [where[name] for name in names]
        return block.with_tables([np.hstack(part)[:, order] for part in parts], names)

    def _places(self, names: Sequence[str]) -> dict[str, int]:
        """Return the asked columns with their place in the question."""
        wanted = {name: i for i, name in enumerate(self.wanted or [])}
        quantities = self._quantities()
        places: dict[str, int] = {}
        for name in names:
            candidates = (name, name.partition("@")[0], quantities.get(name))
            found = [wanted[item] for item in candidates if item in wanted]
            if found:
                places[name] = found[0]
        return places

    def _quantities(self) -> dict[str, str]:
        """Return the quantity of each per-layer column, told by schema, never by its name."""
        known = {column.name: column.quantity for column in self.recorded if column.layer}
        for derived in DERIVED.get(self.family, ()):
            for layer in self.layers:
                if layer is not None:
                    known[written(derived.quantity, layer)] = derived.quantity
        return known


def select(family: str, schemas: Sequence[Schema], columns: Sequence[str] | None) -> Selection:
    """Return what to fetch for the asked columns of a family, over all of its schemas."""
    known: dict[str, Column] = {}
    for schema in schemas:
        known |= {column.name: column for column in schema.columns if column.name not in known}
    layers = list(dict.fromkeys(column.layer for column in known.values()))
    if columns is None:
        return Selection(family, list(known.values()), layers, None)
    asked = set(columns)
    asked |= {name.partition("@")[0] for name in columns if name not in known}
    needed: set[str] = {name for name, column in known.items() if {name, column.quantity} & asked}
    for derived in DERIVED.get(family, ()):
        for layer in layers:
            if {written(derived.quantity, layer), derived.quantity} & asked:
                needed |= _inputs(derived, layer) & set(known)
    if is_estimated(family, list(columns)):
        needed |= set(NEEDS) & set(known)
    recorded = [column for name, column in known.items() if name in needed]
    kept = list(dict.fromkeys(column.layer for column in recorded))
    return Selection(family, recorded, kept, list(columns))


def _inputs(derived: Derived, layer: str | None) -> set[str]:
    return {written(need, layer) for need in derived.needs}
