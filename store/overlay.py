"""Overlay: frames of several schemas, ranks and attempts become one table of recorded columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from .schemas import Column, Frame, Schema


@dataclass(slots=True)
class Block:
    """A table: `steps` int64[n] strictly ascending, `times` float64[n], `values` float32[n, c]."""

    steps: np.ndarray
    times: np.ndarray
    values: np.ndarray
    columns: list[str]

    def before(self, step: int) -> Block:
        """Return the rows before a step."""
        end = int(np.searchsorted(self.steps, step))
        return Block(self.steps[:end], self.times[:end], self.values[:end], self.columns)


def empty_block(columns: Sequence[str]) -> Block:
    """Return a table without rows."""
    return Block(
        np.empty(0, np.int64),
        np.empty(0, np.float64),
        np.empty((0, len(columns)), np.float32),
        list(columns),
    )


def to_block(
    frames: Sequence[Frame], schemas: Mapping[str, Schema], recorded: Sequence[Column]
) -> Block:
    """Return one rank's frames as a table of the asked columns; what a frame lacks is NaN.

    Of several frames of one step the last counts. Frames of an unknown schema, or with more or
    fewer numbers than theirs has columns, are left out.
    """
    names = [column.name for column in recorded]
    widths = {name: len(schema.columns) for name, schema in schemas.items()}
    frames = [frame for frame in frames if widths.get(frame.schema) == len(frame.values)]
    if not frames:
        return empty_block(names)
    values = np.full((len(frames), len(names)), np.nan, np.float32)
    row = 0
    for name, group in groupby(frames, key=lambda frame: frame.schema):
        matrix = np.stack([frame.values for frame in group])
        index = schemas[name].index
        there = [i for i, column in enumerate(names) if column in index]
        if there:
            values[row : row + len(matrix), there] = matrix[:, [index[names[i]] for i in there]]
        row += len(matrix)
    steps = np.array([frame.step for frame in frames], np.int64)
    times = np.array([frame.time for frame in frames], np.float64)
    last = np.append(steps[1:] != steps[:-1], True)
    return Block(steps[last], times[last], values[last], names)


def combine_ranks(ranks: Mapping[int, Block], recorded: Sequence[Column], *, plain: bool) -> Block:
    """Return one table of all ranks of an attempt, each column combined as its schema says.

    `sum` and `mean` are NaN at a step that a rank which was running did not report: a part of
    a sum would be a wrong number. With `plain`, one rank's columns keep their own names.
    """
    live = {rank: block for rank, block in sorted(ranks.items()) if len(block.steps)}
    each = [column for column in recorded if column.ranks == "each" and not plain]
    names = [column.name for column in recorded if column not in each]
    names += [f"{column.name}@{rank}" for column in each for rank in live]
    if not live:
        return empty_block(names)
    if len(live) == 1:
        block = next(iter(live.values()))
        order = [block.columns.index(column.name) for column in recorded if column not in each]
        order += [block.columns.index(column.name) for column in each]
        return Block(block.steps, block.times, block.values[:, order], names)
    steps = np.unique(np.concatenate([block.steps for block in live.values()]))
    cube = np.full((len(live), len(steps), len(recorded)), np.nan, np.float32)
    times = np.full((len(live), len(steps)), np.nan)
    running = np.zeros((len(live), len(steps)), bool)
    for i, block in enumerate(live.values()):
        rows = np.searchsorted(steps, block.steps)
        cube[i, rows] = block.values
        times[i, rows] = block.times
        running[i] = (steps >= block.steps[0]) & (steps <= block.steps[-1])
    joined = [
        _combine(cube[:, :, j], running, column.ranks)
        for j, column in enumerate(recorded)
        if column not in each
    ]
    joined += [cube[i, :, recorded.index(column)] for column in each for i in range(len(live))]
    values = np.stack(joined, axis=1) if joined else np.empty((len(steps), 0), np.float32)
    return Block(steps, np.nanmin(times, axis=0), values.astype(np.float32), names)


def _combine(values: np.ndarray, running: np.ndarray, how: str) -> np.ndarray:
    """Combine float32[ranks, n] to float32[n]."""
    if how in ("sum", "mean"):
        whole = np.where(running, values, 0.0).astype(np.float64)
        total = whole.sum(axis=0)
        return total if how == "sum" else total / np.maximum(running.sum(axis=0), 1)
    if how in ("min", "max"):
        return np.fmin.reduce(values) if how == "min" else np.fmax.reduce(values)
    first = np.argmax(~np.isnan(values), axis=0)  # the lowest rank that has a value
    return values[first, np.arange(values.shape[1])]


def overlay_attempts(blocks: Sequence[Block]) -> Block:
    """Return one table of all attempts: from its first step on, a later attempt replaces earlier.

    A run that resumes at step 500 after it had reached 550 shows the new steps alone: what the
    old attempt did beyond 500 is no longer part of the weights.
    """
    blocks = [block for block in blocks if len(block.steps)] or list(blocks[:1])
    if len(blocks) <= 1:
        return blocks[0] if blocks else empty_block([])
    names = list(dict.fromkeys(name for block in blocks for name in block.columns))
    kept: list[Block] = []
    for i, block in enumerate(blocks):
        cut = min((int(later.steps[0]) for later in blocks[i + 1 :]), default=None)
        kept.append(block if cut is None else block.before(cut))
    values = np.full((sum(len(b.steps) for b in kept), len(names)), np.nan, np.float32)
    row = 0
    for block in kept:
        places = [names.index(name) for name in block.columns]
        values[row : row + len(block.steps), places] = block.values
        row += len(block.steps)
    return Block(
        np.concatenate([block.steps for block in kept]),
        np.concatenate([block.times for block in kept]),
        values,
        names,
    )
