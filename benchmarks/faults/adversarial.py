"""Training two nets against each other: a generator, and a critic that tells its points from real ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import attach
from torch import nn
from torch.nn import functional

from .. import _nets
from .._data import batches
from . import datasets, parts


def train_gan(
    body: Mapping[str, Any], seed: int, folder: Path, name: str, **how: Any
) -> dict[str, Any]:
    """Train the body's net as a generator from noise; returns what `train` returns.

    `first` and `last` are how far the mean and the deviations of its points are from real ones.
    """
    torch.manual_seed(seed)
    real = datasets.load(body["data"]).train
    maker, width = parts.net_of(body), real[0].shape[1]
    critic = _nets.mlp(width, 1, width=48, depth=2, act=nn.LeakyReLU)
    noise = int(parts.named(body["net"])[1]["inputs"])
    net = nn.ModuleDict({"maker": maker, "critic": critic})
    optimizers = [parts.optimizer_of(body, part) for part in (critic, maker)]
    stream = batches(real, int(body["batch"]), seed)
    generator = torch.Generator().manual_seed(seed)

    def far() -> float:
        with torch.no_grad():
            made = maker(torch.randn(512, noise, generator=torch.Generator().manual_seed(0)))
        x = real[0]
        return float((made.mean(0) - x.mean(0)).norm() + (made.std(0) - x.std(0)).norm())

    first, losses, begun = far(), [], time.perf_counter()
    with attach(
        net, optimizers, run=name, max_steps=int(body["steps"]), spool=folder, task=str(body["task"]),
        verdict=False, strict=True, **how,
    ) as recorder:  # fmt: skip
        for _ in range(int(body["steps"])):
            x = next(stream)[0]
            made = maker(torch.randn(len(x), noise, generator=generator))
            judged = torch.cat((critic(x), critic(made.detach())))[:, 0]
            target = torch.cat((torch.ones(len(x)), torch.zeros(len(x))))
            loss = functional.binary_cross_entropy_with_logits(judged, target)
            optimizers[0].zero_grad()
            loss.backward()
            optimizers[0].step()
            fooled = functional.binary_cross_entropy_with_logits(
                critic(made)[:, 0], torch.ones(len(x))
            )
            optimizers[1].zero_grad()
            fooled.backward()
            optimizers[1].step()
            losses.append(float(loss.detach()))
            recorder.step(loss, len(x))
    return {
        "run": str(recorder.run_id),
        "first": first,
        "last": far(),
        "accuracy": None,
        "losses": losses[::10],
        "seconds": time.perf_counter() - begun,
    }
