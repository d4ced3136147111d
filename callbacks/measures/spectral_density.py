"""Spectral density: how the eigenvalues of a Hessian lie, without any of them being computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...store import ConfigError
from .hessian import Hessian, Method
from .lanczos import lanczos

_WIDTH = 0.01
"""Standard deviation of the smoothing over the range of the spectrum."""


@dataclass(frozen=True, slots=True)
class Density:
    """The density of the eigenvalues of a symmetric operator of size d.

    `density` float64[n] at the eigenvalues `grid` float64[n], ascending and evenly spaced; its
    integral is 1, so that density × d × Δλ eigenvalues lie in an interval Δλ. Each eigenvalue is
    blurred by a normal law of standard deviation `width`. `trace` is the sum of all eigenvalues
    and `trace_error` its standard error over the probes (nan for a single one).
    """

    grid: Tensor
    density: Tensor
    trace: float
    width: float
    trace_error: float


def spectral_density(
    loss: Callable[[], Tensor],
    parameters: Iterable[Tensor],
    *,
    probes: int = 4,
    steps: int = 40,
    generator: torch.Generator | None = None,
    points: int = 1024,
    method: Method = "auto",
) -> Density:
    """Return the density of the eigenvalues of a loss's Hessian, by stochastic Lanczos quadrature.

    `loss` and `method` as for `hessian_eigenvalues`; `probes` random vectors of ±1 are drawn from
    `generator` (None: one of its own, always the same), and each costs up to `steps` Hessian products (Ghorbani et al. 2019). The ends of
    the spectrum are sharp after 20 steps; the share of negative eigenvalues is unreliable under 40.

    >>> w = torch.ones(3, requires_grad=True)
    >>> scales = torch.tensor([1.0, 2.0, 4.0])
    >>> found = spectral_density(lambda: (scales * w**2).sum(), [w], probes=2, steps=3)
    >>> round(found.trace, 3), round(float(torch.trapezoid(found.density, found.grid)), 3)
    (14.0, 1.0)

    Raises ConfigError for `probes`, `steps` or `points` out of range, and what `Hessian` raises.
    """
    hessian = Hessian([loss], parameters, method=method)
    try:
        return lanczos_density(
            hessian,
            hessian.gradients[0],
            probes=probes,
            steps=steps,
            generator=generator,
            points=points,
        )
    finally:
        hessian.close()


def lanczos_density(
    product: Callable[[Tensor], Tensor],
    like: Tensor,
    *,
    probes: int = 4,
    steps: int = 40,
    generator: torch.Generator | None = None,
    points: int = 1024,
) -> Density:
    """Return the density of the eigenvalues of a symmetric operator that is known by its products.

    `product` maps Tensor[d] to Tensor[d], of the size, type and device of `like` [d].

    >>> diagonal = torch.tensor([5.0, 3.0, 1.0, -2.0])
    >>> round(lanczos_density(lambda v: diagonal * v, diagonal, steps=4).trace, 4)
    7.0
    """
    if probes < 1 or steps < 1 or points < 2:
        raise ConfigError(
            "probes and steps must be at least 1 and points at least 2, got "
            f"probes={probes}, steps={steps}, points={points}"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    values, weights, traces = [], [], []
    for _ in range(probes):
        signs = random_signs(like, generator)
        found = lanczos(product, signs, 1, tol=0.0, max_products=steps)
        values.append(found.ritz_values)
        weights.append(found.ritz_weights / probes)
        traces.append(like.numel() * float(found.ritz_values @ found.ritz_weights))
    nodes, shares = torch.cat(values), torch.cat(weights)
    low, high = float(nodes.min()), float(nodes.max())
    # An operator that is a multiple of the identity has no range: its size serves.
    width = _WIDTH * ((high - low) or abs(high) or 1.0)
    grid = torch.linspace(low - 5 * width, high + 5 * width, points, dtype=torch.float64)
    heights = torch.exp(-0.5 * ((grid[:, None] - nodes) / width) ** 2)
    density = heights @ shares / (width * math.sqrt(2 * math.pi))
    spread = torch.tensor(traces, dtype=torch.float64)
    error = float(spread.std()) / math.sqrt(probes) if probes > 1 else math.nan
    return Density(grid, density, float(spread.mean()), width, error)


def random_signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return numbers of ±1 of the shape, type and device of a tensor (Rademacher).

    >>> random_signs(torch.zeros(3), torch.Generator().manual_seed(0)).abs().tolist()
    [1.0, 1.0, 1.0]
    """
    signs = torch.randint(0, 2, like.shape, generator=generator, device=generator.device)
    return signs.to(like) * 2 - 1
