"""What a run tells of itself before it starts: optimizers and parameters, for Meta."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..store.schemas import Json
from .layers import described_parameters
from .measures.activations import activation_kind


def described_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Json]:
    """Return the name of an optimizer, how many groups it has, and the settings of the first.

    `base_lr`: the rate that a schedule of torch counts from, `max_lr`: that which OneCycleLR goes by; None
    where there is none.

    >>> row = described_optimizer(torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9))
    >>> row["name"], row["lr"], row["momentum"]
    ('SGD', 0.1, 0.9)
    """
    return _described(optimizer, next(iter(optimizer.param_groups), {}))


def described_anew(optimizer: torch.optim.Optimizer, told: Mapping[str, Json]) -> dict[str, Json]:
    """Return the row of an optimizer that was `told` of before, waiting for nothing.

    What lies on a device stays as it was told.
    """
    group = next(iter(optimizer.param_groups), {})
    far = {key for key, value in group.items() if key != "params" and _waits(value)}
    row = _described(optimizer, {key: group[key] for key in group.keys() - far})
    names = {"base_lr" if key == "initial_lr" else key for key in far}
    return row | {name: told[name] for name in row.keys() & names if name in told}


def _waits(value: Any) -> bool:
    parts = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(part, torch.Tensor) and not part.is_cpu for part in parts)


def _described(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> dict[str, Json]:
    betas, top = group.get("betas"), group.get("max_lr")
    return {
        "name": type(optimizer).__name__,
        "lr": _number(group.get("lr")),
        "base_lr": _number(group.get("initial_lr")),
        "max_lr": _number(top) if isinstance(top, (int, float)) else None,
        "groups": len(optimizer.param_groups),
        "betas": None if betas is None else [_number(beta) for beta in betas],
        "momentum": _number(group.get("momentum")),
        "nesterov": bool(group.get("nesterov", False)),
        "weight_decay": _number(group.get("weight_decay")),
    }


def described_model(
    model: torch.nn.Module, optimizers: Iterable[torch.optim.Optimizer]
) -> dict[str, Json]:
    """Return the fields of Meta that model and optimizers tell."""
    optimizers = list(optimizers)
    rows = described_parameters(model, optimizers)
    return {
        "model": type(model).__name__,
        "parameter_count": sum(row["numel"] for row in rows if row["requires_grad"]),
        "optimizers": [described_optimizer(optimizer) for optimizer in optimizers],
        "parameters": rows,
        "activations": {
            path: kind
            for path, module in model.named_modules()
            if (kind := activation_kind(module)) is not None
        },
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def batch_size_of(batch: Any) -> int | None:
    """Return the rows of the first tensor in a batch, None where there is none.

    >>> batch_size_of({"image": torch.zeros(8, 3), "label": torch.zeros(8)})
    8
    """
    if type(batch) in (list, tuple) and batch and type(batch[0]) is torch.Tensor:
        batch = batch[0]  # nearly always
    if isinstance(batch, torch.Tensor):
        return batch.size(0) if batch.ndim else 1
    if isinstance(batch, dict):
        batch = list(batch.values())
    elif not isinstance(batch, (list, tuple)):
        batch = list(vars(batch).values()) if hasattr(batch, "__dict__") else []
    for item in batch:
        size = batch_size_of(item) if isinstance(item, (torch.Tensor, dict, list, tuple)) else None
        if size is not None:
            return size
    return None


def workers_of(loader: Any) -> int | None:
    """Return how many processes a DataLoader loads with, None where it is none.

    >>> workers_of(torch.utils.data.DataLoader([1, 2, 3])), workers_of([1, 2, 3])
    (0, None)
    """
    found = getattr(loader, "num_workers", None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def cpu_count(ranks_here: int = 1) -> int | None:
    """Return the cores that this process may use, None where nobody tells.

    `ranks_here`: processes of the run on this machine, among which they are shared.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 0
    return max(1, cores // max(1, ranks_here)) if cores else None
