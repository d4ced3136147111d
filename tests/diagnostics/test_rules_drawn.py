"""Rules about how layers were drawn and what hands a gradient back: where the loss of guessing is unknown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from .told import Made, named, rules_of, trained

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
        "2": pytest.approx((1 / 32) ** 0.5, rel=1e-2),  # nothing bends on the way to the next one
        "4": pytest.approx((1 / 16) ** 0.5, rel=1e-2),  # the next one follows at once
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


# ---- weights too large, where nobody knows what guessing costs ------------------------------------


def bells(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The surprise of some bells, of which no probe can tell what guessing costs."""
    weight, middle, spread = outputs.chunk(3, 1)
    each = -((target - middle) ** 2) / 2 * (-2 * spread).exp() - spread - 0.92
    return -(weight.log_softmax(1) + each).logsumexp(1).mean()


def numbers_and_one() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1500, 6, generator=draw)
    return x, (x[:, :1] * 2).sin() + 0.2 * torch.randn(1500, 1, generator=draw)


@pytest.mark.parametrize(("std", "found"), [(1.0, True), (None, False)])
def test_large_weights_are_told_without_the_loss_of_guessing(
    tmp_path: Path, std: float | None, found: bool
) -> None:
    torch.manual_seed(0)
    act = nn.Tanh
    model = nn.Sequential(
        nn.Linear(6, 64),
        act(),
        nn.Linear(64, 64),
        act(),
        nn.Linear(64, 64),
        act(),
        nn.Linear(64, 12),
    )
    for module in model:
        if std is not None and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
    judged = trained(
        tmp_path, model, Adam(model.parameters(), 1e-3), data=numbers_and_one(),
        loss=bells, steps=180,
    )  # fmt: skip
    assert ("bad_initialization" in rules_of(judged)) == found
    if found:
        assert set(named(judged, "bad_initialization")["recommendation"]["proposed"]) == set("0246")


def unguessed(
    std: float = 0.5, back: float = 1.0, module: str = "Linear", names: str = "abcd"
) -> dict[str, Any]:
    told = {"forward_gain": 3.0, "backward_gain": back, "weight_std": std, "xavier_std": 0.1,
            "he_std": 0.14}  # fmt: skip
    rows = {f"{what}/{name}": {1: value} for what, value in told.items() for name in names}
    rows["loss_ratio"] = {1: float("nan")}
    held = [
        {
            "name": f"{n}.weight",
            "layer": n,
            "kind": "weight",
            "ndim": 2,
            "numel": 100,
            "module": module,
        }
        for n in names
    ]
    return {"families": {"initialization": rows}, "parameters": held}


@pytest.mark.parametrize(
    ("start", "loss", "found"),
    [
        (unguessed(), lambda s: 90.0 if s < 10 else 10.0, True),  # undone within some steps
        (unguessed(), lambda s: 30.0 if s < 10 else 10.0, False),
        (unguessed(std=0.15), lambda s: 90.0 if s < 10 else 10.0, False),
        (
            unguessed(module="Equalized"),
            lambda s: 90.0 if s < 10 else 10.0,
            False,
        ),  # it scales them
        (unguessed(names="abc"), lambda s: 90.0 if s < 10 else 10.0, False),  # few make up for it
        (unguessed(names="abc"), lambda s: 190.0 if s < 10 else 10.0, True),
        (unguessed(back=6.0), lambda s: 3.0, True),  # 6³ on its way back
        (unguessed(back=6.0), lambda s: 3.0 * 0.98**s, False),  # and it learns all the same
        (unguessed(back=4.0), lambda s: 3.0, False),
        (unguessed(), lambda s: 90.0 if s < 10 else float("nan"), True),
        (unguessed(), lambda s: -1.0, False),  # of a loss under zero nothing is told
    ],
)
def test_large_weights_want_a_start_that_was_undone_or_a_gradient_that_grows(
    start: dict[str, Any], loss: Callable[[int], float], found: bool
) -> None:
    made = Made("bad_initialization", start["families"], loss=loss, parameters=start["parameters"])
    assert (made.finding is not None) == found, made.why


