"""Landscape: the loss along the last update, and how far its quadratic model holds there."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ...store import Column
from ..measures import horizon, step_position
from .probe import Training
from .running import PRODUCT, Pool, Running, dot

MULTIPLES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Multiples of the update at which the loss is scanned."""


@dataclass(kw_only=True)
class Landscape(Running):
    """A scan of the loss along the last update, on a pool of fresh training batches.

    The update is the real one, from the weights that the step began with to those behind it, as
    clipping, momentum and schedule made it. `scan_0` … `scan_7`: the pool's loss after 0, 1/4, 1/2,
    1, 2, 4, 8 and 16 times the update (forward passes only). `slope` and `curvature_along`: the
    first and second derivative along it where the step began, by one Hessian product. `alpha`:
    where the step lands, -1 no progress, 0 the valley's floor, 1 the other side at equal height,
    clipped to [-1, 3]; nan uphill, which `uphill` counts (1 or 0). `horizon`: the largest scanned
    multiple up to which the quadratic holds, 16 where all do. A single alpha says little: judge
    medians of five scans or more.

    All are nan where the weights did not move (a learning rate of 0, a step that a loss scaler
    skipped). Rank 0, the raw module, float32, dropout off. Memory: some six copies of the weights
    while it samples (`benchmarks/looking.py`), and the graph of one batch for one product.
    """

    first: int = 30
    """Step of the first sample."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.family, self.weight, self.guess = "landscape", 1.0, 20.0

    def work(self) -> float:
        """Return what a sample takes, in gradients of the pool: a gradient, a product, the scan."""
        return 1 + PRODUCT + (len(MULTIPLES) - 1) / 3

    def columns(self) -> list[Column]:
        """Return alpha, horizon, uphill, the scan, slope and curvature."""
        names = ["alpha", "horizon", "uphill", *(f"scan_{i}" for i in range(len(MULTIPLES)))]
        return [Column.of(name) for name in [*names, "slope", "curvature_along"]]

    def measure(self, pool: Pool, training: Training) -> dict[str, float]:
        """Return the scan and what it says."""
        delta = pool.update()
        if delta is None:
            raise RuntimeError("the step's update is not known: the probe was not armed before it")
        if not bool(delta.any()):
            return {}
        pool.begin()
        along = [_along(pool, batch, delta) for batch in range(len(pool))]
        loss, slope, curvature = (sum(part) / len(along) for part in zip(*along, strict=True))
        losses = [loss]
        if not (math.isfinite(slope) and math.isfinite(curvature)):
            raise FloatingPointError("the curvature along the update is not finite")
        for multiple in MULTIPLES[1:]:
            pool.move(delta, multiple)
            losses.append(pool.loss())
        found = {f"scan_{i}": loss for i, loss in enumerate(losses)}
        found |= {"slope": slope, "curvature_along": curvature, "uphill": float(slope >= 0)}
        found["alpha"] = step_position(slope, curvature)
        found["horizon"] = min(horizon(MULTIPLES, losses, slope, curvature), MULTIPLES[-1])
        return found


def _along(pool: Pool, batch: int, delta: Tensor) -> tuple[float, float, float]:
    """Return a batch's loss, and its first and second derivative along a direction."""
    with pool.hessian(batch) as hessian:
        slope = dot(hessian.gradient, delta)
        hessian.gradients.clear()
        return hessian.losses[0], slope, dot(hessian(delta), delta)
