"""One layer under watch: the sums over its outputs, and which of its units never fired."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import torch

from ...store import Column
from ..measures.activations import dead_units, unit_dimension

ENOUGH_SAMPLES = 512
"""A unit is called dead only if it was never positive over this many samples."""

RELU_LIKE = ("relu", "relu6")
OUTPUT = ("numel", "non_finite", "sum", "sum_sq", "absmax")
ACTIVATION = ("numel", "samples", "saturated")
FIRED = ("units", "dead")

Masks = dict[tuple[int, int], torch.Tensor]
"""Which units were dead, by the dimensions and the size of the output that they were seen in."""


@dataclass(slots=True)
class Watched:
    """A module, or the call of a function in one, and the row of the buffers that is its own."""

    path: str
    row: int
    kind: str | None
    """Of the activation; None for a layer with weights."""
    low: float | None = None
    high: float | None = None
    inplace: bool = False
    units: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    peak: float = 0.0
    now: Masks = field(default_factory=dict)
    window: deque[tuple[int, Masks]] = field(default_factory=deque)

    def clear(self) -> None:
        """Begin a sample."""
        self.now, self.batch = {}, 0
        self.sums, self.peak = [0.0] * 4, 0.0

    def add(self, *numbers: float) -> None:
        """Add to the sums of the sample."""
        self.sums = [a + b for a, b in zip(self.sums, numbers, strict=True)]

    @property
    def fires(self) -> bool:
        """Whether it has units that can be dead."""
        return self.kind in RELU_LIKE

    @property
    def columns(self) -> list[Column]:
        """Return the columns of its numbers."""
        names = OUTPUT if self.kind is None else ACTIVATION + (FIRED if self.fires else ())
        return [Column.of(name, layer=self.path) for name in names]

    def see_units(self, output: torch.Tensor, channels_first: bool) -> None:
        """Note which units of an output are dead."""
        dim = 1 if output.ndim == 3 and channels_first else unit_dimension(output.ndim)
        dead = dead_units(output.detach(), dim=dim)
        # what is used for outputs of several sizes has units of each
        key = (output.ndim, dead.numel())
        known = self.now.get(key)
        self.now[key] = dead if known is None else known & dead
        self.batch = max(self.batch, output.shape[0])

    def fired(self) -> tuple[float, float, float | torch.Tensor]:
        """Close a sample: samples in the window, units, dead (NaN while there are too few)."""
        if self.now:
            self.units = sum(mask.numel() for mask in self.now.values())
            self.window.append((self.batch, self.now))
        window = self.window
        while window and sum(n for n, _ in window) - window[0][0] >= ENOUGH_SAMPLES:
            window.popleft()
        samples = sum(n for n, _ in window)
        units = float(self.units) if self.units else math.nan
        if samples < ENOUGH_SAMPLES:
            return float(samples), units, math.nan
        together: Masks = {}
        for _, masks in window:
            for key, mask in masks.items():
                together[key] = together[key] & mask if key in together else mask
        counts = [mask.sum() for mask in together.values()]
        if all(count.device.type == "cpu" for count in counts):
            return float(samples), units, float(sum(count.item() for count in counts))
        return float(samples), units, torch.stack(counts).sum().float()
