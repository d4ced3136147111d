"""Rules about the start and the layers: real runs that fire them, twins that do not, edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.store import Event, Finding
from torch import nn

from .lab import mlp
from .told import Made, named, rules_of, trained

SGD, Adam = torch.optim.SGD, torch.optim.Adam
HELD = [
    {"name": f"{n}.weight", "layer": n, "kind": "weight", "ndim": 2, "numel": 100} for n in "ab"
]


def drawn(
    change: Callable[[torch.Tensor], object],
    widths: tuple[int, ...] = (128,) * 5,
    activation: type[nn.Module] = nn.ReLU,
    only: tuple[int, ...] | None = None,
) -> nn.Sequential:
    torch.manual_seed(0)
    net = mlp(widths, activation)
    for place, module in enumerate(net):
        if isinstance(module, nn.Linear) and (only is None or place in only):
            change(module.weight.data)
            nn.init.zeros_(module.bias)
    return net


def redrawn(net: nn.Sequential, proposed: dict[str, dict[str, Any]]) -> nn.Sequential:
    for layer, value in proposed.items():
        module = net.get_submodule(layer)
        assert isinstance(module, nn.Linear)
        nn.init.normal_(module.weight, std=value["std"])
        nn.init.zeros_(module.bias)
    return net


# ---- bad_initialization --------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_weights_drawn_too_large_get_their_deviation_and_train_with_it(
    tmp_path: Path, activation: type[nn.Module]
) -> None:
    def net() -> nn.Sequential:
        return drawn(lambda w: w.normal_(0, 0.8), activation=activation)

    model = net()
    finding = named(trained(tmp_path, model, SGD(model.parameters(), 0.05)), "bad_initialization")
    advice = finding["recommendation"]
    assert (finding["first_step"], advice["parameter"]) == (1, "weight_init")
    expected = math.sqrt(2 / 128) if activation is nn.ReLU else math.sqrt(2 / 256)
    assert advice["proposed"]["2"]["std"] == pytest.approx(expected, rel=0.01)
    mended = redrawn(net(), advice["proposed"])
    assert trained(tmp_path, mended, SGD(mended.parameters(), 0.05))["findings"] == []


def test_weights_of_one_sign_are_drawn_anew_although_their_deviation_is_small(
    tmp_path: Path,
) -> None:
    def net() -> nn.Sequential:
        return drawn(lambda w: w.uniform_(0, 0.1))

    model = net()
    finding = named(trained(tmp_path, model, SGD(model.parameters(), 0.01)), "bad_initialization")
    mended = redrawn(net(), finding["recommendation"]["proposed"])
    assert trained(tmp_path, mended, SGD(mended.parameters(), 0.01))["findings"] == []


def test_weights_drawn_too_small_are_named_once_the_loss_has_not_moved(tmp_path: Path) -> None:
    model = drawn(lambda w: w.normal_(0, 0.01))
    judged = trained(tmp_path, model, SGD(model.parameters(), 0.05), steps=200)
    finding = named(judged, "bad_initialization")
    assert "too small" in finding["title"]
    mended = redrawn(drawn(lambda w: w.normal_(0, 0.01)), finding["recommendation"]["proposed"])
    again = trained(tmp_path, mended, SGD(mended.parameters(), 0.05), steps=200)
    assert "bad_initialization" not in rules_of(again)


@pytest.mark.parametrize("depth", [2, 6])
def test_the_default_initialization_of_a_net_that_learns_is_left_alone(
    tmp_path: Path, depth: int
) -> None:
    torch.manual_seed(0)
    model = mlp((64,) * depth)
    judged = trained(tmp_path, model, Adam(model.parameters(), 2e-3), steps=200)
    assert judged["findings"] == []
    assert "bad_initialization" in judged["judged"]


GAINS = {"forward_gain": 1.0, "backward_gain": 1.0, "weight_std": 0.1, "xavier_std": 0.1, "he_std": 0.14}  # fmt: skip


def began(ratio: float = 1.0, **changes: float) -> dict[str, Any]:
    told = {**GAINS, **changes}
    rows = {f"{name}/{layer}": {1: value} for name, value in told.items() for layer in "abcd"}
    return {"initialization": {**rows, "loss_ratio": {1: ratio}}}


def test_gains_without_a_loss_that_shows_them_are_no_finding() -> None:
    large = began(forward_gain=16.0, ratio=100.0)
    assert (
        Made("bad_initialization", large, loss=lambda s: 230.0, parameters=HELD).sure.severity
        == "warning"
    )
    assert Made("bad_initialization", began(forward_gain=16.0)).finding is None
    assert Made("bad_initialization", began(ratio=100.0)).finding is None


def test_a_net_that_learns_in_spite_of_its_start_is_left_alone() -> None:
    large = began(forward_gain=16.0, ratio=100.0)
    made = Made("bad_initialization", large, loss=lambda s: 230.0 if s < 8 else 0.5)
    assert made.finding is None or made.finding.state == "resolved"


def test_a_run_without_a_first_step_is_not_judged() -> None:
    made = Made("bad_initialization", {})
    assert made.finding is None
    assert made.why == "the first step was not looked at"
    late = Made("bad_initialization", began(forward_gain=16.0), steps=2400)
    assert "more than 2,000 steps back" in late.why
    why = "the run goes on from a checkpoint: it has no initialization"
    off = Event("probe_off", step=1, body={"probe": "initialization", "why": why}, id="off")
    assert why in Made("bad_initialization", {}, events=[off]).why


# ---- symmetric_weights ---------------------------------------------------------------------------


def test_constant_weights_are_named_and_drawing_them_mends_it(tmp_path: Path) -> None:
    def net() -> nn.Sequential:
        return drawn(lambda w: w.fill_(0.05), (64, 64))

    model = net()
    finding = named(trained(tmp_path, model, SGD(model.parameters(), 0.1)), "symmetric_weights")
    assert finding["layers"] == ["0", "2"]
    mended = redrawn(net(), finding["recommendation"]["proposed"])
    again = trained(tmp_path, mended, SGD(mended.parameters(), 0.1))
    assert "symmetric_weights" not in rules_of(again)


def test_a_last_layer_of_zeros_is_told_apart_by_its_classes(tmp_path: Path) -> None:
    model = drawn(lambda w: w.zero_(), (64, 64), only=(4,))
    judged = trained(tmp_path, model, SGD(model.parameters(), 0.1))
    assert "symmetric_weights" not in rules_of(judged)
    assert "symmetric_weights" in judged["judged"]


def test_rows_are_not_judged_before_they_were_compared() -> None:
    assert (
        "not compared yet"
        in Made("symmetric_weights", {"symmetry": {"alike_rows/a": {20: math.nan}}}).why
    )
    told: dict[str, Any] = {
        "symmetry": {"alike_rows/a": {20: 1.0, 500: 1.0}, "alike_rows/b": {20: 0.0, 500: 0.0}}
    }
    assert Made("symmetric_weights", told).sure.layers == ["a"]


@pytest.mark.parametrize("held", [{"requires_grad": False}, {"optimized": False}])
def test_equal_rows_of_a_layer_that_does_not_train_are_none_of_its_faults(
    held: dict[str, bool],
) -> None:
    told = {"symmetry": {"alike_rows/a": {20: 1.0, 500: 1.0}, "alike_rows/b": {20: 0.0, 500: 0.0}}}
    rows = [{"name": f"{layer}.weight", "layer": layer, "ndim": 2} for layer in ("a", "b")]
    assert Made("symmetric_weights", told, parameters=rows).finding is not None
    still = [{**rows[0], **held}, rows[1]]
    assert Made("symmetric_weights", told, parameters=still).finding is None
    learns = Made("symmetric_weights", told, loss=lambda s: 2.0 * 0.9**s)
    assert learns.finding is None or learns.finding.state == "resolved"


def filters(module: str, ratio: float) -> Finding | None:
    """Return what is said of a layer of equal rows that moves by a share of its weights in each step."""
    rows = [{"name": f"{x}.w", "layer": x, "ndim": 2, "module": module} for x in "ab"]
    looked = range(1, 61, 10)
    moves = {f"update_sq/{x}": dict.fromkeys(looked, ratio**2) for x in "ab"}
    told = {
        "symmetry": {"alike_rows/a": {20: 1.0, 60: 1.0}, "alike_rows/b": {20: 0.0, 60: 0.0}},
        "gradients": moves | {f"weight_sq/{x}": dict.fromkeys(looked, 1.0) for x in "ab"},
    }
    return Made("symmetric_weights", told, steps=100, parameters=rows).finding


def test_filters_that_were_made_alike_are_judged_once_steps_could_have_told_them_apart() -> None:
    assert filters("Filtering", 1e-6) is None  # as they were made: hardly a step was taken
    assert filters("Filtering", 0.02) is not None
    for of_torch in ("Linear", "ParametrizedLinear", "NonDynamicallyQuantizableLinear"):
        assert filters(of_torch, 1e-6) is not None  # torch draws no such rows


def test_a_last_layer_whose_rows_were_equal_is_drawn_anew_with_the_others() -> None:
    rows = [
        {
            "name": f"{layer}.weight",
            "layer": layer,
            "kind": "weight",
            "ndim": 2,
            "numel": 64,
            "fan_in": 16,
        }
        for layer in "ab"
    ]
    for last, drawn in ((1.0, {"a": 0.354, "b": 0.25}), (0.0, {"a": 0.354})):
        told = {
            "symmetry": {"alike_rows/a": {20: 1.0}, "alike_rows/b": {20: last}},
            "initialization": {"identical_rows/a": {1: 1.0}, "identical_rows/b": {1: last}},
        }
        proposed = Made("symmetric_weights", told, parameters=rows).advice.proposed
        assert {layer: value["std"] for layer, value in proposed.items()} == drawn


def flat_outputs(rank: float, **how: Any) -> Made:
    steps = range(50, 600, 50)
    told: dict[str, Any] = {
        "symmetry": {"alike_rows/a": {20: 0.0, 500: 0.0}, "alike_rows/b": {20: 0.0, 500: 0.0}},
        "activations": {
            "effective_rank/a": dict.fromkeys(steps, rank),
            "effective_rank/b": dict.fromkeys(steps, 0.01),
        },
        "gradients": {
            "update_sq/a": dict.fromkeys(steps, 1e-4), "weight_sq/a": dict.fromkeys(steps, 1.0),
        },
    }  # fmt: skip
    return Made("symmetric_weights", told, **{"steps": 500, "parameters": HELD, **how})


def test_outputs_along_one_line_are_named_where_the_loss_does_not_move() -> None:
    made = flat_outputs(0.02)
    assert made.sure.layers == ["a"]
    assert "all alike" in made.sure.title
    assert flat_outputs(0.3).finding is None
    assert flat_outputs(0.02, steps=190).finding is None
    assert flat_outputs(0.02, loss=lambda step: 2.0 - 0.001 * step).finding is None
    thrown_back = flat_outputs(0.02, loss=lambda step: 0.1 if 100 < step < 300 else 2.0)
    assert thrown_back.finding is None
    unknown = flat_outputs(math.nan)
    assert unknown.finding is None
    assert "how many directions" in unknown.why


# ---- frozen_layer --------------------------------------------------------------------------------


def test_layers_that_no_optimizer_holds_are_named_with_their_parameters(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp((64, 64))
    judged = trained(tmp_path, model, SGD(model[4].parameters(), 0.1), steps=60)
    finding = named(judged, "frozen_layer")
    assert finding["recommendation"]["parameter"] == "params"
    assert finding["recommendation"]["proposed"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert finding["severity"] == "warning"


def test_layers_that_are_frozen_on_purpose_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp((64, 64))
    model[0].requires_grad_(False)
    wanted = [p for p in model.parameters() if p.requires_grad]
    assert "frozen_layer" not in rules_of(trained(tmp_path, model, SGD(wanted, 0.1), steps=60))


class Cut(nn.Module):
    """Its first layer runs, and no gradient comes back to it; a head that is not in use does not run."""

    def __init__(self, detach: bool) -> None:
        super().__init__()
        self.first, self.last, self.unused = nn.Linear(64, 32), nn.Linear(32, 10), nn.Linear(32, 3)
        self.detach = detach

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x))
        return self.last(h.detach() if self.detach else h)


@pytest.mark.parametrize("detach", [True, False])
def test_a_layer_that_is_cut_off_is_named_and_an_unused_head_is_not(
    tmp_path: Path, detach: bool
) -> None:
    torch.manual_seed(0)
    model = Cut(detach)
    judged = trained(tmp_path, model, SGD(model.parameters(), 0.1), steps=60)
    if not detach:
        assert "frozen_layer" not in rules_of(judged)
        return
    finding = named(judged, "frozen_layer")
    assert finding["layers"] == ["first"]
    assert finding["severity"] == "warning"
    assert finding["recommendation"]["parameter"] == "inspect"


def layers(**quantities: dict[str, float]) -> dict[str, Any]:
    steps = range(10, 300, 10)
    rows = {
        f"{quantity}/{layer}": dict.fromkeys(steps, value)
        for quantity, told in quantities.items()
        for layer, value in told.items()
    }
    return {"gradients": rows}


STILL: dict[str, dict[str, float]] = {
    "grad_sq": {"a": 1.0, "b": 1.0},
    "weight_sq": {"a": 5.0, "b": 5.0},
    "update_sq": {"a": 0.0, "b": 0.01},
    "numel": {"a": 100.0, "b": 100.0},
}
HELD = [
    {"name": f"{n}.weight", "layer": n, "kind": "weight", "ndim": 2, "numel": 100} for n in "ab"
]


def test_a_gradient_that_no_step_follows_is_named_unless_it_is_rounded_away() -> None:
    assert Made("frozen_layer", layers(**STILL), parameters=HELD).sure.layers == ["a"]
    tiny = {**STILL, "grad_sq": {"a": 1e-20, "b": 1.0}}
    assert Made("frozen_layer", layers(**tiny), parameters=HELD).finding is None
    dead = {**STILL, "grad_sq": {"a": 0.0, "b": 1.0}}
    assert Made("frozen_layer", layers(**dead), parameters=HELD).finding is None


def test_at_a_learning_rate_of_zero_nothing_is_frozen() -> None:
    made = Made("frozen_layer", layers(**STILL), parameters=HELD, lr=lambda s: 0.0)
    assert made.finding is None
    assert "learning rate" in made.why


def test_all_layers_frozen_is_critical() -> None:
    still = {**STILL, "update_sq": {"a": 0.0, "b": 0.0}}
    assert Made("frozen_layer", layers(**still), parameters=HELD).sure.severity == "critical"


# ---- update_imbalance ----------------------------------------------------------------------------


def test_layers_that_move_a_thousand_times_less_get_a_rate_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp((64, 64))
    groups = [
        {"params": model[0].parameters(), "lr": 1e-6},
        {"params": [*model[2].parameters(), *model[4].parameters()]},
    ]
    judged = trained(tmp_path, model, SGD(groups, 0.1), steps=80)
    finding = named(judged, "update_imbalance")
    assert finding["severity"] == "info"
    assert finding["recommendation"]["proposed"] == {"0": 1e5}
    assert "`0`" in finding["because"][0]["text"]


def test_layers_that_move_alike_or_not_at_all_are_no_imbalance() -> None:
    alike = {**STILL, "update_sq": {"a": 0.01, "b": 0.05}}
    assert Made("update_imbalance", layers(**alike)).finding is None
    assert Made("update_imbalance", layers(**STILL)).finding is None
    few: dict[str, Any] = {"gradients": {k: {10: 1.0} for k in ("update_sq/a", "weight_sq/a")}}
    assert "fewer than" in Made("update_imbalance", few).why


# ---- saturated_activations -----------------------------------------------------------------------


@pytest.mark.parametrize(("std", "bias"), [(0.6, 0.0), (0.07, 6.0)])
def test_a_saturated_net_is_redrawn_by_what_its_layers_give(
    tmp_path: Path, std: float, bias: float
) -> None:
    def net() -> nn.Sequential:
        made = drawn(lambda w: w.normal_(0, std), (64,) * 4, nn.Tanh)
        for module in made:
            if isinstance(module, nn.Linear):
                nn.init.constant_(module.bias, bias)
        return made

    model = net()
    judged = trained(tmp_path, model, SGD(model.parameters(), 1e-4), steps=150)
    found = next(f for f in judged["findings"] if f["rule"] == "saturated_activations")
    proposed = found["recommendation"]["proposed"]
    assert found["recommendation"]["parameter"] == "weight_init"
    assert 0.06 < proposed["2"]["std"] < 0.16
    mended = redrawn(net(), proposed)
    again = trained(tmp_path, mended, SGD(mended.parameters(), 0.05), steps=150)
    assert "saturated_activations" not in rules_of(again)


def saturation(share: float, steps: int = 12) -> dict[str, Any]:
    every = range(10, 10 * steps + 1, 10)
    rows = {
        "sum_sq/a": dict.fromkeys(every, 6400.0), "numel/a": dict.fromkeys(every, 100.0),
        "saturated/tanh": dict.fromkeys(every, share * 100), "numel/tanh": dict.fromkeys(every, 100.0),
        "sum_sq/b": dict.fromkeys(every, 100.0), "numel/b": dict.fromkeys(every, 100.0),
    }  # fmt: skip
    return {"activations": rows, **layers(**STILL)}


def test_saturation_counts_where_the_loss_does_not_fall() -> None:
    made = Made("saturated_activations", saturation(0.8), parameters=HELD)
    assert made.sure.layers == ["tanh"]
    # an rms of 8: the deviation that gives 1
    assert made.advice.proposed["a"]["std"] == pytest.approx(math.sqrt(5 / 100) / 8, rel=0.01)
    learns = Made("saturated_activations", saturation(0.8), loss=lambda s: 2.0 * 0.98**s)
    assert learns.finding is None
    assert Made("saturated_activations", saturation(0.3)).finding is None
    assert "fewer than" in Made("saturated_activations", saturation(0.8, steps=1)).why


# ---- activation_drift ----------------------------------------------------------------------------


def sizes(of: Callable[[int], float]) -> dict[str, Any]:
    steps = range(20, 600, 20)
    rows = {
        "sum_sq/a": {s: of(s) ** 2 * 100 for s in steps}, "numel/a": dict.fromkeys(steps, 100.0),
        "sum_sq/b": dict.fromkeys(steps, 100.0), "numel/b": dict.fromkeys(steps, 100.0),
    }  # fmt: skip
    return {"activations": rows}


def test_outputs_that_grow_tenfold_are_told_and_beyond_a_thousand_warned_of() -> None:
    grows = Made("activation_drift", sizes(lambda s: 1.012**s), steps=600)
    assert (grows.sure.severity, grows.sure.layers) == ("info", ["a"])
    large = Made("activation_drift", sizes(lambda s: 1.02**s), steps=600)
    assert large.sure.severity == "warning"
    assert Made("activation_drift", sizes(lambda s: 1.003**s), steps=600).finding is None
    assert Made("activation_drift", sizes(lambda s: 2000.0), steps=600).finding is None
    small = Made("activation_drift", sizes(lambda s: 0.001 * 1.012**s), steps=600)
    assert small.finding is None
    assert "near step 100" in Made("activation_drift", sizes(lambda s: 1.0), steps=90).why
    assert "fewer than 2" in Made("activation_drift", sizes(lambda s: 1.0), steps=110).why


def test_a_net_whose_weights_nothing_holds_grows_its_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp((64, 64), extra=lambda width: [nn.LayerNorm(width)])
    optimizer = Adam(model.parameters(), 2e-4)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 if step < 100 else 400)
    optimizer.register_step_post_hook(lambda *told: warm.step())
    judged = trained(tmp_path, model, optimizer, steps=400, every=20)
    assert "activation_drift" in rules_of(judged), judged["not_judged"]
