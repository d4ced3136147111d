"""Each rule: a real run that fires it, with a value that mends it, and healthy ones that do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from otoscope.diagnostics import judge
from otoscope.store import Column, Event, Schema
from torch import nn

from .lab import RUN, Lab, mlp

SGD, Adam = torch.optim.SGD, torch.optim.Adam


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


def test_one_batch_that_throws_the_run_back_for_good_gets_a_clip() -> None:
    def spoil(step: int, x: torch.Tensor) -> torch.Tensor:
        return x * 300 if step == 155 else x

    _, judged = run_lab(lambda p: SGD(p, 0.1), spoil=spoil, steps=300, every=1000, curvature=0)
    finding = root(judged)
    assert finding["rule"] == "exploding_gradients"
    assert finding["recommendation"]["parameter"] == "gradient_clip_val"


def test_units_that_a_long_step_killed_get_a_lower_rate() -> None:
    _, judged = run_lab(lambda p: Adam(p, 0.1), steps=200)
    finding = root(judged)
    assert finding["rule"] in ("dead_units", "lr_too_high")
    advised = finding["recommendation"]["proposed"]
    assert finding["recommendation"]["parameter"] == "lr"
    mended, again = run_lab(lambda p: Adam(p, advised), steps=400)
    assert last_loss(mended) < 0.3
    assert again["findings"] == []


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


def test_a_rate_far_too_low_is_raised() -> None:
    _, judged = run_lab(lambda p: SGD(p, 1e-5), steps=450)
    finding = root(judged)
    assert finding["rule"] == "lr_too_low"
    assert finding["recommendation"]["parameter"] == "lr"
    advised = finding["recommendation"]["proposed"]
    mended, _ = run_lab(lambda p: SGD(p, advised), steps=400)
    assert last_loss(mended) < 1.0


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
