"""Reducing: many rows become fewer, each of the mean, lowest and highest value."""

from __future__ import annotations

import numpy as np

from .blocks import Block


def reduce_to(block: Block, points: int) -> Block:
    """Return the rows of a table as at least `points` rows where there are as many.

    A row holds the mean of its finite values, weighted by how many each is the mean of, or the
    infinity where there is no other, with the extremes beside it, and the first step that it stands for;
    what is NaN throughout stays NaN.
    """
    size = max(len(block) // points, 1)
    if size == 1:
        return block
    low, high = _grouped(np.fmin, block.low, size), _grouped(np.fmax, block.high, size)
    finite = np.isfinite(block.values)
    counts = np.ones((len(block), 1), np.int64) if block.counts is None else block.counts
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if not finite.all():
            counts = np.where(finite, counts, 0)
        values = np.where(finite, block.values, 0).astype(np.float64)
        count = _grouped(np.add, counts, size)
        total = _grouped(np.add, values * counts, size)
        mean = np.where(count > 0, total / np.maximum(count, 1), low + high)
    rows = slice(None, None, size)
    mean = mean.astype(np.float32)
    return Block(block.steps[rows], block.times[rows], mean, block.columns, low, high, count)


def _grouped(operation: np.ufunc, rows: np.ndarray, size: int) -> np.ndarray:
    """Reduce each `size` rows of [n, c] to one; the last may be of fewer.

    On an array of three dimensions that takes a tenth of what `reduceat` takes.
    """
    whole = len(rows) // size * size
    folded = operation.reduce(rows[:whole].reshape(whole // size, size, rows.shape[1]), axis=1)
    if whole == len(rows):
        return folded
    return np.concatenate([folded, operation.reduce(rows[whole:], axis=0)[None]])
