"""Units that are dead from the start, or that a step killed, and what mends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .lab import mlp
from .labs import last_loss, root, run_lab

SGD, Adam = torch.optim.SGD, torch.optim.Adam


def born_dead(layers: slice) -> Callable[[], nn.Module]:
    def net() -> nn.Module:
        model = mlp()
        with torch.no_grad():
            for layer in list(model)[layers]:
                if isinstance(layer, nn.Linear):
                    layer.bias.fill_(-4.0)
        return model

    return net


def test_a_layer_that_was_dead_from_the_start_gets_another_activation() -> None:
    _, judged = run_lab(lambda p: SGD(p, 0.1), net=born_dead(slice(2, 3)), steps=300)
    finding = root(judged)
    assert finding["rule"] == "dead_units"
    assert finding["severity"] == "critical"
    assert finding["first_step"] == 1
    assert finding["recommendation"]["proposed"] == {"3": "LeakyReLU"}


def test_layers_that_were_dead_from_the_start_are_drawn_anew_and_that_mends_them() -> None:
    dead = born_dead(slice(0, -1))
    _, judged = run_lab(lambda p: SGD(p, 0.1), net=dead, steps=300)
    advice = root(judged)["recommendation"]
    assert advice["parameter"] == "weight_init"
    mended, again = run_lab(lambda p: SGD(p, 0.1), net=lambda: drawn(dead(), advice), steps=400)
    assert last_loss(mended) < 0.5
    assert again["findings"] == []


def drawn(model: nn.Module, advice: dict[str, Any]) -> nn.Module:
    for layer, init in advice["proposed"].items():
        linear = model.get_submodule(layer)
        nn.init.normal_(linear.weight, std=init["std"])  # type: ignore[arg-type]
        nn.init.zeros_(linear.bias)  # type: ignore[arg-type]
    return model


def test_one_sample_of_a_net_that_is_all_dead_is_enough() -> None:
    _, judged = run_lab(lambda p: SGD(p, 0.1), net=born_dead(slice(0, -1)), steps=60, every=30)
    assert root(judged)["rule"] == "dead_units"


def test_units_that_come_back_in_the_first_steps_are_no_finding() -> None:
    deep = lambda: mlp((64,) * 8)  # noqa: E731
    lab, judged = run_lab(lambda p: Adam(p, 1e-3), net=deep, steps=300)
    first = next(frame for frame in lab.frames if frame.family == "activations")
    schema = lab.schemas["activations"]
    shares = [
        float(first.values[i]) / 64
        for i, column in enumerate(schema.columns)
        if column.quantity == "dead"
    ]
    assert max(shares) > 0.4  # they do begin dead
    assert judged["findings"] == []


def test_units_that_a_long_step_killed_get_a_lower_rate() -> None:
    _, judged = run_lab(lambda p: Adam(p, 0.1), steps=200)
    finding = root(judged)
    assert finding["rule"] in ("dead_units", "lr_too_high")
    advised = finding["recommendation"]["proposed"]
    assert finding["recommendation"]["parameter"] == "lr"
    mended, again = run_lab(lambda p: Adam(p, advised), steps=400)
    assert last_loss(mended) < 0.3
    assert again["findings"] == []


def test_a_dead_net_that_no_sample_shows_is_drawn_anew_and_its_rate_is_not_raised() -> None:
    dead = born_dead(slice(0, -1))
    _, judged = run_lab(lambda p: SGD(p, 0.1), net=dead, steps=450, every=1000, curvature=0)
    stuck = next(item for item in judged["findings"] if item["rule"] == "plateau")
    assert stuck["title"] == "Stuck: no gradient reaches any weight"
    assert stuck["recommendation"]["parameter"] == "weight_init"


def test_a_small_layer_that_is_half_dead_is_no_finding() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(64, 64), nn.Linear(64, 10)
            self.gate = nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 64))
            nn.init.constant_(self.gate[0].bias, -5.0)  # type: ignore[arg-type]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.relu(self.body(x))
            return self.head(hidden * torch.sigmoid(self.gate(hidden)))

    lab, judged = run_lab(lambda p: SGD(p, 0.3), net=Squeezed, steps=400)
    last = [frame for frame in lab.frames if frame.family == "activations"][-1]
    assert last.values[0] >= 3  # of four units
    assert judged["findings"] == []
