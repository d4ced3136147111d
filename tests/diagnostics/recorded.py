"""Real runs under the recorder, with probes at a fixed cadence: what a generous budget measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import attach
from otoscope.callbacks.probes import Curvature, Gradients, Landscape, Noise, Throughput
from otoscope.diagnostics import judge
from otoscope.store import connect
from torch import Tensor, nn

from .lab import digits, mlp

Batch = tuple[Tensor, Tensor]


def recorded(
    folder: Path,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    *,
    net: Callable[[], nn.Module] = mlp,
    data: Batch | None = None,
    steps: int = 400,
    batch: int = 64,
    clip: float | None = None,
    spoil: Callable[[int, Batch], Batch] = lambda step, batch: batch,
    every: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Train on digits and return what is judged; `every`: steps between samples of each family."""
    cadence = {"gradients": 5, "noise": 0, "curvature": 0, "landscape": 0, **(every or {})}
    kinds = {"gradients": Gradients, "noise": Noise, "curvature": Curvature, "landscape": Landscape}
    probes = [Throughput(), *(kinds[name](every=n) for name, n in cadence.items() if n)]
    torch.manual_seed(0)
    x, y = data or digits()
    model = net()
    made = optimizer(list(model.parameters()))
    draw = torch.Generator().manual_seed(0)

    def loss_fn(module: nn.Module, rows: Batch) -> Tensor:
        return nn.functional.cross_entropy(module(rows[0]), rows[1])

    recorder = attach(
        model, made, loss_fn=loss_fn, run="made", budget=1.0, max_steps=steps,
        spool=folder, verdict=False, strict=True, probes=probes,
    )  # fmt: skip
    for step in range(1, steps + 1):
        places = torch.randint(len(x), (batch,), generator=draw)
        rows = spoil(step, (x[places], y[places]))
        made.zero_grad()
        loss = loss_fn(model, rows)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        made.step()
        recorder.step(loss.detach(), batch, rows)
    recorder.finish()
    return judge(connect(folder / str(recorder.run_id)), str(recorder.run_id))


def named(judged: dict[str, Any], rule: str) -> dict[str, Any]:
    """Return the finding of a rule."""
    found = [item for item in judged["findings"] if item["rule"] == rule]
    assert found, (judged["verdict"], judged["not_judged"].get(rule))
    return found[0]


def rules(judged: dict[str, Any]) -> set[str]:
    """Return the rules that found something."""
    return {item["rule"] for item in judged["findings"]}
