"""Quantities derived when read: norms, rms, ratios and shares from sums of squares and counts.

Frames hold sufficient statistics, so that shards, ranks and rollups are plain sums; what a person
reads is computed here, once, for the daemon, the page and the export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Values = Mapping[str, np.ndarray]


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


def derive(
    family: str, layers: Sequence[str | None], recorded: Values
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the derived columns of a family and their units, by written name.

    `recorded` maps written names to float arrays of one shape; a derived column exists where all
    that it needs was recorded for its layer.
    """
    made: dict[str, np.ndarray] = {}
    units: dict[str, str] = {}
    for derived in DERIVED.get(family, ()):
        for layer in layers:
            names = [written(need, layer) for need in derived.needs]
            if all(name in recorded for name in names):
                with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
                    inputs = [recorded[name].astype(np.float64) for name in names]
                    name = written(derived.quantity, layer)
                    made[name] = derived.formula(*inputs).astype(np.float32)
                    units[name] = derived.unit
    return made, units


def needs(family: str, quantity: str) -> tuple[str, ...]:
    """Return the recorded quantities behind a quantity: itself where it is not derived.

    >>> needs("gradients", "update_ratio")
    ('update_sq', 'weight_sq')
    """
    for derived in DERIVED.get(family, ()):
        if derived.quantity == quantity:
            return derived.needs
    return (quantity,)
