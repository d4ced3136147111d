"""Curvature: the top of the Hessian of the run's own loss, and how far it is from the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...store import Column, ConfigError
from ..measures import Hessian, Spectrum, edge_of_stability, lanczos, newton_gain
from .preconditioning import Preconditioner, preconditioner
from .probe import Training
from .running import Pool, Running


@dataclass(kw_only=True)
class Curvature(Running):
    """The `k` largest eigenvalues of the loss's Hessian, on a pool of fresh training batches.

    Rank 0, the raw module in its training mode with dropout off, float32. Each sample measures on
    the last (at most four) batches, of which no more than `samples` samples each are used. It
    takes at most `products` Hessian products on the Hessian and as many on the preconditioned one,
    and three besides: one for the last sample's top vector, whose eigenvalue a gradient that has
    lost that direction would hide, one for the spread over the batches, one for batch sharpness. A
    product costs about three gradients of the pool. Measured are the weights that the step began
    with, the same that its recorded loss belongs to: those behind it may already be spoiled.

    Columns: `lambda_1` … `lambda_k`, `bound_1` …, `lambda_min`, `lambda_spread` (largest less smallest
    Rayleigh quotient of the top vector over the batches), `batch_sharpness` (mean over batches of
    gᵀHg/gᵀg), `preconditioned_lambda`, `edge_ratio` (1 is the edge of stability; nan where the
    optimizer's is not known), `newton_gain`, `preconditioned_newton_gain`, `top_space_share`,
    `pool_samples`, `products`, `seconds`.
    """

    k: int = 1
    products: int = 0
    """Products for one Lanczos run; 0 is 8 for k = 1 and 4 more for each further value."""
    first: int = 20
    """Step of the first sample. At step 1 it is the curvature of the initialization, all that a
    learning rate far too high leaves to measure."""
    _last_top: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1 or self.products < 0:
            raise ConfigError(
                "k must be at least 1 and products not negative, got "
                f"k={self.k}, products={self.products}"
            )
        self.products = max(self.k, self.products or 4 + 4 * self.k)
        self.family, self.weight = "curvature", 4.0

    def columns(self) -> list[Column]:
        """Return the columns of the family."""
        numbers = range(1, self.k + 1)
        names = [f"lambda_{i}" for i in numbers] + [f"bound_{i}" for i in numbers]
        units = {"pool_samples": "samples", "seconds": "s"}
        return [Column.of(name, unit=units.get(name, "")) for name in [*names, *_AFTER]]

    def attach(self, training: Training) -> Sequence[Column]:
        """Return the columns; raise ProbeOffError where curvature cannot be measured here."""
        self._last_top = None
        return super().attach(training)

    def failed(self) -> None:
        """Forget the top vector: it may belong to weights that are gone."""
        self._last_top = None

    def detach(self) -> None:
        """Let go of the model and of the top vector."""
        super().detach()
        self._last_top = None

    def measure(self, pool: Pool, training: Training) -> dict[str, float]:
        """Return the curvature at the weights that the step began with."""
        pool.begin()
        hessian = Hessian(pool.losses(), pool.parameters)
        try:
            return self._read(hessian, training)
        finally:
            hessian.close()

    def _read(self, hessian: Hessian, training: Training) -> dict[str, float]:
        gradient = hessian.gradient
        if not bool(torch.isfinite(gradient).all()):
            raise FloatingPointError("the loss or its gradient is not finite")
        spectrum = _largest(hessian, gradient, self.k, self.products)
        values, bounds = spectrum.values.tolist(), spectrum.bounds.tolist()
        vector = spectrum.vectors[0]
        if self._last_top is not None and self._last_top.shape == vector.shape:
            image = hessian(self._last_top)
            quotient = float(image @ self._last_top)
            if quotient > values[0]:  # hidden from the gradient: keep looking along it
                values[0], vector = quotient, self._last_top
                bounds[0] = float((image - quotient * vector).norm())
        self._last_top = vector.clone()
        found = {f"lambda_{i + 1}": value for i, value in enumerate(values)}
        found |= {f"bound_{i + 1}": bound for i, bound in enumerate(bounds)}
        found["lambda_min"] = spectrum.smallest
        found["newton_gain"] = newton_gain(
            spectrum.ritz_values, spectrum.ritz_weights, top=values[0]
        )
        found["top_space_share"] = _share(gradient, spectrum.vectors)
        found |= _over_batches(hessian, vector)
        found |= self._edge(hessian, training, values[0])
        found["products"] = float(hessian.products)
        return found

    def _edge(self, hessian: Hessian, training: Training, top: float) -> dict[str, float]:
        precondition = preconditioner(training.optimizers, hessian.parameters)
        if precondition is None:
            return {}
        if precondition.root is None:
            return {"edge_ratio": _ratio(top, precondition)}
        root = precondition.root
        spectrum = _largest(
            lambda v: root * hessian(root * v), root * hessian.gradient, 1, self.products
        )
        largest = float(spectrum.values[0])
        return {
            "preconditioned_lambda": largest,
            "preconditioned_newton_gain": newton_gain(spectrum.ritz_values, spectrum.ritz_weights),
            "edge_ratio": _ratio(largest, precondition),
        }


_AFTER = (
    "lambda_min",
    "lambda_spread",
    "batch_sharpness",
    "preconditioned_lambda",
    "edge_ratio",
    "newton_gain",
    "preconditioned_newton_gain",
    "top_space_share",
    "pool_samples",
    "products",
    "seconds",
)


def _largest(product, start: Tensor, k: int, most: int) -> Spectrum:
    if not bool(start.any()):
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(start.shape, generator=generator).to(start)
    # tol 0: the products after convergence are what the Newton gain needs (8 give it within 15 %).
    return lanczos(product, start, min(k, start.numel()), tol=0.0, max_products=most)


def _over_batches(hessian: Hessian, top: Tensor) -> dict[str, float]:
    quotients, sharpness = [], []
    for index, gradient in enumerate(hessian.gradients):
        quotients.append(float(hessian.product(index, top) @ top))
        energy = float(gradient @ gradient)
        if energy > 0:
            sharpness.append(float(hessian.product(index, gradient) @ gradient) / energy)
    hessian.products += 2
    return {
        "lambda_spread": max(quotients) - min(quotients) if len(quotients) > 1 else math.nan,
        "batch_sharpness": sum(sharpness) / len(sharpness) if sharpness else math.nan,
    }


def _share(gradient: Tensor, vectors: Tensor) -> float:
    energy = float(gradient @ gradient)
    return float((vectors @ gradient).square().sum()) / energy if energy > 0 else math.nan


def _ratio(largest: float, precondition: Preconditioner) -> float:
    edge = edge_of_stability(
        precondition.name,
        precondition.lr,
        momentum=precondition.momentum,
        nesterov=precondition.nesterov,
        beta1=precondition.beta1,
    )
    return 0.0 if math.isinf(edge) else largest / edge
