"""Facts: the scalars of a run's past that no window reaches back to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

import numpy as np

from ..store import Event
from ..store.schemas import Json, plain
from .medians import median_of
from .ratios import layer_ratios, update_ratios
from .spikes import bursts
from .thresholds import Thresholds
from .windows import History, Window

FIRST_LOSSES = 5
BLOCK = 50
KEPT_CHECKPOINTS = 20
SANE = 1.5
BEGAN_AT_ZERO = 0.9999
"""A first step of such a share of the weights that it made is all that they are."""


@dataclass
class Facts:
    """What is kept of a run's past, as scalars; NaN where it was not measured yet.

    `first_step`: of the attempt. `loss_start`: median of the first five losses, or the first one
    where it is lower. `loss_best`: the lowest median of 50 losses. `loss_peak`: the largest loss.
    `lr_at_best`: largest learning rate up to the step of `loss_best`; `lr_peak`: of the attempt; `lr_last`: of its last step.
    `grad_start`: median gradient norm of the first 20 steps. `update_first`: update ratio of the
    attempt's first step (median over layers, against the weights before it), NaN where that step
    was not sampled; its learning rate beside it. `update_peak`: largest update ratio;
    `update_sound`: the same among samples before the loss blew up. `bursts_step`: the last point
    with lone spikes in the last 100 losses. `edge_peak`: largest edge ratio of a sample with a
    positive eigenvalue and a sound net; its eigenvalue and spread beside it. `dead_start`: share of
    dead units per layer at the first sample. `deleted`: whether a checkpoint was deleted, or written over. `unkept`: the step up to which the beginning of the
    run was not kept, 0 where it was: then what it began with is not known.
    """

    unkept: int = 0
    first_step: int = 1
    first_losses: list[float] = field(default_factory=list)
    first_norms: list[float] = field(default_factory=list)
    loss_start: float = math.nan
    loss_best: float = math.nan
    loss_best_step: int = 0
    lr_at_best: float = math.nan
    loss_peak: float = math.nan
    loss_peak_step: int = 0
    grad_start: float = math.nan
    update_first: float = math.nan
    update_first_lr: float = math.nan
    update_peak: float = math.nan
    update_peak_step: int = 0
    update_sound: float = math.nan
    bursts_step: int = -1
    edge_peak: float = math.nan
    edge_step: int = 0
    edge_lambda: float = math.nan
    edge_spread: float = math.nan
    edge_lr: float = math.nan
    lambda_last: float = math.nan
    lr_peak: float = math.nan
    lr_last: float = math.nan
    dead_start: dict[str, float] = field(default_factory=dict)
    checkpoints: list[dict[str, Json]] = field(default_factory=list)
    deleted: bool = False

    def to_json(self) -> dict[str, Json]:
        """Return the facts as a JSON object."""
        return plain(asdict(self))

    @property
    def loss_scale(self) -> float:
        """What a rise of the loss is measured against: the first loss, or how far it has come.

        A loss that is no less than zero cannot fall by more than its start. One that may lie under it
        (a log-likelihood, an ELBO) may begin near zero, which is no measure of anything.
        """
        fall = self.loss_start - self.loss_best
        return max(abs(self.loss_start), fall) if math.isfinite(fall) else abs(self.loss_start)

    def spike_floor(self, numbers: Thresholds) -> float:
        """Return the loss over which a lone one is a spike: so many times the first one."""
        return self.loss_start + (numbers["spike_of_start"] - 1) * self.loss_scale

    @classmethod
    def from_json(cls, body: Mapping[str, Json]) -> Facts:
        """Read what `to_json` wrote."""
        special = {None: math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
        known = {item.name for item in fields(cls)}
        facts = cls()
        for key, value in body.items():
            if key in known:
                scalar = value is None or isinstance(value, str)
                setattr(facts, key, special[value] if scalar else value)
        return facts

    def begin_attempt(self, first_step: int) -> None:
        """Let go of what a new attempt measures anew; how the run began stays."""
        self.first_step = first_step
        # those behind it are of the course that was given up: its end may be what was wrong
        self.checkpoints = [entry for entry in self.checkpoints if entry["step"] < first_step]
        fresh = Facts()
        for name in (
            "update_first",
            "update_first_lr",
            "lr_at_best",
            "update_peak",
            "update_sound",
            "edge_peak",
            "lr_peak",
            "lr_last",
            "loss_best",
            "lambda_last",
        ):
            setattr(self, name, getattr(fresh, name))
        self.update_peak_step = self.edge_step = self.loss_best_step = 0
        self.bursts_step = -1

    def learn(self, history: History, before: int, window: Window, numbers: Thresholds) -> None:
        """Take in what came in `before` < step <= the window's point.

        `numbers` are those of `lr_too_high`, which say what a lone spike of the loss is.
        """
        self._learn_losses(history, before, window)
        self._learn_layers(history, before, window, numbers["torn"])
        self._learn_curvature(history, before, window, numbers["torn"])
        losses = window.samples("train", "loss", count=100).finite.values
        floor = self.spike_floor(numbers)
        if len(bursts(losses, numbers, floor)):
            self.bursts_step = window.step

    def checkpointed(self, event: Event) -> None:
        """Remember a checkpoint: where it lies, and whether its weights were finite; and forget what is gone.

        A file that was written over holds the later weights alone.
        """
        body = event.body
        path, gone = body.get("path"), body.get("gone") or []
        entry = {"step": event.step, "path": path, "finite": body.get("finite", True)}
        kept = [one for one in self.checkpoints if one["path"] not in (path, *gone)]
        self.deleted |= len(kept) < len(self.checkpoints)
        self.checkpoints = [*kept, entry][-KEPT_CHECKPOINTS:]

    def _learn_losses(self, history: History, before: int, window: Window) -> None:
        new = history.column("train", "loss", before, window.step).finite
        if len(self.first_losses) < FIRST_LOSSES and len(new):
            self.first_losses += new.values[: FIRST_LOSSES - len(self.first_losses)].tolist()
            # a rate far too high spoils all but the very first loss
            self.loss_start = min(median_of(self.first_losses), self.first_losses[0])
        if len(new):
            top = int(np.argmax(new.values))
            if not new.values[top] <= self.loss_peak:
                self.loss_peak, self.loss_peak_step = float(new.values[top]), int(new.steps[top])
        block = window.samples("train", "loss", count=BLOCK).finite
        if len(block) >= BLOCK // 2 and not block.median >= self.loss_best:
            self.loss_best, self.loss_best_step = block.median, window.step
            self.lr_at_best = self.lr_peak  # of the points before: it may just have jumped
        rates = window.samples("train", "lr", span=window.step - before).finite.values
        if len(rates) and not float(rates.max()) <= self.lr_peak:
            self.lr_peak = float(rates.max())
        if len(rates):
            self.lr_last = float(f"{rates[-1]:.6g}")
        if len(self.first_norms) < 20:
            norms = np.sqrt(history.column("train", "grad_sq", before, window.step).values)
            norms = norms[np.isfinite(norms)]
            if len(norms):
                self.first_norms += norms[: 20 - len(self.first_norms)].tolist()
                self.grad_start = median_of(self.first_norms)

    def _learn_layers(self, history: History, before: int, window: Window, torn: float) -> None:
        step = window.step
        steps, ratios = update_ratios(history, before, step)
        if before < self.first_step <= step:
            self._learn_first_step(history)
        for at, ratio in zip(steps.tolist(), ratios.tolist(), strict=True):
            if not ratio <= self.update_peak:
                self.update_peak, self.update_peak_step = ratio, at
            if not ratio <= self.update_sound and self._sane(window, at, torn):
                self.update_sound = ratio
        dead = history.layers("activations", "dead", before, step)
        if not len(dead) or all(map(self.dead_start.__contains__, dead.layers)):
            return
        units = history.layers("activations", "units", before, step)
        if dead.layers != units.layers:
            return
        unknown = [i for i, layer in enumerate(dead.layers) if layer not in self.dead_start]
        if unknown:
            whole = units.values[:, unknown]
            shares = dead.values[:, unknown] / np.where(whole > 0, whole, np.nan)
            known = np.isfinite(shares)
            for i in np.flatnonzero(known.any(axis=0)).tolist():
                self.dead_start[dead.layers[unknown[i]]] = float(shares[known[:, i].argmax(), i])

    def _learn_first_step(self, history: History) -> None:
        """Remember the first step against the weights before it, which were not measured.

        A step that has nothing to do with the weights adds to them at a right angle. Weights that
        begin at zero have no size to compare with.
        """
        at = self.first_step
        _, ratios = layer_ratios(history, at - 1, at)
        began = ratios[ratios < BEGAN_AT_ZERO]
        if not len(began):
            return
        ratio = median_of(began)
        rates = history.column("train", history.first_column("train", "lr") or "lr", at - 1, at)
        self.update_first = ratio / math.sqrt(1 - ratio**2)
        self.update_first_lr = float(rates.values[0]) if len(rates) else math.nan

    def _learn_curvature(self, history: History, before: int, window: Window, torn: float) -> None:
        values = history.column("curvature", "lambda_1", before, window.step)
        if not len(values):
            return
        ratio = history.written("curvature", "edge_ratio")  # of several optimizers the first's
        edges = history.column("curvature", ratio, before, window.step)
        spread = history.column("curvature", "lambda_spread", before, window.step)
        for i in range(len(values)):
            top = float(values.values[i])
            if math.isfinite(top):
                self.lambda_last = top
            edge = float(edges.values[i]) if i < len(edges) else math.nan
            if (
                top > 0
                and self._sane(window, int(values.steps[i]), torn)
                and edge > (self.edge_peak if math.isfinite(self.edge_peak) else 0.0)
            ):
                self.edge_peak, self.edge_step, self.edge_lambda = edge, int(values.steps[i]), top
                self.edge_spread = float(spread.values[i]) if i < len(spread) else math.nan
                rates = window.samples("train", "lr").finite
                at = rates.values[rates.steps <= values.steps[i]]
                self.edge_lr = float(at[-1]) if len(at) else math.nan

    def _sane(self, window: Window, step: int, torn: float) -> bool:
        """Tell whether loss and units were whole: the curvature of a broken net misleads."""
        if step == self.first_step:
            return True  # measured at the weights that the run began with
        if self.update_peak > torn and self.update_peak_step < step:
            return False
        losses = window.samples("train", "loss")
        behind = losses.values[losses.steps <= step][-FIRST_LOSSES:]
        limit = self.loss_start + (SANE - 1) * self.loss_scale
        calm = bool(len(behind) and median_of(behind) <= limit)
        return calm and not mostly_dead(window, step)


def mostly_dead(window: Window, upto: int) -> bool:
    """Tell whether more than half of all units were dead at the last sample up to a step."""
    dead = window.layers("activations", "dead", count=100)
    units = window.layers("activations", "units", count=100)
    known = np.flatnonzero((dead.steps <= upto) & dead.known)
    if not len(known) or dead.layers != units.layers:
        return False
    total = np.nansum(units.values[known[-1]])
    return bool(total > 0 and np.nansum(dead.values[known[-1]]) > total / 2)


def learned(window: Window, facts: Facts, share: float) -> bool:
    """Tell whether the loss (median of 50) fell under a share of its start.

    A loss that began under zero must fall by as much as one that began so far above it.
    """
    losses = window.samples("train", "loss", count=BLOCK).finite
    start = facts.loss_start
    least = start - (1 - share) * abs(start)
    return bool(len(losses) and losses.median < least)
