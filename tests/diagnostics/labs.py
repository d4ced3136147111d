"""Runs of the laboratory, judged: what came of them, how their loss ended, what was named first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from otoscope.diagnostics import judge
from torch import nn

from .lab import RUN, Lab, mlp


def run_lab(
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    *,
    net: Callable[[], nn.Module] = mlp,
    seed: int = 0,
    **settings: Any,
) -> tuple[Lab, dict[str, Any]]:
    torch.manual_seed(seed)
    model = net()
    lab = Lab(model, optimizer(list(model.parameters())), seed=seed, **settings)
    return lab, judge(lab.train(), RUN)


def last_loss(lab: Lab) -> float:
    losses = [float(frame.values[0]) for frame in lab.frames if frame.family == "train"]
    return float(torch.tensor(losses[-20:]).median())


def root(judged: dict[str, Any]) -> dict[str, Any]:
    assert judged["findings"], judged["verdict"]
    return judged["findings"][0]
