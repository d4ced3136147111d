"""Reading the noise family: beside the squared norms, what they say of the noise scale by each row.

The estimate at a step is made of that step's sample and those before it, so that a question that begins
in the middle of a run reads some of what lies before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .blocks import Block
from .noise import noise_series
from .schemas import StreamName
from .tiers import RAW, Extents

FAMILY = "noise"
NEEDS = ("small_sq", "big_sq", "small", "big")
ESTIMATES = ("noise_scale", "low", "high", "gradient_sq", "trace")
"""In the order of NoiseEstimate."""

MEMORY = 1000
"""Samples before a step that the estimate there is read from; those before them count 4e-5 of it."""
ROWS = 4096
"""Rows that estimates are made of where raw has them, however few are asked for: an interval from
buckets is wider, and would change with the width of a chart."""


def is_estimated(family: str, columns: list[str] | None) -> bool:
    """Tell whether a question is about estimates.

    >>> is_estimated("noise", None), is_estimated("noise", ["big"]), is_estimated("train", None)
    (True, False, False)
    """
    return family == FAMILY and (columns is None or not set(ESTIMATES).isdisjoint(columns))


def steps_before(held: Mapping[StreamName, Extents]) -> int:
    """Return how many steps MEMORY samples take, by how dense raw is at the most."""
    found = [extents[RAW] for extents in held.values()]
    dense = [e.rows / (e.last - e.first + 1) for e in found if e and e.rows]
    return math.ceil(MEMORY / min(dense)) if dense else 0


def with_estimates(block: Block, whole: Block, behind: int, points: int) -> Block:
    """Return a table with the columns ESTIMATES; `block` is `whole[behind:]` reduced to `points`.

    A row that stands for several gets the estimate of the last of them, and the lowest and highest
    beside it. Without all of NEEDS nothing is added.
    """
    if not len(block) or not set(NEEDS) <= set(whole.columns):
        return block
    places = [whole.columns.index(name) for name in NEEDS]
    counts = np.ones((1, 1)) if whole.counts is None else whole.counts
    if counts.shape[-1] > 1:
        counts = counts[:, places].min(axis=1)
    series = noise_series(*whole.values[:, places].T, counts=counts.reshape(-1))
    table = np.column_stack(series)[behind:].astype(np.float32)
    size = max(len(table) // points, 1)
    firsts = np.arange(len(block)) * size
    lasts = np.minimum(firsts + size, len(table)) - 1
    columns = [*block.columns, *ESTIMATES]
    parts = [table[lasts]]
    if block.rolled:
        parts += [f.reduceat(table, firsts, axis=0) for f in (np.fmin, np.fmax)]
    tables = [np.hstack(pair) for pair in zip(block.tables, parts, strict=True)]
    return block.with_tables(tables, columns)
