"""What layers are drawn with, by what comes behind them in a chain; and how far over that tells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks.describing import described_model
from otoscope.diagnostics.as_drawn import Drawn
from otoscope.diagnostics.facts import Facts
from otoscope.diagnostics.initialization import he_normal, straight_on
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.rules.bad_initialization import to_draw
from otoscope.diagnostics.thresholds import load
from otoscope.store import Meta
from torch import nn

from .told import Made


def context_of(model: nn.Module) -> Context:
    meta = Meta(**described_model(model, []))
    return Context(meta, Facts(), load("dead_units"), load("lr_too_high"))


def narrow(act: type[nn.Module] = nn.Sigmoid, depth: int = 4) -> nn.Sequential:
    """Return wide layers that each go through a narrow place without a bend."""
    layers: list[nn.Module] = []
    for number in range(depth):
        into = nn.Linear(128 if number else 24, 48, bias=False)
        layers += [into, nn.Linear(48, 128), act()]
    return nn.Sequential(*layers, nn.Linear(128, 1))


def sorted_between(act: type[nn.Module], between: type[nn.Module], depth: int = 3) -> nn.Module:
    """Return pairs of layers with a module of no weights between the two, and a bend behind each pair."""
    layers: list[nn.Module] = [nn.Linear(24, 64), act()]
    for _ in range(depth):
        layers += [nn.Linear(64, 64), between(), nn.Linear(64, 64), act()]
    return nn.Sequential(*layers, nn.Linear(64, 1))


class Listed(nn.Module):
    """Layers in one list, and what comes behind each in another."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
        self.acts = nn.ModuleList(nn.Sigmoid() for _ in range(3))
        self.head = nn.Linear(32, 2)


class Gated(nn.Module):
    """A chain that is rectified, and a layer whose outputs are gates."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128))
        self.join = nn.Linear(132, 320)
        self.tanh, self.gate = nn.Tanh(), nn.Sigmoid()
        self.head = nn.Linear(64, 10)


def all_large(model: nn.Module, std: float = 1.0) -> Drawn:
    """Return layers that were all drawn with one deviation, as a net that rectifies begins."""
    rows = {n: m.weight.shape for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    outs, ins = (np.array([shape[i] for shape in rows.values()], float) for i in (0, 1))
    every = np.full(len(rows), 20.0)
    return Drawn(
        tuple(rows), every, every, np.full(len(rows), std), np.sqrt(2 / (ins + outs)), np.sqrt(2 / ins),
        5.0, True, set(rows), set(rows), 100.0,
    )  # fmt: skip


def test_a_layer_that_goes_straight_into_another_is_drawn_without_a_rectifiers_two() -> None:
    drawn = {name: value["std"] for name, value in he_normal(context_of(narrow())).items()}
    assert drawn["3"] == pytest.approx(math.sqrt(1 / 128), rel=1e-2)  # into the narrow place
    assert drawn["4"] == pytest.approx(math.sqrt(2 / 48), rel=1e-2)  # and out of it, into a bend


def test_a_net_that_is_drawn_so_keeps_its_signal_where_its_sigmoids_became_rectifiers() -> None:
    model = narrow(nn.ReLU, depth=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, value in he_normal(context_of(narrow(depth=8))).items():
            layer = model.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=float(str(value["std"])))
            nn.init.zeros_(layer.bias) if layer.bias is not None else None
        x = torch.randn(256, 24)
        energy = model[:-1](x).square().mean()
    assert 0.1 < energy < 10  # of deviations of sqrt(2 / fan-in) alone: over 100


def test_where_activations_are_listed_apart_nobody_knows_what_goes_straight_on() -> None:
    context = context_of(Listed())
    assert straight_on(context) == set()
    assert he_normal(context)["layers.0"]["std"] == pytest.approx(math.sqrt(2 / 32), rel=1e-2)


def test_what_only_sorts_the_units_between_two_layers_is_no_bend() -> None:
    for act in (nn.ReLU, nn.Sigmoid):
        drawn = he_normal(context_of(sorted_between(act, nn.Flatten)))
        assert drawn["2"]["std"] == pytest.approx(math.sqrt(1 / 64), rel=1e-2)
        assert drawn["4"]["std"] == pytest.approx(math.sqrt(2 / 64), rel=1e-2)


def test_what_follows_most_layers_may_bend_although_nobody_told_so() -> None:
    leaks: list[nn.Module] = []
    for _ in range(3):
        leaks += [nn.Linear(64, 64), nn.LeakyReLU()]
    leaky = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), *leaks, nn.Linear(64, 1))
    block = sorted_between(nn.ReLU, lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU()))  # type: ignore[arg-type]
    for model in (leaky, block):
        assert straight_on(context_of(model)) == set()


def test_large_weights_before_gates_are_drawn_anew_by_what_keeps_their_signal_and_gradient() -> (
    None
):
    model = Gated()
    drawn = to_draw(all_large(model), context_of(model), grows=True)
    stds = {name: value["std"] for name, value in drawn.items()}
    assert stds["read.0"] == pytest.approx(math.sqrt(2) * math.sqrt(2 / 192), rel=1e-2)
    assert stds["join"] == pytest.approx(math.sqrt(2 / 452), rel=1e-2)
    assert stds["head"] == pytest.approx(math.sqrt(2 / 74), rel=1e-2)
    rectified = narrow(nn.ReLU)
    drawn = to_draw(all_large(rectified), context_of(rectified), grows=True)
    assert drawn["4"]["kind"] == "kaiming_normal" and drawn["3"]["kind"] == "xavier_normal"


def start(times: float, ratio: float) -> dict[str, Any]:
    """Return the first step of four layers, drawn so many times too large; the loss over guessing."""
    told = {"forward_gain": 1.5, "backward_gain": 1.0, "weight_std": times * 0.1, "xavier_std": 0.1,
            "he_std": math.sqrt(2) * 0.1}  # fmt: skip
    rows = {f"{what}/{name}": {1: value} for what, value in told.items() for name in "abcd"}
    rows |= {"loss_ratio": {1: ratio}, "initial_loss": {1: 2.3 * ratio}}
    rows |= {f"rms/{name}": {1: 10.0} for name in "abcd"}
    held = [
        {"name": f"{n}.weight", "layer": n, "kind": "weight", "ndim": 2, "numel": 100, "module": "Linear"}
        for n in "abcd"
    ]  # fmt: skip
    return {"families": {"initialization": rows}, "parameters": held}


@pytest.mark.parametrize(
    ("times", "ratio", "found"),
    [
        (2.0, 2.2, True),
        (2.0, 1.8, False),
        (4.1, 1.8, True),  # so far over that less of the first loss tells
        (4.1, 1.3, False),
        (1.6, 2.5, False),
    ],
)
def test_the_farther_weights_are_over_what_keeps_the_signal_the_less_of_the_first_loss_tells(
    times: float, ratio: float, found: bool
) -> None:
    told = start(times, ratio)
    made = Made(
        "bad_initialization", told["families"], loss=lambda s: 2.3, parameters=told["parameters"]
    )
    assert (made.finding is not None) == found, made.why
