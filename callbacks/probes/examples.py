"""Examples: squared gradients of single examples, from one backward pass of the training itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..guard import HookGuard
from ..measures import PER_EXAMPLE, per_example_squares
from ..undisturbed import is_looking
from .probe import ProbeOffError, Training, clock

_FAILURES = 3


class Examples:
    """Squared norms over single examples and over the batch, of the layers where that is exact.

    These are Linear, LayerNorm and Embedding that run once in a forward pass and share no parameter;
    for a loss that is a mean over the examples. The answer is of these layers alone. What goes into
    each is looked at when its gradient comes, so that nothing is kept longer than the training does.
    """

    def __init__(self, training: Training) -> None:
        owners = Counter(
            id(p)
            for module in training.model.modules()
            for p in module._parameters.values()
            if p is not None
        )
        self._modules = [
            module
            for module in training.model.modules()
            if isinstance(module, PER_EXAMPLE)
            and all(owners[id(p)] == 1 for p in module.parameters(recurse=False))
            and any(p.requires_grad for p in module.parameters(recurse=False))
        ]
        if not self._modules:
            raise ProbeOffError(
                "gradients of single examples need Linear, LayerNorm or Embedding layers with "
                "parameters of their own, and this model has none"
            )
        if training.tap is None:
            raise ProbeOffError("nobody listens to the gradients of this run")
        self._training, self._tap = training, training.tap
        self._handles: list[Any] = []
        self._squares: dict[int, Tensor] = {}
        self._calls: Counter[int] = Counter()
        self._error: Exception | None = None
        self._guarded = HookGuard(self._failed)
        self._in_vain = 0
        self.seconds = 0.0

    def arm(self, step: int) -> None:
        """Listen to the coming step."""
        self.disarm()
        self._squares, self._calls, self._error, self.seconds = {}, Counter(), None, 0.0
        self._tap.exact = True
        for place, module in enumerate(self._modules):
            self._handles.append(module.register_forward_hook(self._hook(place)))

    def _hook(self, place: int) -> Callable[[nn.Module, Any, Any], None]:
        def ran(module: nn.Module, inputs: Any, output: Any) -> None:
            with self._guarded:
                if is_looking() or not (torch.is_grad_enabled() and torch.is_tensor(output)):
                    return
                if output.requires_grad and inputs and torch.is_tensor(inputs[0]):
                    self._calls[place] += 1
                    came = partial(self._came, place, module, inputs[0].detach())
                    output.register_hook(came)

        return ran

    def _came(self, place: int, module: nn.Module, given: Tensor, back: Tensor) -> None:
        begun = clock()
        with self._guarded:
            self._squares[place] = per_example_squares(module, given, back)
        self.seconds += clock() - begun

    def _failed(self, error: Exception) -> None:
        self._error = error

    def sample(self, step: int) -> Tensor | Sequence[float]:
        """Return the squared norms of the step."""
        if self._error is not None:
            raise self._error
        parts = self._training.parts()
        size = parts[0] if len(parts) == 1 else 0
        seen = [
            place
            for place, squares in self._squares.items()
            if self._calls[place] == 1 and len(squares) == size
        ]
        owned = [
            p for place in seen for p in self._modules[place].parameters(False) if p.requires_grad
        ]
        squares = [s for p in owned if (s := self._tap.square_of(p)) is not None]
        if size < 2 or not squares or len(squares) != len(owned):
            self._in_vain += 1
            if self._in_vain >= _FAILURES:
                raise ProbeOffError(
                    "no layer was seen whose gradient falls apart into those of the examples: each "
                    "must run once in a step, on the batch as its first dimension (2 samples or more)"
                )
            return [math.nan] * 4
        self._in_vain = 0
        tap = self._tap
        arriving = tap.factor if tap.arriving is None else tap.arriving
        # of B-th parts of a mean
        each = torch.stack([self._squares[place] for place in seen]).sum(0)
        small_sq = each.mean() * (size * arriving) ** 2
        big_sq = sum(squares[1:], start=squares[0]) * tap.factor**2
        row = torch.stack([small_sq, torch.as_tensor(big_sq).to(small_sq)])
        row = torch.where(row.isfinite(), row, math.nan)
        return torch.cat([row, row.new_tensor([1.0, size])])

    def disarm(self) -> None:
        """Listen no longer."""
        self._tap.exact = False
        for handle in self._handles:
            handle.remove()
        self._handles, self._squares = [], {}

    def detach(self) -> None:
        """Let go of the model."""
        self._modules = []
