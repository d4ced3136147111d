"""Update ratios: how long the optimizer's steps are beside the weights that they change, ‖Δw‖/‖w‖."""

from __future__ import annotations

import numpy as np

from .blocks import Made
from .medians import nan_median
from .tables import Table
from .windows import History

NO_RATIOS = (np.empty(0, dtype=np.int64), np.empty(0))
NO_LAYER_RATIOS = (np.empty(0, dtype=np.int64), np.empty((0, 0)))


def update_ratios(history: History, after: int, upto: int) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and the median over weight layers of ‖Δw‖/‖w‖, where it was measured."""
    table = history.tables.get("gradients")
    if table is None:
        return NO_RATIOS
    low, high = table.between(after, upto)
    found = table.derived("median_ratio", _median_ratio, low, high)
    if found is None:
        return NO_RATIOS
    medians, known = found.values[:, 0], found.values[:, 1] > 0
    return (found.steps, medians) if known.all() else (found.steps[known], medians[known])


def layer_ratios(
    history: History, after: int, upto: int, count: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and ‖Δw‖/‖w‖, [samples, layers], of every weight layer; NaN where unknown.

    Of at most the last `count` samples with after < step <= upto.
    """
    table = history.tables.get("gradients")
    if table is None:
        return NO_LAYER_RATIOS
    low, high = table.between(after, upto)
    low = low if count is None else max(low, high - count)
    found = table.derived("layer_ratio", _layer_ratio, low, high) if high > low else None
    return NO_LAYER_RATIOS if found is None else (found.steps, found.values)


def _layer_ratio(table: Table) -> Made | None:
    updated, names = table.of_layers("update_sq", "weight")
    weighed, others = table.of_layers("weight_sq", "weight")
    if names != others or not names:
        return None

    def make(table: Table, low: int, high: int) -> np.ndarray:
        updates = table.rows[low:high, updated].astype(np.float64)
        weights = table.rows[low:high, weighed].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return np.sqrt(updates / np.where(weights > 0, weights, np.nan))

    return make, len(names)


def _median_ratio(table: Table) -> Made | None:
    """Make the median of each sample's ratios, and 1 where any of them is known."""
    if _layer_ratio(table) is None:
        return None

    def make(table: Table, low: int, high: int) -> np.ndarray:
        found = table.derived("layer_ratio", _layer_ratio, low, high)
        assert found is not None, "the schema is the same"
        ratios = found.values
        return np.stack([nan_median(ratios, axis=1), np.isfinite(ratios).any(axis=1)], axis=1)

    return make, 2
