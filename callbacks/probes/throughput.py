"""The throughput probe: the family `train`, one frame in every step: loss, pace and faults."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...store import Column
from .probe import Probe, Training

NAN = math.nan


@dataclass(slots=True)
class Step:
    """What is known of one step by the time it ended; NaN is what nobody measured."""

    losses: Sequence[float | torch.Tensor]
    """Of the micro-batches: numbers on a CPU, tensors where reading them would wait."""
    samples: float = NAN
    step_seconds: float = NAN
    data_seconds: float = NAN
    wait_seconds: float | Callable[[], float] = NAN
    """For the other ranks; a function where the device knows it later."""
    loss_scale: float = NAN
    skipped: float = 0.0
    overhead_seconds: float = NAN
    epoch: float = NAN


def rate_of(group: dict[str, Any]) -> float:
    """Return a parameter group's learning rate, NaN for an optimizer that has none.

    >>> rate_of({"lr": 0.1}), rate_of({"lr": None}), rate_of({})
    (0.1, nan, nan)
    """
    rate = group.get("lr")
    return NAN if rate is None else float(rate)


class Throughput(Probe):
    """Loss, learning rates, gradient norm, pace, and the count of non-finite tensors.

    The gradient norm is measured where the budget allows and NaN elsewhere. `non_finite` counts
    the tensors among loss, gradients and sampled outputs that hold a NaN or an infinity; what a
    step did not measure is not counted.
    """

    def __init__(self) -> None:
        super().__init__(every=1)
        self.family = "train"

    def attach(self, training: Training) -> Sequence[Column]:
        self._training = training
        self._groups = [
            (optimizer, number)
            for optimizer in training.optimizers
            for number in range(len(optimizer.param_groups))
        ]
        self._single = self._groups[0][0] if len(self._groups) == 1 else None
        lrs = [
            Column(f"lr/{i}.{j}", "lr", group=str(j), optimizer=i)
            for i, optimizer in enumerate(training.optimizers)
            for j in range(len(optimizer.param_groups))
        ]
        columns = [
            Column.of("loss", ranks="mean"),
            *lrs,
            Column.of("grad_sq", ranks="sum" if training.sharded else "same"),
            Column.of("clip_factor"),
            Column.of("samples", ranks="sum"),
            Column.of("step_seconds", unit="s", ranks="each"),
            Column.of("data_seconds", unit="s", ranks="each"),
            Column.of("wait_seconds", unit="s", ranks="each"),
            Column.of("loss_scale"),
            Column.of("skipped", ranks="max"),
            Column.of("non_finite", ranks="sum"),
            Column.of("overhead_seconds", unit="s", ranks="each"),
            Column.of("epoch"),
        ]
        self._non_finite = len(columns) - 3
        self.grad_sq = 1 + len(lrs)
        self._wait = [column.name for column in columns].index("wait_seconds")
        self._waits: deque[Callable[[], float] | float] = deque()
        return columns

    def place(self, number: int) -> tuple[int, int]:
        """Return (optimizer, group) of the learning rate at a place of `lrs`."""
        optimizer, group = self._groups[number]
        return next(i for i, o in enumerate(self._training.optimizers) if o is optimizer), group

    def lrs(self) -> list[float]:
        """Return the learning rate of every parameter group, NaN for one that was taken away."""
        if self._single is not None and len(groups := self._single.param_groups) == 1:
            return [rate_of(groups[0])]
        return [
            rate_of(groups[j]) if j < len(groups := optimizer.param_groups) else NAN
            for optimizer, j in self._groups
        ]

    def row(self, step: Step, lrs: Sequence[float]) -> tuple[list[float], list[torch.Tensor]]:
        """Return the numbers of a step, and what of them is still on the device, for `fill`."""
        tap, losses, wait = self._training.tap, step.losses, step.wait_seconds
        seen = tap if tap is not None and tap.armed and tap.measured else None
        clip = NAN if seen is None else seen.clip_factor
        loss, late = NAN, []
        squares = None if seen is None else seen.squares()
        bad = 0
        if any(isinstance(t, torch.Tensor) for t in losses) or _on_device(squares):
            late = self._late(losses, squares)
        else:
            if losses:
                loss = float(sum(losses)) / len(losses)
                bad += not math.isfinite(loss)
            if squares is not None:
                bad += int((~squares.isfinite()).sum())
        total = NAN if squares is None or late else squares.sum().item()
        if late:  # such rows are filled in their order
            self._waits.append(wait)
        row = [loss, *lrs, total, clip, step.samples, step.step_seconds, step.data_seconds]
        row += [NAN if callable(wait) else wait, step.loss_scale, step.skipped, float(bad)]
        row += [step.overhead_seconds, step.epoch]
        return row, late

    @staticmethod
    def plain(loss: float, lrs: Sequence[float], told: Sequence[float]) -> list[float]:
        """Return the numbers of a step of one loss that measured no gradient: nearly all on a CPU.

        `told` are those behind the clip factor, in the order of the columns, without `non_finite`.
        """
        bad = 0.0 if math.isfinite(loss) else 1.0
        return [loss, *lrs, NAN, NAN, *told[:6], bad, *told[6:]]

    def _late(
        self, losses: Sequence[float | torch.Tensor], squares: torch.Tensor | None
    ) -> list[torch.Tensor]:
        mean = torch.stack([torch.as_tensor(x).float() for x in losses]).mean() if losses else None
        nothing = torch.zeros(0)
        # float32 squares overflow at a norm of 1.8e19, which is no fault: norms travel
        norms = nothing if squares is None else squares.sqrt()
        return [nothing if mean is None else mean.reshape(1), norms]

    def fill(self, values: np.ndarray, late: list[np.ndarray]) -> None:
        """Put loss and gradient norm into the vector, and count what is not finite."""
        loss, norms = late
        wait = self._waits.popleft()
        values[self._wait] = wait() if callable(wait) else wait
        if loss.size:
            values[0] = loss[0]
            values[self._non_finite] += not math.isfinite(loss[0])
        if norms.size:
            with np.errstate(over="ignore", invalid="ignore"):
                values[self.grad_sq] = np.square(norms, dtype=np.float64).sum()
            values[self._non_finite] += norms.size - np.isfinite(norms).sum()


def _on_device(squares: torch.Tensor | None) -> bool:
    return squares is not None and squares.device.type != "cpu"
