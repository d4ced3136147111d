"""Accelerate: what its optimizers tell of accumulation, loss scale and skipped steps.

    recorder = attach(accelerator.unwrap_model(model), optimizer)

with the optimizer that `accelerator.prepare` gave, and `recorder.step(loss, batch_size)` after
every `optimizer.step()`, also inside `accelerator.accumulate(model)`.
"""

from __future__ import annotations

from typing import Any

import torch

from .scaling import Scale, scale_now


class AcceleratedLoop:
    """The steps of a loop under Accelerate, read from an optimizer that it has wrapped."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self.scaler = optimizer.scaler

    @property
    def complete(self) -> bool:
        """Whether the micro-batch just done was the last of its window."""
        return bool(self._optimizer.gradient_state.sync_gradients)

    @property
    def accumulates(self) -> bool:
        """Whether steps have several micro-batches."""
        return int(self._optimizer.gradient_state.num_steps) > 1

    def scale(self) -> Scale:
        """Return the loss scale of the coming step."""
        return scale_now(self.scaler)

    def whole(self, parts: int) -> float:
        """Return A/n for a window of n micro-batches: `accelerator.backward` divides by A always."""
        return float(self._optimizer.gradient_state.num_steps) / parts

    def skipped(self, stepped: bool) -> bool:
        """Tell whether the scaler let the step out."""
        return self.complete and bool(self._optimizer.step_was_skipped)


def is_accelerated(optimizer: Any) -> bool:
    """Tell whether Accelerate has wrapped an optimizer, without importing it."""
    inner = getattr(optimizer, "optimizer", None)
    return isinstance(inner, torch.optim.Optimizer) and hasattr(optimizer, "gradient_state")


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer that steps: the wrapper around it calls no hooks."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    return optimizer
