"""Reducing: many samples become buckets of mean, lowest and highest value."""

from __future__ import annotations

import numpy as np

from .overlay import Block
from .schemas import Series


def reduce_to(block: Block, points: int) -> Series:
    """Return the rows as a Series of at least `points` rows where there are as many.

    A bucket holds the mean of its finite-or-infinite values with the extremes beside it, and
    the first step of the bucket; what is NaN throughout stays NaN.
    """
    size = max(len(block.steps) // points, 1)
    if size == 1:
        values = block.values
        return Series(block.steps, block.times, values, values, values, block.columns)
    first = np.arange(0, len(block.steps), size)
    values = block.values
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = np.add.reduceat(np.where(there, values, 0).astype(np.float64), first, axis=0)
        count = np.add.reduceat(there, first, axis=0, dtype=np.int64)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
        low = np.fmin.reduceat(values, first, axis=0)
        high = np.fmax.reduceat(values, first, axis=0)
    return Series(block.steps[first], block.times[first], mean, low, high, block.columns)
