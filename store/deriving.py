"""Quantities derived when read: norms, rms, ratios and shares from sums of squares and counts.

Frames hold sufficient statistics, so that shards, ranks and rollups are plain sums; what a person
reads is computed here, once, for the daemon, the page and the export.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from .noise_reading import NEEDS, is_estimated


@dataclass(frozen=True, slots=True)
class Derived:
    """A quantity computed from recorded ones of the same layer. `formula` gets float64 arrays."""

    quantity: str
    needs: tuple[str, ...]
    formula: Callable[..., np.ndarray]
    unit: str = ""


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    # 0/0 is not measured; x/0 is not a ratio either (a zero-initialised bias gives 1e11)
    return np.divide(
        numerator,
        denominator,
        out=np.full(np.broadcast(numerator, denominator).shape, np.nan),
        where=denominator > 0,
    )


def _root_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.sqrt(_ratio(numerator, denominator))


DERIVED: dict[str, tuple[Derived, ...]] = {
    "train": (Derived("grad_norm", ("grad_sq",), np.sqrt),),
    "gradients": (
        Derived("grad_norm", ("grad_sq",), np.sqrt),
        Derived("grad_rms", ("grad_sq", "numel"), _root_ratio),
        Derived("weight_norm", ("weight_sq",), np.sqrt),
        Derived("update_ratio", ("update_sq", "weight_sq"), _root_ratio),
    ),
    "activations": (
        Derived("saturated", ("saturated", "numel"), _ratio),
        Derived("dead", ("dead", "units"), _ratio),
        Derived("rms", ("sum_sq", "numel"), _root_ratio),
        Derived("mean", ("sum", "numel"), _ratio),
    ),
}
"""By family. A derived quantity of a recorded one's name (`saturated`, `dead`: counts) replaces it."""


def written(quantity: str, layer: str | None) -> str:
    """Return the written name of a column.

    >>> written("rms", "features.0"), written("loss", None)
    ('rms/features.0', 'loss')
    """
    return quantity if layer is None else f"{quantity}/{layer}"


@dataclass(frozen=True, slots=True)
class Derivation:
    """One derived quantity of all layers that have it: written names, and where its inputs stand.

    `inputs[i][j]` is the place, in a table of recorded columns, of the i-th need of layer j.
    """

    derived: Derived
    names: list[str]
    inputs: list[list[int]]

    def values(self, table: np.ndarray) -> np.ndarray:
        """Return float32[n, layers] of a table float32[n, c] of recorded columns."""
        return self._of([_chosen(table, places) for places in self.inputs])

    def bounds(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return bounds of the derived columns, from the extremes of the recorded ones.

        Every formula rises or falls in each of its inputs, so its extremes lie where each input has
        one of its own. With several inputs they are bounds and no extremes: those need not have had
        theirs at the same step.
        """
        sides: list[list[np.ndarray]] = []
        for places in self.inputs:
            lowest, highest = _chosen(low, places), _chosen(high, places)
            same = np.array_equal(lowest, highest)  # a count that does not change
            sides.append([lowest] if same else [lowest, highest])
        found = [self._of(corner) for corner in product(*sides)]
        if len(found) == 1:
            return found[0], found[0]
        return np.fmin.reduce(found), np.fmax.reduce(found)

    def _of(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            return self.derived.formula(*inputs).astype(np.float32)


def _chosen(table: np.ndarray, places: Sequence[int]) -> np.ndarray:
    return table[:, places].astype(np.float64)


def derivations(
    family: str, layers: Sequence[str | None], recorded: Sequence[str]
) -> list[Derivation]:
    """Return what can be derived of recorded columns, given by their written names.

    A derived column exists where all that it needs was recorded for its layer.
    """
    places = {name: i for i, name in enumerate(recorded)}
    found: list[Derivation] = []
    for derived in DERIVED.get(family, ()):
        had = [
            layer
            for layer in layers
            if all(written(need, layer) in places for need in derived.needs)
        ]
        if had:
            inputs = [[places[written(need, layer)] for layer in had] for need in derived.needs]
            found.append(Derivation(derived, [written(derived.quantity, x) for x in had], inputs))
    return found


def needs(family: str, quantity: str) -> tuple[str, ...]:
    """Return the recorded quantities behind a quantity: itself where it is not derived.

    >>> needs("gradients", "update_ratio")
    ('update_sq', 'weight_sq')
    """
    for derived in DERIVED.get(family, ()):
        if derived.quantity == quantity:
            return derived.needs
    if is_estimated(family, [quantity]):
        return NEEDS
    return (quantity,)
