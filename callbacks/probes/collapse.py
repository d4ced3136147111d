"""Collapse: the effective ranks of a few layers a sample, in turns, since each is a decomposition."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..measures.activations import unit_dimension
from ..measures.effective_rank import effective_rank, sampled_rows

ROWS = ((100_000_000, 512), (10_000_000, 256), (1_000_000, 128), (0, 64))
"""Parameters of a model, and rows of an output that are looked at: 64 take 0.2 ms to decompose,
128 0.7, 256 3.2 and 512 18 (CPU, one thread), which a larger model's step does not feel."""
MOST = 8
"""Layers of full size in a sample; smaller ones are cheaper by the cube of their size."""
PAUSE = 8
"""One sample in so many looks at ranks at all."""


class Ranks:
    """Whose turn it is, the rows that were seen, and the ranks of a sample.

    On a GPU a decomposition would make the host wait. There the rows are copied in the background,
    and the rank stands in the sample after the one that it was taken in.

    Args:
        parameters: of the model, in all; how many rows are looked at follows from it.
    """

    def __init__(self, parameters: int) -> None:
        self.rows = next(rows for least, rows in ROWS if parameters >= least)
        self._sizes: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._turn: set[int] = set()
        self._rows: dict[int, Tensor] = {}
        self._copies: list[tuple[int, Tensor, torch.cuda.Event]] = []
        self._samples = 0

    def begin(self) -> None:
        """Choose the layers of a sample: those that were seen longest ago."""
        self._rows.clear()
        self._samples += 1
        self._turn = set()
        if self._samples % PAUSE != 2:  # in the first one nobody knows the layers' sizes yet
            return
        left = MOST * self.rows**3
        for row in sorted(self._sizes, key=lambda row: self._seen.get(row, 0)):
            left -= self._sizes[row] ** 3
            if left >= 0:
                self._turn.add(row)

    def see(self, row: int, output: Tensor, channels_first: bool) -> None:
        """Take rows of a layer's output, where it is its turn; else note its size, once."""
        if output.ndim < 2 or (row not in self._turn and row in self._sizes):
            return
        dim = 1 if output.ndim == 3 and channels_first else unit_dimension(output.ndim)
        units = output.shape[dim]
        self._sizes[row] = min(self.rows, units, output.numel() // units)
        if row in self._turn and row not in self._rows and self._sizes[row] > 1:
            rows = sampled_rows(output, rows=self.rows, dim=dim)
            # a view would show what an activation in place makes of it
            self._rows[row] = rows.clone() if rows._base is not None else rows
            self._seen[row] = self._samples

    def found(self) -> dict[int, float]:
        """Return the effective ranks that are known by now, by the layers' rows of the table."""
        ranks: dict[int, float] = {}
        waiting = []
        for row, host, copied in self._copies:
            if copied.query():
                ranks[row] = _rank(host)
            else:
                waiting.append((row, host, copied))
        self._copies = waiting
        for row, rows in self._rows.items():
            if rows.device.type == "cpu":
                ranks[row] = _rank(rows)
            elif rows.device.type == "cuda":
                host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
                host.copy_(rows, non_blocking=True)
                copied = torch.cuda.Event()
                copied.record(torch.cuda.current_stream(rows.device))
                self._copies.append((row, host, copied))
        self._rows.clear()
        return ranks


def _rank(rows: Tensor) -> float:
    return effective_rank(rows, rows=len(rows)).item() if len(rows) else math.nan