def multiplied(std: float, rms: float = 1.0) -> dict[str, Any]:
    """Return the start of two nets whose outputs are multiplied: a first loss of 1e4 times guessing."""
    start = unguessed(std=std)
    told = {"loss_ratio": 1e4, "initial_loss": 1e4, **{f"rms/{name}": rms for name in "abcd"}}
    start["families"]["initialization"] |= {name: {1: value} for name, value in told.items()}
    return start


def test_outputs_that_are_multiplied_hide_no_weights_that_are_too_large() -> None:
    for start, found in ((multiplied(0.5), True), (multiplied(0.15), False)):
        made = Made(  # of small weights beside such a loss it is the targets that lie far from zero
            "bad_initialization",
            start["families"],
            loss=lambda s: 1e4 * 0.98**s,
            parameters=start["parameters"],
        )
        assert (made.finding is not None) == found, made.why
        if found:
            assert "first loss" in made.sure.because[0].text


def test_a_net_that_had_learned_and_was_thrown_back_was_not_drawn_too_small() -> None:
    faint = unguessed(std=0.01)
    rows = faint["families"]["initialization"]
    rows |= {
        f"{what}/{name}": {1: 1e-2} for what in ("forward_gain", "backward_gain") for name in "abcd"
    }
    rows["loss_ratio"] = {1: 1.0}
    stands = lambda step: 2.0 + 0.01 * (step % 3)  # noqa: E731
    for loss, found in ((stands, True), (lambda s: stands(s) if s < 60 or s > 180 else 1.0, False)):
        made = Made(
            "bad_initialization", faint["families"], loss=loss, parameters=faint["parameters"],
            steps=300,
        )  # fmt: skip
        assert (made.finding is not None) == found, made.why


# ---- tails ----------------------------------------------------------------------------------------


def tails(share: Callable[[int], float]) -> dict[str, Any]:
    steps = range(10, 400, 10)
    rows = {f"saturated/{'b'}": {s: 100 * share(s) for s in steps}}
    rows |= {f"numel/{name}": dict.fromkeys(steps, 100.0) for name in "abc"}
    return {"activations": rows}


def test_a_net_that_stands_with_units_in_their_tails_is_given_time_to_go_on() -> None:
    later = tails(lambda s: 0.0 if s < 50 else 0.8)
    assert Made("saturated_activations", later, steps=280).finding is None
    assert Made("saturated_activations", later, steps=380).finding is not None
    goes_on = Made(
        "saturated_activations", later, steps=380, loss=lambda s: 2.0 if s < 200 else 1.0
    )
    assert goes_on.finding is None
    assert Made("saturated_activations", tails(lambda s: 0.8), steps=160).finding is not None


@pytest.mark.parametrize(("kind", "found"), [("gelu", False), ("tanh", True)])
def test_most_inputs_may_lie_in_the_negative_tail_of_a_gelu(kind: str, found: bool) -> None:
    made = Made("saturated_activations", tails(lambda s: 0.8), activations={"b": kind})
    assert (made.finding is not None) == found
    assert Made("saturated_activations", tails(lambda s: 0.95), activations={"b": kind}).finding


@pytest.mark.parametrize(("std", "parameter"), [(0.5, "weight_init"), (0.1, "lr")])
def test_weights_before_a_call_that_saturates_are_drawn_anew_where_they_are_too_large(
    std: float, parameter: str
) -> None:
    steps = range(10, 300, 10)
    start = unguessed(std=std)
    rows = {"saturated/net.tanh()": dict.fromkeys(steps, 80.0)}
    rows |= {f"numel/{name}": dict.fromkeys(steps, 100.0) for name in (*"abcd", "net.tanh()")}
    families = {**start["families"], "activations": rows}
    made = Made("saturated_activations", families, parameters=start["parameters"])
    assert made.advice.parameter == parameter
    if parameter == "weight_init":
        assert made.advice.proposed["a"] == {"kind": "xavier_normal", "std": 0.1}
