"""The gradients probe: per layer the squared norms of gradient, weights and step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ...store import Column
from ..layers import Layer, layers_of
from ..norms import squared_norms, stacked
from ..shards import local, shares
from .probe import Probe, ProbeOffError, Training

PAIRED = 4
"""One sample of so many is the first of a pair of steps,"""
PAIRED_APART = 75
"""and each that comes so many steps behind the last pair."""
LATER = ((240, 2), (320, 2), (400, 2))
"""Pairs of looks at steps where the budget of a short run has none left: what is noise of a batch is known
by them, and how long steps are behind the start. Behind those of cheaper probes, which come first."""
QUANTITIES = ("grad_sq", "weight_sq", "update_sq", "numel")


class Gradients(Probe):
    """Squared norms per layer: gradient before clipping, weights after the step, the step itself.

    `update_sq` is the true squared norm of w(after) - w(before): the weights are copied on
    sampled steps, and the copy is let go afterwards. With Adam and its kin `adam_ratio` is
    sqrt(mean g² / mean v_hat), near 1 in a steady run.

    `grad_cosine`, of the run: between the gradients of this step and the one before, in one sample
    of four and in each that comes 75 steps behind the last pair, for which the very next step is sampled
    too; NaN in the others, and where `every` is fixed and not 1.

    Parameters that are unfrozen in the middle of a run are measured from the next sample on.

    Where the parameters are sharded every rank measures its own shards, and reading adds them up.
    """

    def __init__(self, every: int | None = None) -> None:
        super().__init__(every=every)
        self.family = "gradients"
        self.promised = LATER

    def on_every_rank(self, training: Training) -> bool:
        return training.sharded

    def attach(self, training: Training) -> Sequence[Column]:
        self._training = training
        self._known: set[int] = set()
        self._new = False
        columns = self._take_stock()
        self._new = False
        return columns

    def _take_stock(self) -> Sequence[Column]:
        training = self._training
        self._known |= {id(p) for p in training.model.parameters() if p.requires_grad}
        self._new = True
        self._layers: list[Layer] = layers_of(training.model, self._known)
        self._covered = [p for layer in self._layers for p in layer.parameters]
        if not self._covered:
            raise ProbeOffError("the model has no parameters that are trained")
        if training.tap is None:
            raise ProbeOffError("nobody listens to the gradients of this run")
        self._tap = training.tap
        self._shares = [1.0] * len(self._covered)
        if training.sharded:
            self._shares = shares(self._covered, training.world_size)
        device = self._device = self._covered[0].device
        self._place = torch.tensor(
            [i for i, layer in enumerate(self._layers) for _ in layer.parameters], device=device
        )
        self._numel = self._by_layer([float(local(p).numel()) for p in self._covered])
        self._owner = {
            id(p): (optimizer, group)
            for optimizer in training.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        }
        self._before: list[torch.Tensor] | None = None
        self._samples, self._paired_at = 0, 0
        quantities = [*QUANTITIES, "adam_ratio"] if self._adam_like() else list(QUANTITIES)
        self._quantities = quantities
        ranks = "sum" if training.sharded else "same"
        self._columns = [
            Column.of(quantity, layer=layer.path, group=layer.group, ranks=ranks)
            for quantity in quantities
            for layer in self._layers
        ]
        if not training.sharded:  # no rank holds a whole gradient
            self._columns.append(Column.of("grad_cosine"))
        return self._columns

    def changed(self) -> Sequence[Column] | None:
        new, self._new = self._new, False
        return self._columns if new else None

    def _adam_like(self) -> bool:
        if self._training.sharded:
            return False  # a ratio of sums over all shards is no sum of ratios
        return any("betas" in optimizer.defaults for optimizer in self._training.optimizers)

    def arm(self, step: int) -> None:
        known = self._known
        if any(p.requires_grad and id(p) not in known for p in self._training.model.parameters()):
            self._take_stock()
        if not self._training.sharded:
            self._samples += 1
            # with a fixed cadence the next step is not sampled: a copy would be kept for nothing
            paired = self._samples % PAIRED == 1 or step - self._paired_at >= PAIRED_APART
            paired = paired and self.every in (None, 1)
            if paired:
                self._paired_at = step
            self._tap.pairs.begin(step, keep=paired)
        with torch.no_grad():
            self._before = [local(p).clone() for p in self._covered]

    def sample(self, step: int) -> torch.Tensor:
        if self._before is None:
            raise ProbeOffError("sampled without having been armed")
        with torch.no_grad():
            torch._foreach_sub_(self._before, [local(p) for p in self._covered])
            update = self._by_layer(squared_norms(self._before))
            weight = self._by_layer(squared_norms(self._covered))
            grad = self._by_layer(self._gradients()) * self._tap.factor**2
            rows = [grad, weight, update, self._numel]
            if "adam_ratio" in self._quantities:
                rows.append(self._adam_ratio(grad))
            if not self._training.sharded:
                cosine = self._tap.pairs.end(self._square())
                rows.append(stacked([cosine], self._device))
            return torch.cat(rows).float()

    def _square(self) -> float | torch.Tensor:
        squares = [s for p in self._tap.parameters if (s := self._tap.square_of(p)) is not None]
        if any(isinstance(square, torch.Tensor) for square in squares):
            return stacked(squares, self._device).sum()
        return sum(map(float, squares)) if squares else math.nan

    def hungry(self) -> bool:
        return self._tap.pairs.is_open

    def disarm(self) -> None:
        self._before = None

    def detach(self) -> None:
        self._before = None

    def _by_layer(self, values: Sequence[float | torch.Tensor]) -> torch.Tensor:
        total = torch.zeros(len(self._layers), dtype=torch.float64, device=self._device)
        rows = stacked(values, self._device)
        if self._training.sharded:
            rows *= torch.tensor(self._shares, dtype=torch.float64, device=self._device)
        return total.index_add_(0, self._place, rows)

    def _gradients(self) -> list[float | torch.Tensor]:
        squares = [self._tap.square_of(p) for p in self._covered]
        return [math.nan if square is None else square for square in squares]

    def _adam_ratio(self, grad_sq: torch.Tensor) -> torch.Tensor:
        """Return sqrt(mean g² / mean v_hat) per layer; g as the optimizer saw it."""
        clip = self._tap.clip_factor
        clip = 1.0 if math.isnan(clip) else clip
        second = self._by_layer([self._second_moment(p) for p in self._covered])
        return (grad_sq * clip**2 / second).sqrt()

    def _second_moment(self, parameter: torch.Tensor) -> float | torch.Tensor:
        """Return the sum of v_hat over a parameter, NaN where its optimizer holds none."""
        if id(parameter) not in self._owner:
            return math.nan
        optimizer, group = self._owner[id(parameter)]
        state = optimizer.state.get(parameter, {})
        if "exp_avg_sq" not in state or "step" not in state:
            return math.nan
        step = state["step"]
        total = state["exp_avg_sq"].sum(dtype=torch.float64)
        if isinstance(step, torch.Tensor) and step.device.type != "cpu":
            return total / (1 - group["betas"][1] ** step.double())
        bias = 1 - float(group["betas"][1]) ** float(step)
        if bias == 0:  # a loss scaler has let out every step so far
            return math.nan
        return total.item() / bias if total.device.type == "cpu" else total / bias
