"""Arriving gradients: the squared norm of what each backward pass brings, before anything adds to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ..guard import HookGuard
from ..norms import squared_norms
from .probe import clock
from .tap import at_the_end


class Arriving:
    """Listens to gradients as they come out of backward passes, in the steps that it is asked to.

    A hook on a parameter sees this rank's own gradient of this one micro-batch: before it is added
    to `.grad`, and before the ranks average. It is registered when a step is armed and removed
    behind it, so that other steps pay nothing.
    """

    def __init__(self) -> None:
        self.passes: list[float | torch.Tensor] = []
        """Squared norm over all parameters, a backward pass each."""
        self.twice = False
        """Whether a parameter's gradient came in several pieces: their squares are not its own."""
        self.error: Exception | None = None
        """What went wrong in a hook; it must not be raised there."""
        self.seconds = 0.0
        self._squares: list[float] | list[torch.Tensor] = []
        self._came: set[int] = set()
        self._handles: list[Any] = []
        self._guarded = HookGuard(self._failed)

    def listen(self, parameters: Sequence[torch.Tensor]) -> None:
        """Listen to the coming step."""
        self.close()
        self.passes, self.error, self.seconds, self.twice = [], None, 0.0, False
        for place, parameter in enumerate(parameters):
            if parameter.requires_grad and not is_lazy(parameter):
                self._handles.append(parameter.register_hook(self._hook(place)))

    def _hook(self, place: int) -> Callable[[torch.Tensor], None]:
        def came(gradient: torch.Tensor) -> None:
            begun = clock()
            with self._guarded:
                if not self._came:
                    at_the_end(self._pass_ended)
                self.twice |= place in self._came
                self._came.add(place)
                self._squares += squared_norms([gradient], exact=True)  # type: ignore[operator]
            self.seconds += clock() - begun

        return came

    def _pass_ended(self) -> None:
        squares, self._squares, self._came = self._squares, [], set()
        if squares:
            with self._guarded:
                self.passes.append(sum(squares[1:], start=squares[0]))

    def _failed(self, error: Exception) -> None:
        self.error = error

    def close(self) -> None:
        """Listen no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._squares, self._came = [], [], set()
