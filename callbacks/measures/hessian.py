"""The Hessian of a loss as a linear map, and its largest eigenvalues."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from ...store import ConfigError
from ..snapshot import RandomStates
from .differences import GradientDifferences, random_states
from .lanczos import Spectrum, lanczos
from .vectors import flat, measured, scalar, split

Method = Literal["auto", "exact", "difference"]


class Hessian:
    """The Hessian of the mean of some losses with respect to some parameters, never formed.

    Only `torch.autograd.grad` is used, so that no `.grad` is touched; parameters that do not
    require a gradient are left out, those that a loss does not use count as zero. `gradient` [d] is
    the mean gradient, `gradients` one [d] per loss, `losses` their values; d is the number of
    elements of all parameters, in their order.

    `method` is how a product is taken, and tells after the first one what it was:

    - "exact": the derivative of the gradient. Each loss is called once and its graph kept until
      `close`. A product costs about three gradients.
    - "difference": central differences of the gradient (`GradientDifferences`): each loss is called
      twice a product and must give the same each time; the weights are moved and put back. It costs
      two gradients and no graph.
    - "auto": exact, unless a loss has no second derivative: one of torch's operations says so at
      the first product (flash attention, ctc_loss, EmbeddingBag, cdist), or the loss holds an
      `autograd.Function` of somebody's own (fused kernels, torch.compile), whose second derivative
      may be zero without a word.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hessian = Hessian([lambda: w[0] ** 2 + 3 * w[1] ** 2, lambda: w[0] ** 2 - w[1] ** 2], [w])
    >>> hessian.gradient.tolist(), hessian(torch.tensor([1.0, 1.0])).tolist(), hessian.method
    ([2.0, 4.0], [2.0, 2.0], 'exact')

    Raises ConfigError where there is no loss, no parameter, a loss is not a scalar or runs
    reentrant checkpoints, or parameters are in half precision.
    """

    def __init__(
        self,
        losses: Sequence[Callable[[], Tensor]],
        parameters: Iterable[Tensor],
        *,
        method: Method = "auto",
        step: float | None = None,
    ):
        if method not in ("auto", "exact", "difference"):
            raise ConfigError(f"method must be auto, exact or difference, got {method!r}")
        if not losses:
            raise ConfigError("a Hessian needs a loss, got none; pass a list of callables")
        self.parameters = measured(parameters)
        self.gradients: list[Tensor] = []
        self.losses: list[float] = []
        self.products = 0
        self._auto, self._closed = method == "auto", False
        self._graphs: list[Sequence[Tensor | None]] = []
        states: dict[int, RandomStates] = {}
        self._differences = GradientDifferences(losses, self.parameters, step=step, states=states)
        for index, loss in enumerate(losses):
            states[index] = random_states(self.parameters)
            method = self._add(loss, method)
        self.method: Method = "exact" if method == "auto" else method

    def _add(self, loss: Callable[[], Tensor], method: Method) -> Method:
        """Take one loss and its gradient; return the method, which its graph may settle."""
        value = scalar(loss())
        own = _own_functions(value)
        if "CheckpointFunctionBackward" in own:
            raise ConfigError(
                "a loss with reentrant checkpoints gives no gradient to ask for, let alone a "
                "second derivative; call torch.utils.checkpoint.checkpoint with use_reentrant=False"
            )
        if method == "auto" and own:
            method = "difference"
        if method == "difference":
            self._graphs = []
        grads = torch.autograd.grad(
            value, self.parameters, create_graph=method != "difference", allow_unused=True
        )
        if method != "difference":
            self._graphs.append(grads)
        self.gradients.append(flat(self.parameters, grads))
        self.losses.append(value.item())
        return method

    @property
    def gradient(self) -> Tensor:
        """The mean gradient, [d]."""
        total = self.gradients[0].clone()
        for gradient in self.gradients[1:]:  # without a copy of all of them
            total += gradient
        return total / len(self.gradients)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product of the mean Hessian with a vector [d]; counted in `products`."""
        self.products += 1
        method = self.method
        total = self._sum(vector)
        if self.method != method:  # found out in the middle: the sum would be of both kinds
            total = self._sum(vector)
        return total / len(self.losses)

    def _sum(self, vector: Tensor) -> Tensor:
        total = torch.zeros_like(vector)
        for index in range(len(self.losses)):
            total += self.product(index, vector)
        return total

    def product(self, index: int, vector: Tensor) -> Tensor:
        """Return the product of one loss's Hessian with a vector [d] (not counted)."""
        if self._closed:
            raise ConfigError("a Hessian that is closed has no products; take them before close()")
        if self.method == "exact":
            try:
                return self._exact(index, vector)
            except RuntimeError as error:
                if not (self._auto and _says_no_second_derivative(error)):
                    raise
                self.method, self._graphs = "difference", []
        return self._differences.product(index, vector)

    def _exact(self, index: int, vector: Tensor) -> Tensor:
        graph = self._graphs[index]
        # A gradient that does not depend on any parameter (a linear loss) has no graph.
        pairs = [
            (g, v)
            for g, v in zip(graph, split(self.parameters, vector), strict=True)
            if g is not None and g.requires_grad
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
        return flat(self.parameters, images)

    def close(self) -> None:
        """Let the graphs go; no product is possible afterwards."""
        self._graphs, self._closed = [], True


def hessian_eigenvalues(
    loss: Callable[[], Tensor],
    parameters: Iterable[Tensor],
    k: int = 5,
    *,
    tol: float = 1e-3,
    max_products: int = 40,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    method: Method = "auto",
) -> Spectrum:
    """Return the k largest eigenvalues of a loss's Hessian, with bounds.

    `loss` returns a scalar with its graph and is called once, so that dropout and batch statistics
    are the same in every product (by differences, see `Hessian`, twice a product with the same
    random draws). Lanczos starts at `start` [d], else at the gradient, so that `ritz_weights` tell
    how the gradient's energy spreads over the spectrum; where the gradient is zero it starts at a
    random vector drawn from `generator` (None: one of its own, always the same). `.grad` and the
    random states of torch are never touched.

    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> spectrum = hessian_eigenvalues(lambda: 2 * w[0] ** 2 + w[0] * w[1], [w], k=2)
    >>> [round(value, 4) for value in spectrum.values.tolist()]  # of [[4, 1], [1, 0]]
    [4.2361, -0.2361]

    Raises what `Hessian` and `lanczos` raise, and FloatingPointError where the loss or its gradient
    is not finite.
    """
    hessian = Hessian([loss], parameters, method=method)
    try:
        return lanczos(
            hessian,
            hessian_start(hessian, generator) if start is None else start,
            k,
            tol=tol,
            max_products=max_products,
        )
    finally:
        hessian.close()


def hessian_start(hessian: Hessian, generator: torch.Generator | None = None) -> Tensor:
    """Return the gradient [d], or a random vector where it is zero.

    Raises FloatingPointError where the gradient is not finite: it would be one everywhere.
    """
    gradient = hessian.gradient
    if not bool(torch.isfinite(gradient).all()):
        raise FloatingPointError(
            f"the gradient is not finite (the loss is {hessian.losses}); there is no curvature to "
            "measure at these weights"
        )
    if bool(gradient.any()):
        return gradient
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    drawn = torch.randn(gradient.shape, generator=generator, device=generator.device)
    return drawn.to(gradient)


_DIFFERENTIABLE = ("BackwardHookFunctionBackward",)
"""Functions in Python that are known to have every derivative: of full backward hooks on modules."""


def _own_functions(value: Tensor) -> set[str]:
    """Return the names of somebody's own autograd Functions in the graph of a loss."""
    names: set[str] = set()
    seen, ahead = set(), [value.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction) and type(node).__name__ not in _DIFFERENTIABLE:
            names.add(type(node).__name__)
        ahead.extend(child for child, _ in node.next_functions)
    return names


def _says_no_second_derivative(error: RuntimeError) -> bool:
    said = str(error)
    return isinstance(error, NotImplementedError) or any(
        words in said for words in ("derivative for", "double backward", "differentiate twice")
    )
