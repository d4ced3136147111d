"""The Hessian of a loss as a linear map, and its largest eigenvalues."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ...store import ConfigError
from .lanczos import Spectrum, lanczos


class Hessian:
    """The Hessian of the mean of some losses with respect to some parameters, never formed.

    Each loss is called once and its graph kept until `close`. Only `torch.autograd.grad` is used,
    so that no `.grad` is touched; parameters that do not require a gradient are left out, those
    that a loss does not use count as zero. `gradient` [d] is the mean gradient, `gradients` one
    [d] per loss; d is the number of elements of all parameters, in their order.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hessian = Hessian([lambda: w[0] ** 2 + 3 * w[1] ** 2, lambda: w[0] ** 2 - w[1] ** 2], [w])
    >>> hessian.gradient.tolist(), hessian(torch.tensor([1.0, 1.0])).tolist()
    ([2.0, 4.0], [2.0, 2.0])

    Raises ConfigError where there is no loss, no parameter, or a loss is not a scalar.
    """

    def __init__(self, losses: Sequence[Callable[[], Tensor]], parameters: Iterable[Tensor]):
        self.parameters = [p for p in parameters if p.requires_grad]
        if not losses or not self.parameters:
            raise ConfigError(
                f"a Hessian needs a loss and a parameter with requires_grad, got {len(losses)} "
                f"losses and {len(self.parameters)} parameters"
            )
        self._graphs: list[tuple[Tensor, ...]] = []
        self.gradients: list[Tensor] = []
        self.losses: list[float] = []
        for loss in losses:
            value = _scalar(loss())
            with torch.enable_grad():
                grads = torch.autograd.grad(
                    value, self.parameters, create_graph=True, allow_unused=True
                )
            grads = tuple(
                torch.zeros_like(p) if g is None else g
                for p, g in zip(self.parameters, grads, strict=True)
            )
            self._graphs.append(grads)
            self.gradients.append(_flat(grads))
            self.losses.append(value.item())
        self.products = 0

    @property
    def gradient(self) -> Tensor:
        """The mean gradient, [d]."""
        return torch.stack(self.gradients).mean(0)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product of the mean Hessian with a vector [d]; counted in `products`."""
        self.products += 1
        total = torch.zeros_like(vector)
        for index in range(len(self._graphs)):
            total += self.product(index, vector)
        return total / len(self._graphs)

    def product(self, index: int, vector: Tensor) -> Tensor:
        """Return the product of one loss's Hessian with a vector [d] (not counted)."""
        # A gradient that does not depend on any parameter (a linear loss) has no graph.
        pairs = [
            (g, v)
            for g, v in zip(self._graphs[index], self._split(vector), strict=True)
            if g.requires_grad
        ]
        if not pairs:
            return torch.zeros_like(vector)
        images = torch.autograd.grad(
            [g for g, _ in pairs],
            self.parameters,
            [v for _, v in pairs],
            retain_graph=True,
            allow_unused=True,
        )
        return _flat(
            torch.zeros_like(p) if image is None else image
            for p, image in zip(self.parameters, images, strict=True)
        )

    def close(self) -> None:
        """Let the graphs go; no product is possible afterwards."""
        self._graphs = []

    def _split(self, vector: Tensor) -> list[Tensor]:
        parts = vector.split([p.numel() for p in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]


def hessian_eigenvalues(
    loss: Callable[[], Tensor],
    parameters: Iterable[Tensor],
    k: int = 5,
    *,
    tol: float = 1e-3,
    max_products: int = 40,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Spectrum:
    """Return the k largest eigenvalues of a loss's Hessian, with bounds.

    `loss` is called once and returns a scalar with its graph; dropout and batch statistics are
    therefore the same in every product. Lanczos starts at `start` [d], else at the gradient, so
    that `ritz_weights` tell how the gradient's energy spreads over the spectrum; where the gradient
    is zero it starts at a random vector drawn from `generator`. `.grad` is never touched. Where a
    kernel has no second derivative (flash attention, ctc_loss) torch raises RuntimeError.

    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> spectrum = hessian_eigenvalues(lambda: 2 * w[0] ** 2 + w[0] * w[1], [w], k=2)
    >>> [round(value, 4) for value in spectrum.values.tolist()]  # of [[4, 1], [1, 0]]
    [4.2361, -0.2361]
    """
    hessian = Hessian([loss], parameters)
    if start is None:
        start = hessian.gradient
        if not start.any():
            start = torch.randn(start.shape, generator=generator).to(start)
    try:
        return lanczos(hessian, start, k, tol=tol, max_products=max_products)
    finally:
        hessian.close()


def _scalar(value: Tensor) -> Tensor:
    if value.numel() != 1 or not value.requires_grad:
        raise ConfigError(
            f"a loss must be a scalar that depends on the parameters, got a tensor of shape "
            f"{tuple(value.shape)} with requires_grad={value.requires_grad}"
        )
    return value.reshape(())


def _flat(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat([part.detach().reshape(-1) for part in parts])
