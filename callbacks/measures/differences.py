"""Hessian products as differences of gradients, for losses that have no second derivative."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ...store import ConfigError
from ..snapshot import RandomStates
from .vectors import flat, scalar, split

STEP = {torch.float32: 1e-4, torch.float64: 1e-6}
"""Length of a step over the norm of the weights (over 1 where they are zero).

Largest relative error of the top five eigenvalues of seven smooth nets of 400 to 650,000 parameters,
in float32: 1e-3 at this step, 4e-3 at twice and 6e-2 at ten times it (third derivatives); at a tenth
rounding takes over (8e-4). Inputs and weights of unequal scale, as embeddings, make it worse.
"""


class GradientDifferences:
    """Products with the Hessians of some losses by central differences of their gradients.

    H v = (g(w + ε v) - g(w - ε v)) / 2ε with ε‖v‖ = `step` × ‖w‖: two gradients a product, where
    the second derivative costs nearly three. Each loss is called twice a product and must give
    the same each time; the random states of python, numpy and torch are those of its first call
    (or `states`) each time, and left as they were. The weights are moved in place and put back bit
    for bit. Autocast is off: gradients in half precision differ by their rounding alone. In nets of
    ReLUs a difference sees the kinks that it steps over, which no second derivative does: it is
    the larger then (benchmarks/curvature.py).

    >>> w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    >>> differences = GradientDifferences([lambda: w[0] ** 3 + w[0] * w[1]], [w])
    >>> [round(x, 6) for x in differences.product(0, torch.tensor([1.0, 0.0]).double()).tolist()]
    [6.0, 1.0]

    Raises ConfigError for a `step` outside (0, 1).
    """

    def __init__(
        self,
        losses: Sequence[Callable[[], Tensor]],
        parameters: Sequence[Tensor],
        *,
        step: float | None = None,
        states: dict[int, RandomStates] | None = None,
    ):
        if step is not None and not 0 < step < 1:
            raise ConfigError(
                f"step must be in (0, 1), as a share of the norm of the weights, got {step}; 1e-3 "
                "serves float32"
            )
        self._losses, self._parameters = list(losses), list(parameters)
        self._step = step or max(STEP[p.dtype] for p in self._parameters)
        self._states = {} if states is None else states

    def gradient(self, index: int) -> Tensor:
        """Return one loss's gradient [d] where the weights are."""
        with self._same_draws(index):
            value = scalar(self._losses[index]())
            return flat(
                self._parameters,
                torch.autograd.grad(value, self._parameters, allow_unused=True),
            )

    def product(self, index: int, vector: Tensor) -> Tensor:
        """Return the product of one loss's Hessian with a vector [d]."""
        length = torch.linalg.vector_norm(vector, dtype=torch.float64).item()
        if length == 0.0:
            return torch.zeros_like(vector)
        directions = split(self._parameters, vector)
        began = [p.detach().clone() for p in self._parameters]
        norms = [torch.linalg.vector_norm(p, dtype=torch.float64) for p in began]
        size = torch.stack([norm.cpu() for norm in norms]).norm().item()
        epsilon = self._step * (size or 1.0) / length
        sides: list[Tensor] = []
        try:
            for sign in (1, -1):
                for p, at, along in zip(self._parameters, began, directions, strict=True):
                    p.data.copy_(at).add_(along, alpha=sign * epsilon)
                sides.append(self.gradient(index))
        finally:
            for p, at in zip(self._parameters, began, strict=True):
                p.data.copy_(at)
        return (sides[0] - sides[1]) / (2 * epsilon)

    @contextlib.contextmanager
    def _same_draws(self, index: int) -> Iterator[None]:
        now = random_states(self._parameters)
        self._states.setdefault(index, now).restore()
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(torch.enable_grad())
                for kind in {p.device.type for p in self._parameters} | {"cpu"}:
                    stack.enter_context(torch.autocast(kind, enabled=False))
                yield
        finally:
            now.restore()


def random_states(parameters: Sequence[Tensor]) -> RandomStates:
    """Return the random states of python, numpy and torch, on the parameters' devices too."""
    one_a_device = {p.device: p.detach() for p in parameters}
    return RandomStates(nn.ParameterList(one_a_device.values()))
