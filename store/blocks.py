"""Blocks: frames, or buckets of them, as one table of recorded columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from .buckets import Bucket
from .schemas import Column, Frame, Schema


@dataclass(slots=True)
class Block:
    """A table: `steps` int64[n] strictly ascending, `times` float64[n], `values` float32[n, c].

    `low` and `high` are of the shape of `values` where a row stands for several frames, and the
    very array `values` where each row is one frame. `counts` is how many finite values a mean is
    of: int64[n, c], int64[n, 1] where all columns agree, None for one each.
    """

    steps: np.ndarray
    times: np.ndarray
    values: np.ndarray
    columns: list[str]
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray | None = None

    @classmethod
    def of(
        cls, steps: np.ndarray, times: np.ndarray, values: np.ndarray, columns: Sequence[str]
    ) -> Block:
        """Return a table whose rows are single frames."""
        return cls(steps, times, values, list(columns), values, values)

    @property
    def rolled(self) -> bool:
        """Whether a row may stand for several frames."""
        return self.low is not self.values

    @property
    def tables(self) -> tuple[np.ndarray, ...]:
        """Values alone, or values, low and high where they differ."""
        return (self.values, self.low, self.high) if self.rolled else (self.values,)

    def with_tables(
        self, tables: Sequence[np.ndarray], columns: Sequence[str] | None = None
    ) -> Block:
        """Return the same rows with other tables, without counts: values, or those, low and high."""
        values, low, high = (tables[0], tables[0], tables[0]) if len(tables) == 1 else tables
        names = list(self.columns if columns is None else columns)
        return Block(self.steps, self.times, values, names, low, high)

    def __len__(self) -> int:
        return len(self.steps)


def empty_block(columns: Sequence[str]) -> Block:
    """Return a table without rows."""
    none = np.empty((0, len(columns)), np.float32)
    return Block.of(np.empty(0, np.int64), np.empty(0, np.float64), none, columns)


def frames_block(
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
        rows = _joined([frame.values for frame in group])
        _place(values[row : row + len(rows)], rows, schemas[name], names)
        row += len(rows)
    steps = np.array([frame.step for frame in frames], np.int64)
    times = np.array([frame.time for frame in frames], np.float64)
    last = np.append(steps[1:] != steps[:-1], True)
    if last.all():
        return Block.of(steps, times, values, names)
    return Block.of(steps[last], times[last], values[last], names)


def buckets_block(
    buckets: Sequence[Bucket], schemas: Mapping[str, Schema], recorded: Sequence[Column]
) -> Block:
    """Return one rank's buckets as a table of the asked columns, at the steps they begin with."""
    names = [column.name for column in recorded]
    widths = {name: len(schema.columns) for name, schema in schemas.items()}
    buckets = [item for item in buckets if widths.get(item.schema) == item.values.shape[1]]
    if not buckets:
        return empty_block(names)
    tables = np.full((3, len(buckets), len(names)), np.nan, np.float32)
    row = 0
    for (name, height), group in groupby(buckets, key=lambda b: (b.schema, len(b.values))):
        rows = _joined([bucket.values for bucket in group])
        part = rows.reshape(-1, height, rows.shape[1] // height)
        for table, place in zip(tables, (height // 2, 0, height - 1), strict=True):
            _place(table[row : row + len(part)], part[:, place], schemas[name], names)
        row += len(part)
    return Block(
        np.array([bucket.first for bucket in buckets], np.int64),
        np.array([bucket.time for bucket in buckets], np.float64),
        tables[0],
        names,
        tables[1],
        tables[2],
        _counts(buckets, schemas, names),
    )


def joined(blocks: Sequence[Block]) -> Block:
    """Return the rows of tables one behind the other; columns that one lacks are NaN there."""
    blocks = [block for block in blocks if len(block)] or list(blocks[:1])
    if len(blocks) <= 1:
        return blocks[0] if blocks else empty_block([])
    names = list(dict.fromkeys(name for block in blocks for name in block.columns))
    rolled = any(block.rolled for block in blocks)
    size = sum(len(block) for block in blocks)
    tables = [np.full((size, len(names)), np.nan, np.float32) for _ in range(3 if rolled else 1)]
    row = 0
    for block in blocks:
        places = [names.index(name) for name in block.columns]
        sources = (block.values, block.low, block.high)
        for table, source in zip(tables, sources, strict=False):
            if block.columns == names:
                table[row : row + len(block)] = source
            else:
                table[row : row + len(block), places] = source
        row += len(block)
    counts = None
    if rolled:
        parts = [np.ones((len(b), 1), np.int64) if b.counts is None else b.counts for b in blocks]
        width = max(part.shape[1] for part in parts)
        counts = np.concatenate([np.broadcast_to(part, (len(part), width)) for part in parts])
    bare = Block.of(
        np.concatenate([block.steps for block in blocks]),
        np.concatenate([block.times for block in blocks]),
        tables[0],
        names,
    )
    made = bare.with_tables(tables)
    made.counts = counts
    return made


def _joined(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays of one shape as the rows of float32[k, size]; a quarter of np.stack's time."""
    data = b"".join([np.ascontiguousarray(row, np.float32).data for row in rows])
    return np.frombuffer(data, np.float32).reshape(len(rows), -1)


def _counts(
    buckets: Sequence[Bucket], schemas: Mapping[str, Schema], names: Sequence[str]
) -> np.ndarray:
    """Return how many finite values each mean is of: int64[n, c], or int64[n, 1] of one number."""
    if all(isinstance(bucket.n, int) for bucket in buckets):
        return np.array([bucket.n for bucket in buckets], np.int64)[:, None]
    counts = np.zeros((len(buckets), len(names)), np.int64)
    for row, bucket in zip(counts, buckets, strict=True):
        index = schemas[bucket.schema].index
        there = [i for i, name in enumerate(names) if name in index]
        own = np.broadcast_to(bucket.n, bucket.values.shape[1])
        row[there] = own[[index[names[i]] for i in there]]
    return counts


def _place(table: np.ndarray, rows: np.ndarray, schema: Schema, names: Sequence[str]) -> None:
    """Write the asked columns of rows of a schema into a table of them."""
    if schema.names == names:
        table[:] = rows
        return
    index = schema.index
    there = [i for i, name in enumerate(names) if name in index]
    if there:
        table[:, there] = rows[:, [index[names[i]] for i in there]]
