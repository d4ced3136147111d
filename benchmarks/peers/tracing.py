"""The dense logger: trains a run of the fault bench as the bench does, and writes its trace."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..faults import training
from ..faults.case import text_of
from ..faults.datasets import Batch
from ..faults.runs import ROOT, digest
from .trace import FIRST_STEPS, VALIDATE_EVERY, Trace, load, save

OUT = ROOT / "benchmarks" / "out" / "peers"
LIMITS = {"relu": (0.0, math.inf), "tanh": (-9.4999, 9.4999), "sigmoid": (-23.0, 16.99999)}
"""Where a unit counts as active: SageMaker's documented thresholds, of the activation's input."""
KINDS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
ACTIVE = 0.01
"""Share of a batch in which a unit must be active, or it is not."""


class Traced(training.Loop):
    """The bench's own loop, looked at in every step; what it computes stays the same."""

    def __init__(self, body: Mapping[str, Any], seed: int) -> None:
        super().__init__(body, seed)
        self.names = [name for name, weight in self.net.named_parameters() if weight.ndim >= 2]
        self.kinds: list[str] = []
        self.now: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self._judge = self.loss
        self.loss = self._seen
        # the unclipped gradient is there once only: clipping is looked on at, not done here
        self.optimizer.register_step_pre_hook(self._before)
        self.optimizer.register_step_post_hook(self._after)
        for module in self.net.modules():
            kind = KINDS.get(type(module))
            if kind is not None:
                self._watch(module, kind, len(self.kinds))
                self.kinds.append(kind)

    def _watch(self, module: nn.Module, kind: str, place: int) -> None:
        low, high = LIMITS[kind]

        def look(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
            if not self.net.training:
                return
            with torch.no_grad():
                x = inputs[0].detach().flatten(1)
                active = ((x > low) & (x < high)).float().mean(0)
                self.now.setdefault("inactive", {})[place] = float((active < ACTIVE).float().mean())
                self.now.setdefault("input_variance", {})[place] = float(x.var())

        module.register_forward_hook(look)

    def _seen(self, outputs: Tensor, target: Tensor) -> Tensor:
        value = self._judge(outputs, target)
        if not target.is_floating_point() and outputs.shape[-1] > 1:
            with torch.no_grad():
                wrong = (outputs.argmax(-1) != target).flatten()
                classes, seen = outputs.shape[-1], target.flatten()
                labels = torch.bincount(seen, minlength=classes)
                missed = torch.bincount(seen[wrong], minlength=classes)
                self.now["labels"] = self.now.get("labels", 0) + labels.double().numpy()
                self.now["wrong"] = self.now.get("wrong", 0) + missed.double().numpy()
        return value

    def step(self, step: int) -> tuple[float, Batch]:
        self.now = {}
        begun = time.perf_counter()
        with ClippingSeen(self.now):
            loss, batch = super().step(step)
        row = self.now
        row |= {"step_seconds": time.perf_counter() - begun, "loss": loss}
        self.rows.append(row)
        return loss, batch

    def _before(self, *_: Any) -> None:
        held = dict(self.net.named_parameters())
        with torch.no_grad():
            self.now["lr"] = float(self.optimizer.param_groups[0]["lr"])
            if "grad_norm" not in self.now:  # nothing was clipped
                grads = [p.grad for p in held.values() if p.grad is not None]
                self.now["grad_norm"] = float(nn.utils.get_total_norm(grads)) if grads else 0.0
            weights = [held[name].detach() for name in self.names]
            self.before = [weight.clone() for weight in weights]
            self._tell("weight_norm", range(len(weights)), norms(weights))
            places = [i for i, name in enumerate(self.names) if held[name].grad is not None]
            self._gradients(places, [held[self.names[i]].grad for i in places])

    def _gradients(self, places: Sequence[int], grads: Sequence[Any]) -> None:
        if not places:
            return
        sizes = torch.tensor([grad.numel() for grad in grads])
        self._tell("grad_norm", places, norms(grads))
        self._tell("grad_abs_mean", places, norms(grads, 1) / sizes)
        filled = torch.stack([torch.count_nonzero(grad) for grad in grads])
        self._tell("grad_zeros", places, 1 - filled / sizes)
        if len(self.rows) < FIRST_STEPS:
            ends = torch.tensor([0.05, 0.95])
            both = [torch.quantile(grad.flatten()[:100_000].float(), ends) for grad in grads]
            self._tell("grad_spread", places, torch.stack([high - low for low, high in both]))

    def _after(self, *_: Any) -> None:
        held = dict(self.net.named_parameters())
        with torch.no_grad():
            weights = [held[name].detach() for name in self.names]
            moved = torch._foreach_sub(weights, self.before) if weights else []
            self._tell("update_norm", range(len(weights)), norms(moved))

    def _tell(self, key: str, places: Sequence[int], values: Tensor) -> None:
        self.now[f"w/{key}"] = dict(zip(places, values.tolist(), strict=True))


def norms(tensors: Sequence[Tensor], order: int = 2) -> Tensor:
    """Return the norm of each tensor."""
    found = torch._foreach_norm(list(tensors), order) if tensors else []
    return torch.stack(list(found)) if len(found) else torch.zeros(0)


class ClippingSeen:
    """Keeps the norm that clipping found, of the gradient as it was before."""

    def __init__(self, now: dict[str, Any]) -> None:
        self.now = now

    def __enter__(self) -> None:
        self.clip = nn.utils.clip_grad_norm_

        def seen(*arguments: Any, **keywords: Any) -> Tensor:
            norm = self.clip(*arguments, **keywords)
            self.now["grad_norm"] = float(norm)
            return norm

        nn.utils.clip_grad_norm_ = seen

    def __exit__(self, *_: object) -> None:
        nn.utils.clip_grad_norm_ = self.clip


def traced(body: Mapping[str, Any], seed: int, out: Path = OUT) -> Path:
    """Return the file of a run's trace, trained where it is not kept."""
    path = path_of(body, seed, out)
    if not path.exists():
        torch.set_num_threads(1)
        save(train(body, seed), path)
    return path


def path_of(body: Mapping[str, Any], seed: int, out: Path = OUT) -> Path:
    return out / "traces" / f"{digest(text_of(body), str(seed))}.npz"


def kept(body: Mapping[str, Any], seed: int, out: Path = OUT) -> Trace:
    return load(traced(body, seed, out))


def train(body: Mapping[str, Any], seed: int) -> Trace:
    """Train one run and return its trace; the losses are those of the bench's own run."""
    loop = Traced(body, seed)
    loop.scored()  # as the bench does, before the first step
    machine: Mapping[str, Any] = body["machine"] or {}
    for step in range(1, loop.last + 1):
        begun = time.perf_counter()
        if machine:
            training._hold_up(machine, step)
        waited = time.perf_counter() - begun
        loop.step(step)
        loop.rows[-1]["data_seconds"] = waited
        loop.rows[-1]["step_seconds"] += waited
        if step % VALIDATE_EVERY == 0:
            loop.rows[-1] |= loop.scored()
        loop.stepped()
    return _assembled(loop, timed=bool(machine))


def _assembled(loop: Traced, timed: bool) -> Trace:
    rows = loop.rows
    names = ("loss", "lr", "grad_norm", "val_loss", "val_accuracy")
    # where a case is not about time, the machine's is chance
    names += ("step_seconds", "data_seconds") if timed else ()
    series = {name: _series([row.get(name, math.nan) for row in rows]) for name in names}
    keys = sorted({key for row in rows for key in row if key.startswith("w/")})
    labels = wrong = None
    if rows and "labels" in rows[0]:
        labels = np.array([row["labels"] for row in rows])
        wrong = np.array([row["wrong"] for row in rows])
        series["train_accuracy"] = 1 - wrong.sum(1) / labels.sum(1)
    batch = int(loop.body["batch"]) * int(loop.body["accumulate"])
    return Trace(
        series,
        layers=tuple(loop.names),
        weights={key[2:]: _table(rows, key, len(loop.names)) for key in keys},
        kinds=tuple(loop.kinds),
        activations={
            key: _table(rows, key, len(loop.kinds)) for key in ("inactive", "input_variance")
        },
        labels=labels,
        wrong=wrong,
        epoch_steps=max(1, len(loop.split.train[0]) // batch),
    )


def _series(values: list[float]) -> Any:
    return np.array(values, dtype=np.float64)


def _table(rows: list[dict[str, Any]], key: str, columns: int) -> Any:
    table = np.full((len(rows), columns), math.nan)
    for place, row in enumerate(rows):
        for column, value in row.get(key, {}).items():
            table[place, column] = value
    return table
