"""The tail index probe: whether the noise of the gradient has heavy tails, with a caveat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...store import Column
from ..measures import tail_index
from .halves import Halves, Pair
from .probe import Training
from .running import Pool


@dataclass(kw_only=True)
class TailIndex(Halves):
    """The index α of an α-stable law for the gradient's noise: 2 where it is Gaussian, less if heavy.

    The noise is half the difference of the gradients of two half batches (Şimşekli et al. 2019). Ask
    for it by name: `probes=["default", TailIndex()]`.

    **Caveat**: coordinates of unequal scales alone make a Gaussian read 1.10, and those of a network
    are of very unequal scales. A low value is no proof of heavy tails; a change of it during a run
    says more than its value. Off where `Noise` would be: losses that couple samples, sharded
    parameters.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.family = "tail_index"

    @property
    def name(self) -> str:
        return "tailindex"

    def columns(self) -> list[Column]:
        """Return the one column."""
        return [Column.of("tail_index")]

    def measure(self, pool: Pool, training: Training) -> dict[str, float]:
        """Return the index over all parameters; nan where a gradient is not finite."""
        assert isinstance(pool, Pair)
        first, second = self.both(pool)
        noise = [
            (_dense(a) - _dense(b)).reshape(-1) / 2
            for a, b in zip(first, second, strict=True)
            if a is not None and b is not None
        ]
        together = torch.cat(noise)
        if not bool(together.isfinite().all()):
            return {}
        return {"tail_index": float(tail_index(together))}


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient
