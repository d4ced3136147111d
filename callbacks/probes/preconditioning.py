"""What an optimizer makes of the Hessian: its learning rate, momentum, and its preconditioner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FEWEST_STEPS = 10
"""Adam's steps before which its mean of squares is no mean yet: after one it is a single gradient's,
and an element whose gradient happened to be small would make any eigenvalue look huge."""


@dataclass(frozen=True, slots=True)
class Preconditioner:
    """An optimizer as its edge of stability needs it.

    `root` [d] is such that root · H · root is to be held against the edge at `lr`: P^-1/2 for Adam
    with P = √v̂ + ε, times the root of each element's share of the largest learning rate, and 0 for
    what the optimizer does not move; None where it is 1 everywhere.
    """

    name: str
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    beta1: float = 0.9
    root: Tensor | None = None


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return the learning rates of an optimizer's groups, as they are now."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def preconditioner(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    lrs: Sequence[float] | None = None,
) -> Preconditioner | None:
    """Return how an optimizer scales the Hessian of `parameters`, of which some may not be its own.

    `lrs` are the learning rates of its groups in the step that is meant; a scheduler may have set
    others since.

    Known are SGD without dampening, Adam and AdamW (also AMSGrad), each exactly that class, with
    one momentum for all groups. None for anything else: a guess would be taken for a measurement.
    Also None before Adam's tenth step.

    >>> w = torch.ones(2, requires_grad=True)
    >>> preconditioner(torch.optim.SGD([w], lr=0.1, momentum=0.9), [w])
    Preconditioner(name='SGD', lr=0.1, momentum=0.9, nesterov=False, beta1=0.9, root=None)
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)  # Lightning wraps it
    told = rates(optimizer) if lrs is None else list(lrs)
    if len(told) != len(optimizer.param_groups):
        return None  # a group came in between
    groups = [
        {**group, "lr": lr}
        for group, lr in zip(optimizer.param_groups, told, strict=True)
        if group["params"]
    ]
    settings = [_settings(type(optimizer), group) for group in groups]
    if not settings or settings[0] is None or any(s != settings[0] for s in settings):
        return None
    name, momentum, nesterov, beta1 = settings[0]
    top = max(group["lr"] for group in groups)
    group_of = {id(p): group for group in groups for p in group["params"]}
    shares = [
        (group_of[id(p)]["lr"] / top if top else 1.0) if id(p) in group_of else 0.0
        for p in parameters
    ]
    if name == "SGD":
        level = all(share == 1.0 for share in shares)
        root = None if level else _roots(parameters, shares)
        return Preconditioner(name, top, momentum, nesterov, beta1, root)
    seconds = [
        _second_moment(optimizer.state.get(p, {}), group_of[id(p)]) if id(p) in group_of else None
        for p in parameters
    ]
    if all(second is None for second in seconds):
        return None
    # what never had a gradient has no mean of squares, and is not moved
    shares = [
        0.0 if second is None else share for share, second in zip(shares, seconds, strict=True)
    ]
    return Preconditioner(name, top, momentum, nesterov, beta1, _roots(parameters, shares, seconds))


def _settings(
    kind: type[torch.optim.Optimizer], group: dict[str, Any]
) -> tuple[str, float, bool, float] | None:
    if group.get("maximize"):
        return None
    if kind is torch.optim.SGD and not group["dampening"]:
        return "SGD", float(group["momentum"]), bool(group["nesterov"]), 0.9
    if kind in (torch.optim.Adam, torch.optim.AdamW):
        return kind.__name__, 0.0, False, float(group["betas"][0])
    return None


def _roots(
    parameters: Sequence[Tensor],
    shares: Sequence[float],
    seconds: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """Return √(share of the learning rate / second moment), flat over all parameters."""
    parts = []
    for i, p in enumerate(parameters):
        scale = torch.full_like(p, shares[i], requires_grad=False)
        second = None if seconds is None else seconds[i]
        root = (scale if second is None else scale / second).sqrt()
        parts.append(root.to(p.dtype).reshape(-1))
    return torch.cat(parts)


def _second_moment(state: dict[str, Any], group: dict[str, Any]) -> Tensor | None:
    """Return √v̂ + ε of one parameter, or None before its tenth step."""
    if "exp_avg_sq" not in state or float(state["step"]) < FEWEST_STEPS:
        return None
    mean = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    correction = 1 - float(group["betas"][1]) ** float(state["step"])
    return (mean / correction).sqrt() + float(group["eps"])
