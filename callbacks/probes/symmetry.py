"""The symmetry probe: whether the units of a layer differ from each other, once training has begun."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ...store import Column, ConfigError
from ..measures.weights import alike_rows, drawn, weighted_modules
from ..norms import stacked
from .probe import Probe, ProbeOffError, Training

ROWS = 64
"""Units of a layer that are compared with each other: 64 × 1,024 numbers take 0.1 ms."""
NUMBERS = 1024
"""Numbers of a row that are looked at."""
FEWEST = 8
"""Rows of fewer numbers are alike by chance."""


class Symmetry(Probe):
    """Share of a layer's units whose weights point where another unit's do, from step 20 on.

    `alike_rows`: of at most 64 units, evenly spaced, those with a cosine over 0.999 to another one.
    What is alike at the first step need not stay so: a last layer of zeros is told apart by its
    classes in one step. What still is at step 20 learns the same for ever. NaN for embeddings and for
    units of fewer than eight weights.
    """

    def __init__(self, every: int = 500) -> None:
        super().__init__(every=every)
        self.family = "symmetry"
        self.weight = 0.1
        self.first = 20  # whatever else is due by then: it takes 0.1 ms a layer, once in 500 steps

    def attach(self, training: Training) -> Sequence[Column]:
        if training.sharded:
            raise ProbeOffError("the parameters are sharded: no rank holds a layer's weights")
        try:
            found = weighted_modules(training.model)
        except ConfigError as error:
            raise ProbeOffError(str(error)) from error
        self._layers: dict[str, nn.Module] = found
        return [Column.of("alike_rows", layer=path) for path in found]

    def sample(self, step: int) -> torch.Tensor:
        shares: list[float | torch.Tensor] = []
        device = torch.device("cpu")
        with torch.no_grad():
            for layer in self._layers.values():
                weights = drawn(layer)
                rows = weights.rows
                if weights.kind == "embedding" or len(rows) < 2 or rows.shape[1] < FEWEST:
                    shares.append(float("nan"))
                    continue
                rows = rows[:: -(-len(rows) // ROWS), :NUMBERS]
                device = rows.device if rows.device.type != "cpu" else device
                shares.append(alike_rows(rows))
            return stacked(shares, device).float()

    def detach(self) -> None:
        self._layers = {}
