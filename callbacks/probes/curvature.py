"""Curvature: the top of the Hessian of the run's own loss, and how far it is from the edge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ...store import Column, ConfigError
from ..measures import Hessian, Spectrum, edge_of_stability, lanczos, newton_gain
from .power_iteration import MOST_ITERATIONS, check_pyhessian, largest_by_pyhessian
from .preconditioning import Preconditioner, preconditioner, rates
from .probe import Training
from .running import PRODUCT, Pool, Running, dot


@dataclass(kw_only=True)
class Curvature(Running):
    """The `k` largest eigenvalues of the loss's Hessian, on a pool of fresh training batches.

    Rank 0, the raw module in its training mode with dropout off, float32. Each sample measures on
    the last (at most four) batches, of which no more than `samples` samples each are used. It
    takes at most `products` Hessian products, 8 (or as many as were asked for) for each optimizer
    that needs some of its own (Adam's preconditioned Hessian), and two besides: one for the last sample's top vector,
    whose eigenvalue a gradient that has lost that direction would hide, one for batch sharpness. A
    product costs about three gradients of the pool, or two where the loss has no second derivative
    (EmbeddingBag, ctc_loss, fused kernels): products are differences of gradients then, which a
    note in the run's events says. Measured are the weights that the step began with, the same that
    its recorded loss belongs to: those behind it may already be spoiled.

    Memory while it samples, in copies of the weights: about `products` + 5 and one for each batch
    (`benchmarks/looking.py`), and the graphs of the pool for one product; between samples one, the
    top vector.

    Columns: `lambda_1` … `lambda_k`, `bound_1` …, `lambda_min`, `lambda_spread` (largest less smallest
    Rayleigh quotient of the top vector over the batches; nan for one batch), `batch_sharpness` (mean
    over batches of gᵀHg/gᵀg), `preconditioned_lambda`, `edge_ratio` (1 is the edge of stability; nan
    where the optimizer's is not known), `newton_gain`, `preconditioned_newton_gain`,
    `top_space_share`, `pool_samples`, `products`, `seconds`. With several optimizers the three that
    depend on one are written `edge_ratio/<optimizer>`, each on the parameters of that optimizer.

    `engine="pyhessian"` finds eigenvalues by PyHessian's power iteration over the same products: as
    a cross-check, slower, those of largest magnitude, and without the Newton gain and `lambda_min`.
    """

    k: int = 1
    products: int = 0
    """Products for one Lanczos run; 0 is 8 for k = 1 and 4 more for each further value."""
    engine: Literal["lanczos", "pyhessian"] = "lanczos"
    first: int = 20
    """Step of the first sample. At step 1 it is the curvature of the initialization, all that a
    learning rate far too high leaves to measure."""
    _last_top: Tensor | None = field(default=None, init=False, repr=False)
    _optimizers: int = field(default=1, init=False, repr=False)
    _edge_products: int = field(default=8, init=False, repr=False)
    """Products for the largest eigenvalue of a preconditioned Hessian."""
    _rates: list[list[float]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1 or self.products < 0:
            raise ConfigError(
                "k must be at least 1 and products not negative, got "
                f"k={self.k}, products={self.products}"
            )
        if self.engine not in ("lanczos", "pyhessian"):
            raise ConfigError(f'engine must be "lanczos" or "pyhessian", got {self.engine!r}')
        iterations = MOST_ITERATIONS if self.engine == "pyhessian" else 4 + 4 * self.k
        self._edge_products = self.products or min(iterations, 8)
        self.products = max(self.k, self.products or iterations)
        self.family, self.weight = "curvature", 4.0

    def work(self) -> float:
        """Return what a sample takes, in gradients of the pool."""
        optimizers = [] if self._training is None else self._training.optimizers
        own = sum("betas" in optimizer.defaults for optimizer in optimizers)
        return 1 + PRODUCT * (self.products + own * self._edge_products + 2)

    def columns(self) -> list[Column]:
        """Return the columns of the family."""
        numbers = range(1, self.k + 1)
        columns = [Column.of(f"lambda_{i}") for i in numbers]
        columns += [Column.of(f"bound_{i}") for i in numbers]
        for name, unit in _AFTER.items():
            if name in _OF_OPTIMIZERS and self._optimizers > 1:
                places = range(self._optimizers)
                columns += [Column(f"{name}/{i}", name, optimizer=i, unit=unit) for i in places]
            else:
                columns.append(Column.of(name, unit=unit))
        return columns

    def attach(self, training: Training) -> Sequence[Column]:
        """Return the columns; raise ProbeOffError where curvature cannot be measured here."""
        if self.engine == "pyhessian":
            check_pyhessian()
        self._last_top = None
        self._optimizers = max(1, len(training.optimizers))
        return super().attach(training)

    def arm(self, step: int) -> None:
        """Remember the weights and the learning rates that the step begins with."""
        super().arm(step)
        if self._training is not None:
            self._rates = [rates(optimizer) for optimizer in self._training.optimizers]

    def disarm(self) -> None:
        """Let go of the remembered weights and rates."""
        super().disarm()
        self._rates = []

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
        with pool.hessian() as hessian:
            gradient, sharpness = hessian.gradient, batch_sharpness(hessian)
            hessian.gradients.clear()  # their memory is for the vectors of Lanczos
            found = self._top(hessian, gradient) | {"batch_sharpness": sharpness}
            for place in range(len(training.optimizers)):
                mark = f"/{place}" if self._optimizers > 1 else ""
                edge = self._edge(hessian, gradient, place, found["lambda_1"])
                found |= {name + mark: value for name, value in edge.items()}
            found["products"] = float(hessian.products)
        return found

    def _top(self, hessian: Hessian, gradient: Tensor) -> dict[str, float]:
        """Return the top of the spectrum, with what its largest vector tells of the batches."""
        pooled = ByBatch(hessian)
        few = self.engine == "lanczos" and self.k == 1  # else one product costs less
        most = self.products
        spectrum = self._largest(pooled if few else hessian, gradient, hessian, self.k, most)
        values, bounds = spectrum.values.tolist(), spectrum.bounds.tolist()
        vector = spectrum.vectors[0]
        if not few:
            pooled(vector)
        spread = pooled.spread(vector)
        if self._last_top is not None and self._last_top.shape == vector.shape:
            again = ByBatch(hessian)
            image = again(self._last_top)
            quotient = dot(image, self._last_top)
            if quotient > values[0]:  # hidden from the gradient: keep looking along it
                values[0], vector = quotient, self._last_top
                bounds[0] = float((image - quotient * vector).norm())
                spread = again.spread(vector)
        self._last_top = vector.clone()
        found = {f"lambda_{i + 1}": value for i, value in enumerate(values)}
        found |= {f"bound_{i + 1}": bound for i, bound in enumerate(bounds)}
        found |= {"lambda_min": spectrum.smallest, "lambda_spread": spread}
        found["newton_gain"] = newton_gain(
            spectrum.ritz_values, spectrum.ritz_weights, top=values[0]
        )
        found["top_space_share"] = _share(gradient, spectrum.vectors)
        return found

    def _edge(self, hessian: Hessian, gradient: Tensor, place: int, top: float) -> dict[str, float]:
        """Return how far the optimizer at a place is from its edge."""
        assert self._training is not None
        optimizer = self._training.optimizers[place]
        lrs = self._rates[place] if place < len(self._rates) else None
        precondition = preconditioner(optimizer, hessian.parameters, lrs)
        if precondition is None:
            return {}
        if precondition.root is None:
            return {"edge_ratio": _ratio(top, precondition)}
        root = precondition.root

        def product(vector: Tensor) -> Tensor:
            return root * hessian(root * vector)

        spectrum = self._largest(product, root * gradient, hessian, 1, self._edge_products)
        largest = float(spectrum.values[0])
        return {
            "preconditioned_lambda": largest,
            "preconditioned_newton_gain": newton_gain(spectrum.ritz_values, spectrum.ritz_weights),
            "edge_ratio": _ratio(largest, precondition),
        }

    def _largest(
        self,
        product: Callable[[Tensor], Tensor],
        start: Tensor,
        hessian: Hessian,
        k: int,
        most: int,
    ) -> Spectrum:
        k = min(k, start.numel())
        if self.engine == "pyhessian":
            return largest_by_pyhessian(
                product, hessian.parameters, k, max_products=max(2, most // k)
            )
        if not bool(start.any()):
            generator = torch.Generator().manual_seed(0)
            start = torch.randn(start.shape, generator=generator).to(start)
        # tol 0: the products after convergence are what the Newton gain needs (8 give it within 15 %)
        return lanczos(product, start, k, tol=0.0, max_products=max(k, most))


class ByBatch:
    """Products with the mean Hessian that remember what each batch's own gave, between the vectors.

    Of Q, the vectors asked for so far, and each batch's H: QᵀHQ, by dot products alone. So the
    Rayleigh quotient of a vector that they span costs no further product.
    """

    def __init__(self, hessian: Hessian) -> None:
        self._hessian = hessian
        self._vectors: list[Tensor] = []
        self._inner: list[Tensor] = []
        """Of each vector: [batches, vectors up to it]."""

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product of the mean Hessian with a vector [d]."""
        self._hessian.products += 1
        self._vectors.append(vector)
        total = torch.zeros_like(vector)
        rows: list[Tensor] = []
        for index in range(len(self._hessian.losses)):
            image = self._hessian.product(index, vector)
            rows.append(torch.stack([torch.dot(image, v) for v in self._vectors]))
            total += image
        self._inner.append(torch.stack(rows))
        return total / len(rows)

    def spread(self, vector: Tensor) -> float:
        """Return the largest less the smallest Rayleigh quotient over the batches; nan for one.

        `vector` [d] is a unit vector in the span of those asked for, which were orthonormal.
        """
        weights = torch.stack([torch.dot(vector, v) for v in self._vectors])
        quotients = torch.zeros_like(self._inner[0][:, 0])
        for last, inner in enumerate(self._inner):  # QᵀHQ is symmetric: all but the diagonal twice
            twice = torch.full_like(weights[: last + 1], 2.0)
            twice[-1] = 1.0
            quotients += weights[last] * (inner @ (twice * weights[: last + 1]))
        found = quotients.tolist()
        return max(found) - min(found) if len(found) > 1 else math.nan


def batch_sharpness(hessian: Hessian) -> float:
    """Return the mean over the batches of gᵀHg/gᵀg, each with its own gradient; one product."""
    found = []
    for index, gradient in enumerate(hessian.gradients):
        energy = dot(gradient, gradient)
        if energy > 0:
            found.append(dot(hessian.product(index, gradient), gradient) / energy)
    hessian.products += 1
    return sum(found) / len(found) if found else math.nan


_OF_OPTIMIZERS = ("preconditioned_lambda", "edge_ratio", "preconditioned_newton_gain")
_AFTER = {
    "lambda_min": "",
    "lambda_spread": "",
    "batch_sharpness": "",
    "preconditioned_lambda": "",
    "edge_ratio": "",
    "newton_gain": "",
    "preconditioned_newton_gain": "",
    "top_space_share": "",
    "pool_samples": "samples",
    "products": "",
    "seconds": "s",
}
"""Columns behind eigenvalues and bounds, with their units."""


def _share(gradient: Tensor, vectors: Tensor) -> float:
    energy = dot(gradient, gradient)
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
