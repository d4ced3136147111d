"""Reducing: many samples become rows of mean, lowest and highest value."""

from __future__ import annotations

import numpy as np

from .blocks import Block
from .schemas import Series


def reduce_to(block: Block, points: int) -> Series:
    """Return the rows as a Series of at least `points` rows where there are as many.

    A row holds the mean of its finite values, or the infinity where there is no other, with the
    extremes beside it, and the first step that it stands for; what is NaN throughout stays NaN.
    """
    size = max(len(block) // points, 1)
    if size == 1:
        return Series(block.steps, block.times, block.values, block.low, block.high, block.columns)
    first = np.arange(0, len(block), size)
    values, low, high = (np.asarray(table) for table in (block.values, block.low, block.high))
    there = np.isfinite(values)
    weights = np.ones(len(block), np.int64) if block.frames is None else block.frames
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        wide = np.where(there, values, 0).astype(np.float64) * weights[:, None]
        total = np.add.reduceat(wide, first, axis=0)
        count = np.add.reduceat(there * weights[:, None], first, axis=0, dtype=np.int64)
        low = np.fmin.reduceat(low, first, axis=0)
        high = np.fmax.reduceat(high, first, axis=0)
        mean = np.where(count > 0, total / np.maximum(count, 1), low + high).astype(np.float32)
    return Series(block.steps[first], block.times[first], mean, low, high, block.columns)
