"""Rules on the learning rate: real runs that fire each, with a value that mends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from otoscope.diagnostics import judge
from otoscope.store import Column, Schema
from torch import nn

from .lab import RUN, Lab, mlp
from .labs import last_loss, root, run_lab

SGD, Adam = torch.optim.SGD, torch.optim.Adam


@pytest.mark.parametrize("rate", [1.5, 5.0])
def test_a_rate_too_high_from_the_first_step_is_named_and_its_value_mends_it(rate: float) -> None:
    _, judged = run_lab(lambda p: SGD(p, rate), steps=120)
    finding = root(judged)
    assert finding["rule"] == "lr_too_high"
    assert finding["severity"] == "critical"
    advised = finding["recommendation"]["proposed"]
    assert 0.01 < advised < rate / 2
    mended, again = run_lab(lambda p: SGD(p, advised), steps=400)
    assert last_loss(mended) < 0.5
    assert again["findings"] == []


@pytest.mark.parametrize(
    ("optimizer", "healthy"),
    [
        (lambda p: SGD(p, 1.5), 0.5),
        (lambda p: SGD(p, 5.0), 0.5),
        (lambda p: SGD(p, 0.5, momentum=0.9), 0.1),
        (lambda p: Adam(p, 0.1), 0.005),
    ],
)
def test_the_first_step_tells_the_rate_where_no_curvature_was_measured(
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer], healthy: float
) -> None:
    _, judged = run_lab(optimizer, curvature=0, every=1000, steps=200)
    finding = root(judged)
    assert finding["rule"] == "lr_too_high"
    assert finding["title"] == "The learning rate is too high"
    advice = finding["recommendation"]
    assert advice["basis"] == "rule of thumb"
    assert "first step" in advice["formula"]
    assert "rule of thumb" in judged["verdict"]
    assert healthy / 20 < advice["proposed"] < healthy


def test_the_stable_rate_is_said_where_curvature_tells_it() -> None:
    _, judged = run_lab(lambda p: SGD(p, 1.5), steps=120, curvature=10)
    finding = root(judged)
    assert finding["recommendation"]["basis"] == "derived"
    value = finding["recommendation"]["proposed"]
    assert finding["title"] == (
        f"The learning rate is too high for this curvature: 1.5 where {value:g} is stable"
    )


def test_curvature_of_a_net_that_was_damaged_before_is_not_used() -> None:
    _, judged = run_lab(lambda p: SGD(p, 5.0), steps=200, every=5, curvature=150)
    advice = root(judged)["recommendation"]
    assert advice["basis"] == "rule of thumb"
    assert 0.01 < advice["proposed"] < 0.5


def test_a_rate_that_was_raised_goes_back_to_the_one_at_which_the_loss_fell() -> None:
    _, judged = run_lab(
        lambda p: SGD(p, 0.1),
        schedule=lambda step: 1 if step < 200 else 20,
        steps=400,
        every=1000,
        curvature=0,
    )
    advice = root(judged)["recommendation"]
    assert root(judged)["rule"] == "lr_too_high"
    assert (advice["proposed"], advice["basis"]) == (0.1, "from your run")


def test_the_edge_of_the_first_of_several_optimizers_says_how_far_its_rate_is_over_it() -> None:
    def judged(curvature_columns: list[Column]) -> dict[str, Any]:
        torch.manual_seed(0)
        model = mlp()
        lab = Lab(model, SGD(model.parameters(), 1.5), steps=120, curvature=10)
        lab.schemas["curvature"] = Schema("curvature", tuple(curvature_columns))
        return judge(lab.train(), RUN)

    edge = Column("edge_ratio/0", "edge_ratio", optimizer=0)
    several = judged([Column.of("lambda_1"), Column.of("lambda_spread"), edge])
    one = judged([Column.of(q) for q in ("lambda_1", "lambda_spread", "edge_ratio")])
    assert root(one)["rule"] == root(several)["rule"] == "lr_too_high"
    proposed = [root(judged)["recommendation"] for judged in (one, several)]
    assert proposed[0]["basis"] == "derived"
    assert proposed[0]["proposed"] == proposed[1]["proposed"]


def test_a_loss_that_breaks_off_at_once_is_laid_to_the_rate() -> None:
    def squared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(a, nn.functional.one_hot(b, 10).float()) * 10

    _, judged = run_lab(lambda p: SGD(p, 30.0), loss=squared, steps=100, curvature=0)
    finding = root(judged)
    assert finding["rule"] == "lr_too_high"
    effects = {item["rule"] for item in judged["findings"] if item["id"] in finding["caused"]}
    assert "non_finite" in effects


def test_a_rate_that_rises_late_is_named_before_what_it_breaks() -> None:
    _, judged = run_lab(
        lambda p: SGD(p, 0.1), schedule=lambda step: 1 if step < 300 else 12, steps=400
    )
    finding = root(judged)
    assert finding["rule"] == "lr_too_high"
    effects = {item["rule"] for item in judged["findings"] if item["id"] in finding["caused"]}
    assert "non_finite" in effects


def test_a_rate_at_the_edge_of_stability_whose_loss_falls_is_left_alone() -> None:
    lab, judged = run_lab(
        lambda p: SGD(p, 0.5),
        net=lambda: mlp(activation=nn.Tanh),
        batch=1000,
        steps=200,
        curvature=40,
    )
    edges = [float(frame.values[2]) for frame in lab.frames if frame.family == "curvature"]
    assert max(edges) > 0.9  # it does hover at the edge
    assert judged["findings"] == []


def test_bursts_after_a_long_first_step_that_trained_are_not_laid_to_the_rate() -> None:
    def net() -> nn.Module:
        model = mlp()
        for layer in model:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        return model

    def spoil(step: int, x: torch.Tensor) -> torch.Tensor:
        return x * 100 if step > 150 and step % 16 == 0 else x

    _, judged = run_lab(lambda p: SGD(p, 0.3), net=net, spoil=spoil, steps=400)
    assert root(judged)["rule"] == "exploding_gradients"


def test_a_rate_far_too_low_is_raised() -> None:
    _, judged = run_lab(lambda p: SGD(p, 1e-5), steps=450)
    finding = root(judged)
    assert finding["rule"] == "lr_too_low"
    assert finding["recommendation"]["parameter"] == "lr"
    advised = finding["recommendation"]["proposed"]
    mended, _ = run_lab(lambda p: SGD(p, advised), steps=400)
    assert last_loss(mended) < 1.0
