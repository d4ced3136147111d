"""One training of a held-out net: plain, for what is true, or looked into, for what is predicted."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from otoscope.callbacks import attach
from otoscope.callbacks.probes.probe import Probe
from otoscope.store import Store, connect
from torch import nn

from .._data import Batch, batches
from .subjects import Subject

OPTIMIZERS = ("sgd", "momentum", "adam")
DEFAULT = {"sgd": 0.05, "momentum": 0.01, "adam": 0.001}
"""The learning rates that one begins with who knows nothing of a net."""
HOPELESS = 1e6
"""Times the first loss at which a training is broken off."""


def optimizer_of(kind: str, net: nn.Module, lr: float) -> torch.optim.Optimizer:
    if kind == "adam":
        return torch.optim.Adam(net.parameters(), lr=lr)
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9 if kind == "momentum" else 0.0)


def made(subject: Subject, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return subject.net()


def over_all(subject: Subject, net: nn.Module, data: Batch) -> float:
    """Return the loss over all data, in the mode that trains: of batch norm, by batch statistics."""
    with torch.no_grad(), _unmoved(net):
        return float(subject.value(net, data))


@contextmanager
def _unmoved(net: nn.Module) -> Iterator[None]:
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 0.0
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def curve(
    subject: Subject,
    kind: str,
    lr: float,
    steps: Sequence[int],
    seed: int = 0,
    *,
    then: tuple[int, float] | None = None,
) -> np.ndarray:
    """Return the loss over all data before the first step and after each of `steps` (ascending).

    `then`: a number of steps after which the learning rate is another one, and that. inf from where the loss is not finite or a million times the first.
    """
    net, data = made(subject, seed), subject.data()
    optimizer = optimizer_of(kind, net, lr)
    stream = batches(data, subject.batch, seed)
    found = np.full(len(steps) + 1, math.inf)
    found[0] = over_all(subject, net, data)
    asked = {step: place for place, step in enumerate(steps, 1)}
    for step in range(1, steps[-1] + 1):
        if then is not None and step == then[0] + 1:
            for group in optimizer.param_groups:
                group["lr"] = then[1]
        optimizer.zero_grad()
        subject.value(net, next(stream)).backward()
        optimizer.step()
        if step in asked:
            value = over_all(subject, net, data)
            if not value < HOPELESS * max(found[0], 1.0):
                break
            found[asked[step]] = value
    return found


@contextmanager
def looked_into(
    subject: Subject,
    kind: str,
    lr: float,
    steps: int,
    probes: Sequence[Probe],
    *,
    seed: int = 0,
    may_fail: bool = False,
) -> Iterator[tuple[Store, str]]:
    """Train with probes attached, as one does; give the recording that they made.

    A probe that goes off is an error, unless the training itself `may_fail`.
    """
    net, data = made(subject, seed), subject.data()
    optimizer = optimizer_of(kind, net, lr)
    stream = batches(data, subject.batch, seed)
    with tempfile.TemporaryDirectory() as folder:
        recorder = attach(
            net, optimizer, loss_fn=subject.value, run=subject.name, max_steps=steps,
            probes=probes, spool=folder, verdict=False, strict=True,
        )  # fmt: skip
        for _ in range(steps):
            batch = next(stream)
            optimizer.zero_grad()
            loss = subject.value(net, batch)
            loss.backward()
            optimizer.step()
            recorder.step(loss.detach(), len(batch[0]), batch)
        recorder.finish()
        run = str(recorder.run_id)
        store = connect(Path(folder) / run)
        for event in store.events(run):
            if event.kind == "probe_off" and not may_fail:
                raise RuntimeError(f"{subject.name}, {kind}: a probe went off: {event.body}")
        yield store, run


def recorded(store: Store, run: str, family: str, column: str) -> np.ndarray:
    """Return the finite samples of a column, in the order of their steps."""
    series: Any = store.read(run, family, columns=[column])
    values = series.values[:, 0]
    return values[np.isfinite(values)]


def median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan
