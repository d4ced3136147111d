"""Density: how the eigenvalues of the Hessian lie, by stochastic Lanczos quadrature; only on request."""

from __future__ import annotations

from dataclasses import dataclass

from ...store import Column, ConfigError
from ..measures import lanczos_density
from .probe import Training
from .running import PRODUCT, Pool, Running

POINTS = 128
"""Heights of the density over its range: what a chart can show."""


@dataclass(kw_only=True)
class Density(Running):
    """The spectral density of the loss's Hessian, on a pool of fresh training batches.

    `density_0` … `density_127` at evenly spaced eigenvalues from `grid_low` to `grid_high`, its
    integral 1, each eigenvalue blurred by about a hundredth of their range; `trace`, the sum of all
    eigenvalues, and its standard error `trace_error` over the random vectors. A sample takes
    `vectors` × `steps` Hessian products, about three gradients of the pool each: in no set of
    probes, ask for it by `probes=["default", Density(every=1000)]`.

    Rank 0, the raw module, float32, dropout off. Source: Ghorbani, Krishnan and Xiao 2019.
    """

    first: int = 50
    """Step of the first sample."""
    vectors: int = 1
    steps: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vectors < 1 or self.steps < 1:
            raise ConfigError(
                "vectors and steps must be at least 1, got "
                f"vectors={self.vectors}, steps={self.steps}"
            )
        self.family, self.weight, self.guess = "density", 2.0, 200.0

    def work(self) -> float:
        """Return what a sample takes, in gradients of the pool."""
        return 1 + PRODUCT * self.vectors * self.steps

    def columns(self) -> list[Column]:
        """Return the range, the heights and the trace."""
        heights = [f"density_{i}" for i in range(POINTS)]
        names = ["grid_low", "grid_high", *heights, "trace", "trace_error"]
        return [Column.of(name) for name in names]

    def measure(self, pool: Pool, training: Training) -> dict[str, float]:
        """Return the density at the weights that the step began with."""
        pool.begin()
        with pool.hessian() as hessian:
            like = hessian.gradient
            hessian.gradients.clear()  # their memory is for the vectors of Lanczos
            found = lanczos_density(
                hessian, like, probes=self.vectors, steps=self.steps, points=POINTS
            )
        heights = {f"density_{i}": value for i, value in enumerate(found.density.tolist())}
        return heights | {
            "grid_low": float(found.grid[0]),
            "grid_high": float(found.grid[-1]),
            "trace": found.trace,
            "trace_error": found.trace_error,
        }
