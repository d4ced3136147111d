"""Rules on numbers, gradients and layers: real runs that fire each; healthy ones that fire none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from otoscope.store import Event
from torch import nn

from .lab import mlp
from .labs import last_loss, root, run_lab

SGD, Adam = torch.optim.SGD, torch.optim.Adam


def test_a_batch_of_nan_is_found_at_its_step_and_halves_the_rate_for_want_of_a_checkpoint() -> None:
    def spoil(step: int, x: torch.Tensor) -> torch.Tensor:
        return x * math.nan if step == 155 else x

    _, judged = run_lab(lambda p: SGD(p, 0.1), spoil=spoil, steps=200)
    finding = root(judged)
    assert finding["id"] == "non_finite:run:1:155"
    assert finding["severity"] == "critical"
    assert finding["recommendation"]["parameter"] == "lr"
    assert finding["recommendation"]["proposed"] == 0.05


def test_with_a_finite_checkpoint_a_nan_goes_back_to_it() -> None:
    events = [
        Event("checkpoint", step=100, body={"path": "a.ckpt", "finite": True}),
        Event("checkpoint", step=158, body={"path": "b.ckpt", "finite": False}),
    ]
    _, judged = run_lab(
        lambda p: SGD(p, 0.1),
        spoil=lambda step, x: x * math.nan if step == 155 else x,
        steps=200,
        events=events,
    )
    advice = root(judged)["recommendation"]
    assert advice["parameter"] == "rollback"
    assert advice["proposed"] == {"step": 100, "path": "a.ckpt", "then": {"lr": 0.05}}
    assert advice["basis"] == "from your run"


def test_batches_that_explode_from_time_to_time_get_a_clip_that_mends_them() -> None:
    def spoil(step: int, x: torch.Tensor) -> torch.Tensor:
        return x * 100 if step > 150 and step % 16 == 0 else x

    broken, judged = run_lab(lambda p: SGD(p, 0.1), spoil=spoil, steps=400)
    finding = root(judged)
    assert finding["rule"] == "exploding_gradients"
    advice = finding["recommendation"]
    assert advice["parameter"] == "gradient_clip_val"
    assert advice["basis"] == "from your run"
    mended, _ = run_lab(lambda p: SGD(p, 0.1), spoil=spoil, steps=400, clip=advice["proposed"])
    assert last_loss(mended) < 0.3 * last_loss(broken)


def test_one_batch_that_throws_the_run_back_for_good_gets_a_clip() -> None:
    def spoil(step: int, x: torch.Tensor) -> torch.Tensor:
        return x * 300 if step == 155 else x

    _, judged = run_lab(lambda p: SGD(p, 0.1), spoil=spoil, steps=300, every=1000, curvature=0)
    finding = root(judged)
    assert finding["rule"] == "exploding_gradients"
    assert finding["recommendation"]["parameter"] == "gradient_clip_val"


def test_gradients_that_vanish_through_sigmoids_hide_the_plateau_that_they_cause() -> None:
    _, judged = run_lab(
        lambda p: SGD(p, 0.1), net=lambda: mlp((64,) * 8, activation=nn.Sigmoid), steps=450
    )
    finding = root(judged)
    assert finding["rule"] == "vanishing_gradients"
    assert finding["layers"][0] == "0"
    assert "plateau" in [
        item["rule"] for item in judged["findings"] if item["id"] in finding["caused"]
    ]


def test_a_head_that_is_not_in_use_does_not_make_a_finding_of_convergence() -> None:
    class Headed(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(*mlp())
            self.spare = nn.Linear(64, 10)

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            for layer in list(self)[:-1]:
                input = layer(input)
            return input

    _, judged = run_lab(
        lambda p: SGD(p, 0.1, momentum=0.9), net=Headed, loss=smoothed, steps=1200, every=50
    )
    assert judged["findings"] == []


def test_layers_that_were_left_out_of_the_optimizer_are_named() -> None:
    _, judged = run_lab(lambda p: SGD(p[-1:], 0.5), steps=450)
    finding = root(judged)
    assert finding["rule"] == "frozen_layer"
    assert finding["recommendation"]["parameter"] == "params"
    assert "0.weight" in finding["recommendation"]["proposed"]


def normed(kind: type[nn.Module]) -> Callable[[], nn.Module]:
    return lambda: mlp(extra=lambda width: [kind(width)])


def smoothed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(a, b, label_smoothing=0.1)


def frozen_backbone() -> nn.Module:
    model = mlp()
    for parameter in list(model.parameters())[:4]:
        parameter.requires_grad_(False)
    return model


HEALTHY: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": lambda p: SGD(p, 0.1), "steps": 500},
    "momentum": {"optimizer": lambda p: SGD(p, 0.05, momentum=0.9), "steps": 500},
    "adam": {"optimizer": lambda p: Adam(p, 1e-3), "steps": 500},
    "small batches": {"optimizer": lambda p: SGD(p, 0.02), "batch": 8, "steps": 700},
    "large batches": {"optimizer": lambda p: SGD(p, 0.2), "batch": 512, "steps": 300},
    "cosine to zero": {
        "optimizer": lambda p: SGD(p, 0.2),
        "schedule": lambda step: 0.5 * (1 + math.cos(math.pi * step / 500)),
        "steps": 500,
    },
    "converged": {"optimizer": lambda p: SGD(p, 0.1, momentum=0.9), "steps": 1500},
    "warm-up": {
        "optimizer": lambda p: Adam(p, 3e-3),
        "schedule": lambda step: min(1.0, step / 300),
        "steps": 500,
    },
    "clipped": {"optimizer": lambda p: SGD(p, 0.1), "clip": 1.0, "steps": 500},
    "batch norm": {"optimizer": lambda p: SGD(p, 0.1), "net": normed(nn.BatchNorm1d), "steps": 500},
    "label smoothing": {
        "optimizer": lambda p: SGD(p, 0.1, momentum=0.9),
        "loss": smoothed,
        "steps": 1200,
    },
    "dropout": {
        "optimizer": lambda p: Adam(p, 2e-3),
        "net": lambda: mlp(extra=lambda width: [nn.Dropout(0.5)]),
        "steps": 1000,
    },
    "frozen backbone": {
        "optimizer": lambda p: SGD([q for q in p if q.requires_grad], 0.1),
        "net": frozen_backbone,
        "steps": 700,
    },
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_shows_no_finding(name: str) -> None:
    _, judged = run_lab(curvature=200, **HEALTHY[name])
    assert judged["findings"] == []
    assert judged["state"] == "healthy"
    assert {"non_finite", "lr_too_high"} <= set(judged["judged"])
