"""Overlay: tables of several ranks become one, each column combined as its schema says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .blocks import Block, empty_block
from .schemas import Column


def combine_ranks(
    ranks: Mapping[int, Block],
    recorded: Sequence[Column],
    *,
    plain: bool,
    ends: Mapping[int, int] | None = None,
) -> Block:
    """Return one table of all ranks of an attempt, each column combined as its schema says.

    `sum` and `mean` are NaN at a step that a rank which was running did not report: a part of
    a sum would be a wrong number. With `plain`, one rank's columns keep their own names. Of rolled
    up rows, `low` and `high` are combined like the values: bounds, since the ranks need not have
    had their extremes at the same step.

    `ends` names, for a family that is not sampled in every step, the last step of each rank that
    samples it: up to there the rank was running, although it has no rows there.
    """
    ends = ends or {}
    live = {rank: block for rank, block in sorted(ranks.items()) if len(block)}
    each = [column for column in recorded if column.ranks == "each" and not plain]
    names = [column.name for column in recorded if column not in each]
    names += [f"{column.name}@{rank}" for column in each for rank in live]
    if not live:
        return empty_block(names)
    if len(live) == 1 and not set(ends) - set(live):
        block = next(iter(live.values()))
        if names == block.columns:
            return block
        order = [block.columns.index(column.name) for column in recorded if column not in each]
        order += [block.columns.index(column.name) for column in each]
        made = block.with_tables([table[:, order] for table in block.tables], names)
        one = block.counts is None or block.counts.shape[1] == 1
        made.counts = block.counts if block.counts is None or one else block.counts[:, order]
        return made
    steps = np.unique(np.concatenate([block.steps for block in live.values()]))
    rolled = any(block.rolled for block in live.values())
    silent = sorted(set(ends) - set(live))
    shape = (len(live) + len(silent), len(steps), len(recorded))
    cubes = [np.full(shape, np.nan, np.float32) for _ in range(3 if rolled else 1)]
    times = np.full(shape[:2], np.nan)
    counts = np.zeros(shape, np.int64)
    running = np.zeros(shape[:2], bool)
    for i, block in enumerate(live.values()):
        rows = np.searchsorted(steps, block.steps)
        for cube, table in zip(cubes, (block.values, block.low, block.high), strict=False):
            cube[i, rows] = table
        times[i, rows] = block.times
        counts[i, rows] = 1 if block.counts is None else block.counts
        running[i] = (steps >= block.steps[0]) & (steps <= block.steps[-1])
    for i, rank in enumerate([*live, *silent]):
        running[i] |= steps <= ends.get(rank, -1)
    tables = [_combined(cube, running, recorded, each, len(live)) for cube in cubes]
    bare = Block.of(steps, np.nanmin(times, axis=0), tables[0], names)
    made = bare.with_tables(tables)
    if rolled:
        kept = [recorded.index(column) for column in recorded if column not in each]
        own = [counts[i, :, recorded.index(column)] for column in each for i in range(len(live))]
        made.counts = np.column_stack([counts.max(axis=0)[:, kept], *own])
    return made


def _combined(
    cube: np.ndarray,
    running: np.ndarray,
    recorded: Sequence[Column],
    each: Sequence[Column],
    live: int,
) -> np.ndarray:
    """Combine float32[ranks, n, recorded] to float32[n, columns of the answer]."""
    joined = [
        _combine(cube[:, :, j], running, column.ranks)
        for j, column in enumerate(recorded)
        if column not in each
    ]
    joined += [cube[i, :, recorded.index(column)] for column in each for i in range(live)]
    values = np.stack(joined, axis=1) if joined else np.empty((cube.shape[1], 0), np.float32)
    return values.astype(np.float32)


def _combine(values: np.ndarray, running: np.ndarray, how: str) -> np.ndarray:
    """Combine float32[ranks, n] to float32[n]."""
    if how in ("sum", "mean"):
        with np.errstate(invalid="ignore"):
            total = np.where(running, values, 0.0).astype(np.float64).sum(axis=0)
        return total if how == "sum" else total / np.maximum(running.sum(axis=0), 1)
    if how in ("min", "max"):
        return np.fmin.reduce(values) if how == "min" else np.fmax.reduce(values)
    first = np.argmax(~np.isnan(values), axis=0)  # the lowest rank that has a value
    return values[first, np.arange(values.shape[1])]
