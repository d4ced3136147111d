"""One training of a case, recorded by Otoscope or plain, and how well it ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import attach
from torch import Tensor, nn

from .._data import Batch, batches
from . import datasets, parts

COLUMNS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "all": {"budget": 0.2, "probes": "all"},
}
"""The two columns of the score card: the callback's defaults, and what more of a budget sees."""
LOOKED_AT = 256
"""Rows of long texts that a validation takes."""


@contextmanager
def evaluated(net: nn.Module) -> Iterator[None]:
    net.eval()
    with torch.no_grad():
        yield
    net.train()


def score(
    net: nn.Module, held: Batch, loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, float]:
    """Return the validation loss, and the accuracy where there are classes."""
    x, y = held[0][:LOOKED_AT] if held[0].shape[1:] == (32,) else held[0], held[1]
    y = y[: len(x)]
    with evaluated(net):
        outputs = net(x)
        told = {"val_loss": float(loss(outputs, y))}
        if not y.is_floating_point() and outputs.shape[-1] > 1:
            told["val_accuracy"] = float((outputs.argmax(-1) == y).float().mean())
    return told


def _scaler(spec: Mapping[str, Any]) -> torch.amp.GradScaler:
    growth = int(spec.get("growth_interval", 2000))
    return torch.amp.GradScaler("cpu", init_scale=float(spec["init"]), growth_interval=growth)


class Loop:
    """A plain training loop over the body of a case; `live` changes it while it runs."""

    def __init__(self, body: Mapping[str, Any], seed: int) -> None:
        torch.manual_seed(seed)
        self.body = body
        self.split = datasets.load(body["data"], body["normalize"])
        self.net = parts.net_of(body)
        self.loss = parts.loss_of(body)
        self.judged = parts.chosen("loss", parts.LOSSES, body["loss"])[0]
        self.stream = batches(self.split.train, int(body["batch"]), seed, body["order"])
        self.optimizer = parts.optimizer_of(body, self.net)
        self.clip = body["clip"]
        shape = parts.schedule_of(body)
        self.scheduler = shape and torch.optim.lr_scheduler.LambdaLR(self.optimizer, shape)
        self.spoil = parts.spoiler_of(body)
        spec: Mapping[str, Any] | None = body["scaler"]
        self.overflow = dict(spec or {})
        self.scaler = None if spec is None else _scaler(spec)
        self.samples = int(body["batch"]) * int(body["accumulate"])
        self.last = int(body["steps"] if body["stop"] is None else body["stop"])

    def on(self, net: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a batch, as curvature asks for it too."""
        return self.loss(net(batch[0]), batch[1])

    def step(self, step: int) -> tuple[float, Batch]:
        """Make one step of the optimizer; returns its loss and the last batch of it."""
        switch = self.body["switch"]
        if switch is not None and step == int(switch["step"]) + 1:
            self.live(switch["then"])
        self.optimizer.zero_grad()
        total, times = 0.0, int(self.body["accumulate"])
        batch: Batch = (torch.empty(0), torch.empty(0))
        for _ in range(times):
            batch = self.spoil(step, next(self.stream))
            loss = self.on(self.net, batch) / times
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            total += float(loss.detach())
        if self.scaler is not None:
            self._overflow(step)
            self.scaler.unscale_(self.optimizer)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), float(self.clip))
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return total, batch

    def _overflow(self, step: int) -> None:
        """Let a gradient overflow, as in half precision: from `start` up to `stop`, one step in `overflow_every`."""
        every = int(self.overflow.get("overflow_every", 0))
        begun = self.overflow.get("start", 1) <= step < self.overflow.get("stop", math.inf)
        if every and begun and step % every == 0:
            first = next(p for p in self.net.parameters() if p.grad is not None)
            assert first.grad is not None
            first.grad.view(-1)[0] = math.inf

    def stepped(self) -> None:
        """Move the schedule on."""
        if self.scheduler:
            self.scheduler.step()

    def live(self, settings: Mapping[str, Any]) -> None:
        """Take on settings in the middle of a run."""
        for key, value in settings.items():
            if key == "lr":
                for group in self.optimizer.param_groups:
                    group["lr"] = float(value)
                if self.scheduler:
                    self.scheduler = None
            elif key == "gradient_clip_val":
                self.clip = float(value)
            elif key == "betas":
                for group in self.optimizer.param_groups:
                    group["betas"] = tuple(value)
            else:
                raise KeyError(f"{key} cannot be changed in the middle of a run")

    def scored(self) -> dict[str, float]:
        """Return how well the net does on what it was not trained on."""
        return score(self.net, self.split.validation, self.judged)


def train(
    body: Mapping[str, Any], seed: int, folder: Path | None = None, name: str = "", **how: Any
) -> dict[str, Any]:
    """Train one case, recorded into a folder or not at all, and tell how it ended.

    `how` are keywords of `attach`: budget and probes. Returns `run`, the validation loss at the
    `first` and the `last` step, `accuracy`, the training `losses` at every tenth step, `seconds`.
    """
    loop = Loop(body, seed)
    first = loop.scored()
    recorder = None
    if folder is not None:
        recorder = attach(
            loop.net, loop.optimizer, loss_fn=loop.on, run=name, max_steps=int(body["steps"]),
            spool=folder, task=str(body["task"]), scaler=loop.scaler, verdict=False, strict=True,
            **how,
        )  # fmt: skip
    begun, losses = time.perf_counter(), []
    machine: Mapping[str, Any] = body["machine"] or {}
    for step in range(1, loop.last + 1):
        if machine:
            _hold_up(machine, step)
        loss, batch = loop.step(step)
        losses.append(loss)
        if recorder is not None:
            recorder.step(torch.tensor(loss), loop.samples, batch)
            if body["validate_every"] and step % int(body["validate_every"]) == 0:
                recorder.validate(loop.scored())
            if body["checkpoint_every"] and step % int(body["checkpoint_every"]) == 0:
                recorder.checkpoint(f"step={step}.ckpt")
        loop.stepped()
    if recorder is not None:
        recorder.finish()
    last = loop.scored()
    return {
        "run": "" if recorder is None else str(recorder.run_id),
        "first": first["val_loss"],
        "last": last["val_loss"],
        "accuracy": last.get("val_accuracy", math.nan),
        "losses": losses[::10],
        "seconds": time.perf_counter() - begun,
    }


def _hold_up(machine: Mapping[str, Any], step: int) -> None:
    """Wait as a slow machine does: from `start` up to `stop`, one step in `every`."""
    begun = machine.get("start", 1) <= step < machine.get("stop", math.inf)
    if begun and step % machine.get("every", 1) == 0:
        time.sleep(float(machine.get("seconds", 0.0)))
