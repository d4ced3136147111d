"""Rules about how layers were drawn and what hands a gradient back: where the loss of guessing is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from otoscope.callbacks.describing import described_model
from otoscope.callbacks.layers import described_parameters
from otoscope.diagnostics.facts import Facts
from otoscope.diagnostics.initialization import as_code, drawn_anew, he_normal
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.thresholds import load
from otoscope.store import Meta
from torch import nn

from .lab import mlp
from .told import Made, rules_of, trained

SGD, Adam = torch.optim.SGD, torch.optim.Adam


def context_of(model: nn.Module) -> Context:
    meta = Meta(**described_model(model, []))
    return Context(meta, Facts(), load("dead_units"), load("lr_too_high"))


# ---- what is drawn anew ---------------------------------------------------------------------------


def test_layers_without_a_bias_are_drawn_anew_by_their_fan_in() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, bias=False), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, bias=False),
        nn.Flatten(), nn.Linear(16, 6, bias=False), nn.Linear(6, 2),
    )  # fmt: skip
    context = context_of(model)
    drawn = he_normal(context)
    assert {name: value["std"] for name, value in drawn.items()} == {
        "0": pytest.approx((2 / 75) ** 0.5, rel=1e-2),
        "2": pytest.approx((2 / 32) ** 0.5, rel=1e-2),
        "4": pytest.approx((2 / 16) ** 0.5, rel=1e-2),
    }
    advice = drawn_anew(drawn, context, basis="rule of thumb")
    assert "zeros_" not in advice.snippet
    exec(advice.snippet, {"torch": torch, "model": model})  # pasted as it is
    assert as_code(drawn).count("zeros_") == 3  # as it was told where nobody knows of the biases


def test_a_layer_with_several_weights_or_an_embedding_tells_no_fan_in() -> None:
    model = nn.ModuleDict({"cell": nn.LSTM(4, 8), "words": nn.Embedding(9, 4)})
    assert all("fan_in" not in row for row in described_parameters(model))


def test_what_an_activation_module_is_stands_in_meta() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Sequential(nn.Tanh(), nn.LeakyReLU()))
    meta = Meta.from_json(Meta(**described_model(model, [])).to_json())
    assert meta.activations == {"1": "gelu", "2.0": "tanh"}
    odd = Meta.from_json({"activations": {"1": 3, "2": "tanh"}})
    assert odd.activations == {"2": "tanh"}


def test_a_gelu_does_not_squash_and_an_activation_of_no_told_kind_may() -> None:
    steps = range(10, 300, 10)
    sites = {
        f"{what}/{name}": dict.fromkeys(steps, 0.0) for name in "bd" for what in ("saturated",)
    }
    sizes = {f"sum_sq/{name}": dict.fromkeys(steps, 1.0) for name in "ac"}
    fading = {
        f"{what}/{layer}": dict.fromkeys(steps, value)
        for what, values in {
            "grad_sq": (1e-6, 1e-4, 1e-2, 1.0, 100.0), "weight_sq": (1.0,) * 5,
            "update_sq": (1e-7,) * 5, "numel": (100.0,) * 5,
        }.items()
        for layer, value in zip("acegi", values, strict=True)
    }  # fmt: skip
    families = {"activations": {**sizes, **sites}, "gradients": fading}
    for kinds, changes in (
        ({}, {"b": "ReLU", "d": "ReLU"}),
        ({"b": "gelu", "d": "tanh"}, {"d": "ReLU"}),
        ({"b": "gelu", "d": "silu"}, None),
    ):
        made = Made("plateau", families, steps=600, activations=kinds)
        advice = made.advice
        assert (advice.proposed if advice.parameter == "activation" else None) == changes
    even = {**fading, **{f"grad_sq/{layer}": dict.fromkeys(steps, 1.0) for layer in "aceg"}}
    made = Made("plateau", {**families, "gradients": even}, steps=600)
    assert made.advice.parameter != "activation"


# ---- a teacher of one layer -----------------------------------------------------------------------


class Taught(nn.Module):
    """A student, and one layer that no optimizer holds: a teacher of it, or forgotten."""

    def __init__(self, last: bool, forgotten: bool) -> None:
        super().__init__()
        teacher = nn.Linear(64, 64)
        if not last:
            self.teacher = teacher
        self.body = mlp((64, 64))
        if last:
            self.teacher = teacher
        self.forgotten = forgotten

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.forgotten:
            return self.body(x + self.teacher(x))
        with torch.no_grad():
            told = self.teacher(x)
        return self.body(x + told)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("forgotten", [True, False])
def test_a_teacher_of_a_single_layer_is_told_from_one_that_was_forgotten(
    tmp_path: Path, last: bool, forgotten: bool
) -> None:
    torch.manual_seed(0)
    model = Taught(last, forgotten)
    judged = trained(tmp_path, model, SGD(model.body.parameters(), 0.05), steps=30)
    assert ("frozen_layer" in rules_of(judged)) == forgotten
