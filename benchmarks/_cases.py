"""A case: what trains on what, one training of it under Otoscope, and a recommendation applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import attach
from torch import Tensor, nn
from torch.nn import functional

from ._data import Batch


@dataclass(frozen=True)
class Case:
    """One run: what trains on what, and why someone might think it ill.

    `spoil` changes the batch of a step; `lr` takes the place of the optimizer's.
    """

    name: str
    net: Callable[[], nn.Module]
    data: Callable[[], Batch]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    batch: int = 64
    schedule: Callable[[int, int], float] | None = None
    clip: float | None = None
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
    accumulate: int = 1
    look_alike: str = ""
    spoil: Callable[[int, Batch], Batch] | None = None
    lr: float | None = None


def sequence_loss(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), target.flatten())


def smoothed(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits, target, label_smoothing=0.1)


def last_layer_only(
    make: Callable[[nn.Module], torch.optim.Optimizer],
) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Return an optimizer that was handed the last layer alone."""
    return lambda net: make(list(net.children())[-1])


def sgd(lr: float, momentum: float = 0.0) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda net: torch.optim.SGD(trained(net), lr=lr, momentum=momentum)


def adam(lr: float, decay: float | None = None) -> Callable[[nn.Module], torch.optim.Optimizer]:
    if decay is None:
        return lambda net: torch.optim.Adam(trained(net), lr=lr)
    return lambda net: torch.optim.AdamW(trained(net), lr=lr, weight_decay=decay)


def trained(net: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in net.parameters() if parameter.requires_grad]


def cosine(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def restarts(step: int, steps: int) -> float:
    third = max(steps // 3, 1)
    return cosine(step % third, third)


def warm_up(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 100) * cosine(step, steps)


def batches(data: Batch, size: int, seed: int) -> Iterator[Batch]:
    x, y = data
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(x), generator=generator)
        for first in range(0, max(len(x) - size + 1, 1), size):
            rows = order[first : first + size]
            yield x[rows], y[rows]


@dataclass(frozen=True)
class Training:
    """How a training ended: the losses of its steps, and the loss over all of its data."""

    run: str
    losses: list[float]
    first: float
    last: float


def train(
    case: Case, seed: int, steps: int, *, budget: float = 0.02, folder: Path | None = None
) -> Training:
    """Train one case, recorded into a folder, or without Otoscope where there is none."""
    torch.manual_seed(seed)
    data = case.data()
    net, stream = case.net(), batches(data, case.batch, seed)
    optimizer = case.optimizer(net)
    if case.lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = case.lr
    schedule = case.schedule
    scheduler = None
    if schedule is not None:
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: schedule(s, steps))

    def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
        return case.loss(model(batch[0]), batch[1])

    first = _over_all(net, data, case)
    recorder = None
    if folder is not None:
        recorder = attach(
            net, optimizer, loss_fn=loss_fn, run=case.name, budget=budget, max_steps=steps,
            spool=folder, verdict=False, strict=True,
        )  # fmt: skip
    losses = []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        total = 0.0
        batch = None
        for _ in range(case.accumulate):
            batch = next(stream)
            if case.spoil is not None:
                batch = case.spoil(step, batch)
            loss = loss_fn(net, batch) / case.accumulate
            loss.backward()
            total += float(loss.detach())
        losses.append(total)
        if case.clip is not None:
            nn.utils.clip_grad_norm_(net.parameters(), case.clip)
        optimizer.step()
        if recorder is not None:
            recorder.step(torch.tensor(total), case.batch * case.accumulate, batch)
        if scheduler is not None:
            scheduler.step()
    run = ""
    if recorder is not None:
        recorder.finish()
        run = str(recorder.run_id)
    return Training(run, losses, first, _over_all(net, data, case))


def _over_all(net: nn.Module, data: Batch, case: Case) -> float:
    net.eval()
    with torch.no_grad():
        value = float(case.loss(net(data[0][:2000]), data[1][:2000]))
    net.train()
    return value


def applied(case: Case, advice: dict[str, Any]) -> Case:
    """Return a case with a recommendation applied unedited; KeyError where it has no such setting."""
    pairs = [advice, *(advice.get("also") or ())]
    for pair in pairs:
        case = _SETTERS[str(pair["parameter"])](case, pair["proposed"])
    return case


def _with_net(case: Case, change: Callable[[nn.Module], None]) -> Case:
    def net() -> nn.Module:
        made = case.net()
        change(made)
        return made

    return replace(case, net=net)


def _set_activation(case: Case, proposed: dict[str, str]) -> Case:
    def change(net: nn.Module) -> None:
        for layer, name in proposed.items():
            net.get_submodule(layer)
            net.set_submodule(layer, getattr(nn, name)())

    return _with_net(case, change)


def _set_weights(case: Case, proposed: dict[str, dict[str, Any]]) -> Case:
    def change(net: nn.Module) -> None:
        for layer, init in proposed.items():
            module = net.get_submodule(layer)
            if init.get("std") is not None:
                nn.init.normal_(module.weight, std=init["std"])  # type: ignore[arg-type]
            else:
                getattr(nn.init, init["kind"] + "_")(module.weight)
            if isinstance(module.bias, Tensor):
                nn.init.zeros_(module.bias)

    return _with_net(case, change)


def _set_parameters(case: Case, names: list[str]) -> Case:
    def optimizer(net: nn.Module) -> torch.optim.Optimizer:
        made = case.optimizer(net)
        made.add_param_group({"params": [p for n, p in net.named_parameters() if n in names]})
        return made

    return replace(case, optimizer=optimizer)


_SETTERS: dict[str, Callable[[Case, Any], Case]] = {
    "lr": lambda case, value: replace(case, lr=float(value)),
    "gradient_clip_val": lambda case, value: replace(case, clip=float(value)),
    "activation": _set_activation,
    "weight_init": _set_weights,
    "params": _set_parameters,
}
