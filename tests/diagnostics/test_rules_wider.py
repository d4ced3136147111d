"""What wider evidence tells: weights far over what keeps a signal, layers out of order, one rank's batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.diagnostics.inhibition import parents
from otoscope.store import Event
from torch import nn

from .lab import mlp
from .machines import finding, run_of
from .told import Made, named, rules_of, trained

Rows = dict[str, dict[str, dict[int, float]]]
HELD = [
    {"name": f"{n}.weight", "layer": n, "kind": "weight", "ndim": 2, "numel": 100} for n in "abcd"
]

# ---- weights drawn too large ---------------------------------------------------------------------


def began(times: float, ratio: float, guess: float = 1.0) -> Rows:
    """Return the first step of layers drawn with so many times He's deviation, whose signal keeps."""
    told = {"forward_gain": 1.0, "backward_gain": 1.0, "xavier_std": 0.1, "he_std": 0.1}
    told["weight_std"] = 0.1 * times
    rows = {f"{name}/{layer}": {1: value} for name, value in told.items() for layer in "abcd"}
    return {"initialization": {**rows, "loss_ratio": {1: ratio}, "expected_loss": {1: guess}}}


@pytest.mark.parametrize(
    ("times", "ratio", "fires"),
    [(2.0, 2.5, True), (1.2, 2.5, False), (2.0, 1.5, False), (2.0, 1.9, True), (1.3, 1.9, False)],
)
def test_most_layers_drawn_far_over_what_keeps_the_signal_are_named_by_the_first_loss(
    times: float, ratio: float, fires: bool
) -> None:
    made = Made("bad_initialization", began(times, ratio), loss=lambda s: ratio, parameters=HELD)
    assert (made.finding is not None) == fires
    if fires:
        assert set(made.advice.proposed) == set("abcd")


def test_a_layer_of_few_inputs_is_drawn_by_what_keeps_its_gradient_too() -> None:
    first = began(4.0, 2.5)
    first["initialization"] |= {
        "he_std/a": {1: 0.5},
        "xavier_std/a": {1: 0.16},
        "weight_std/a": {1: 1.0},
    }
    dead = {"activations": {"dead/x": {1: 0.0}, "units/x": {1: 64.0}}}
    made = Made("bad_initialization", {**first, **dead}, loss=lambda s: 2.5, parameters=HELD)
    drawn = {layer: value["std"] for layer, value in made.advice.proposed.items()}
    assert drawn == {"a": 0.226, "b": 0.1, "c": 0.1, "d": 0.1}


def fitted(validation: float, times: float = 2.0) -> Made:
    first = {**began(times, 1.6), "validation": {"val_loss": dict.fromkeys((50, 100), validation)}}
    return Made(
        "bad_initialization", first, loss=lambda s: 1.6 if s < 10 else 0.05, parameters=HELD
    )


def test_large_weights_that_fit_by_heart_are_named_and_those_that_learn_are_not() -> None:
    said = [item.text for item in fitted(0.6).sure.because]
    assert any("by heart" in text for text in said), said
    assert fitted(0.1).finding is None
    assert fitted(0.6, times=1.0).finding is None
    assert "bad_initialization" in parents("overfitting")


# ---- gradients that vanish -----------------------------------------------------------------------


def gradients(rms: Mapping[str, float]) -> Rows:
    rows: dict[str, dict[int, float]] = {}
    for layer, value in rms.items():
        rows[f"grad_sq/{layer}"] = dict.fromkeys((1, 20), 100 * value**2)
        rows[f"update_sq/{layer}"] = dict.fromkeys((1, 20), value**2 * 1e-6)
        rows[f"weight_sq/{layer}"] = dict.fromkeys((1, 20), 1.0)
        rows[f"numel/{layer}"] = dict.fromkeys((1, 20), 100.0)
    return {"gradients": rows}


FADING = {f"body.{i}": 1e-9 * 10.0**i for i in range(9)}


@pytest.mark.parametrize(
    ("rms", "fires"),
    [
        (FADING, True),
        ({"(model)": 1.0, **FADING}, True),  # a parameter of the model itself comes first
        ({"head": 3.0, "neck": 2.0, "lift": 1.0, **FADING}, False),  # no order to speak of
    ],
    ids=["in order", "one layer out of it", "several"],
)
def test_gradients_vanish_along_the_layers_that_are_in_order(
    rms: dict[str, float], fires: bool
) -> None:
    made = Made("vanishing_gradients", gradients(rms))
    assert (made.finding is not None) == fires
    if fires:
        assert "body.0" in made.sure.layers
        assert "(model)" not in made.sure.layers


def test_layers_that_no_gradient_at_all_comes_back_to_are_drawn_anew_with_biases_of_zero() -> None:
    held = [
        {"name": f"{n}.{what}", "layer": n, "kind": what, "ndim": dims, "numel": numel}
        for n in FADING
        for what, dims, numel in (("weight", 2, 100), ("bias", 1, 10))
    ]
    nothing = {layer: 0.0 if layer < "body.4" else 10.0 ** int(layer[-1]) for layer in FADING}
    made = Made("vanishing_gradients", gradients(nothing), parameters=held)
    assert made.advice.parameter == "weight_init"
    assert "zeros_" in made.advice.snippet
    some = Made("vanishing_gradients", gradients(FADING), parameters=held)
    assert "zeros_" not in some.advice.snippet


def test_branches_that_begin_with_no_part_in_the_net_cut_nothing_off() -> None:
    inner = {f"{n}.{what}": 0.0 for n in range(1, 4) for what in ("into", "out")}
    assert Made("vanishing_gradients", gradients({"0": 0.4, **inner, "7": 1.0})).finding is None
    assert Made("vanishing_gradients", gradients({**inner, "7": 1.0})).finding is not None


@pytest.mark.parametrize(("now", "fires"), [(1.39, True), (0.9, False)])
def test_a_loss_that_came_down_to_guessing_has_learned_nothing(now: float, fires: bool) -> None:
    guess = {"initialization": {"expected_loss": {1: 1.386}}}
    made = Made(
        "vanishing_gradients", {**gradients(FADING), **guess}, loss=lambda s: 3.5 if s < 4 else now
    )
    assert (made.finding is not None) == fires


# ---- outputs that grow ---------------------------------------------------------------------------


def grown(times: float, looks: tuple[int, ...] = (3, 20)) -> Made:
    at = {**dict.fromkeys(looks, 0.5), 310: 0.5 * times, 315: 0.5 * times}
    rows = {"sum_sq/a": {s: 100 * v**2 for s, v in at.items()}, "numel/a": dict.fromkeys(at, 100.0)}
    rows |= {"sum_sq/b": dict.fromkeys(at, 100.0), "numel/b": dict.fromkeys(at, 100.0)}
    jump = Event("lr", step=301, body={"from": 1e-3, "to": 0.2, "phase": "warmup"}, id="jump")
    return Made(
        "activation_drift", {"activations": rows}, steps=330, events=[jump],
        lr=lambda s: 1e-3 if s < 301 else 0.2,
    )  # fmt: skip


def test_outputs_are_held_against_the_start_where_nothing_was_seen_later() -> None:
    assert grown(200).sure.layers == ["a"]
    assert grown(25).finding is None
    assert grown(60, looks=(3, 90)).sure.layers == ["a"]


# ---- one rank's batches --------------------------------------------------------------------------


def of_ranks(bad: Mapping[tuple[int, int], float]) -> dict[str, Any] | None:
    draw = np.random.default_rng(4)

    def told(rank: int, step: int) -> Mapping[str, float]:
        spread = 0.02 + 0.2 * min(step / 400, 1)  # ranks differ by more as the loss falls
        loss = 2.0 * np.exp(-step / 500) * draw.lognormal(0, spread)
        return {"loss": loss * bad.get((rank, step), 1.0)}

    return finding(run_of(400, told, ranks=2), "outlier_batch")


def test_bad_batches_of_one_rank_are_told_by_how_far_ranks_differ_around_them() -> None:
    found = of_ranks({(1, step): 4.0 for step in (120, 150, 180)})
    assert found is not None
    assert (found["ranks"], found["recommendation"]["proposed"]) == ([1], [120, 150, 180])
    assert of_ranks({(step % 60 == 0, step): 4.0 for step in (120, 150, 180)}) is None  # of both
    assert of_ranks({(1, 120): 4.0, (1, 150): 4.0}) is None
    assert of_ranks({}) is None


# ---- two classes, and half a net -----------------------------------------------------------------


def rare(validation: float, loss: float = 0.1) -> Made:
    told = {
        "as_logits": 1.0, "predicted_entropy": 0.0, "label_entropy": 0.11, "never_predicted": 1.0,
        "rows": 512.0, "class_share_0": 0.023, "class_share_1": 0.977, "probability_rows": 0.0,
        "as_probabilities": 2.0,
    }  # fmt: skip
    rows: Rows = {
        "head": {name: dict.fromkeys((210, 215, 220), value) for name, value in told.items()},
        "validation": {"val_loss": dict.fromkeys((100, 150, 200), validation)},
    }
    return Made("wrong_head", rows, loss=lambda s: loss)


def test_a_rare_one_of_two_classes_is_a_warning_only_where_validation_suffers() -> None:
    assert rare(1.7).sure.severity == "warning"
    assert rare(0.11).sure.severity == "info"
    assert rare(1.7, loss=0.04).finding is None  # far under the entropy: it tells samples apart


@pytest.mark.parametrize(("dead", "severity"), [((60, 40), "warning"), ((60, 10), "info")])
def test_half_of_all_units_dead_is_a_warning_although_the_loss_falls(
    dead: tuple[int, int], severity: str
) -> None:
    steps = range(120, 320, 20)
    rows: dict[str, dict[int, float]] = {}
    for layer, count in zip("ab", dead, strict=True):
        rows[f"dead/{layer}"] = {20: 5.0, **dict.fromkeys(steps, float(count))}
        rows[f"units/{layer}"] = dict.fromkeys((20, *steps), 96.0)
        rows[f"samples/{layer}"] = dict.fromkeys((20, *steps), 600.0)
    made = Made("dead_units", {"activations": rows}, steps=320, loss=lambda s: 2.0 * 0.998**s)
    assert made.sure.severity == severity


# ---- real runs -----------------------------------------------------------------------------------


def drawn(std: float) -> nn.Sequential:
    torch.manual_seed(0)
    net = mlp((96,) * 4, nn.Tanh)
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, std)
            nn.init.zeros_(layer.bias)
    return net


def test_a_net_drawn_at_twice_what_keeps_the_signal_is_told_from_its_twin(tmp_path: Path) -> None:
    def judged(std: float) -> dict[str, Any]:
        net = drawn(std)
        return trained(tmp_path / str(std), net, torch.optim.SGD(net.parameters(), 0.02), steps=40)

    ill = judged(0.35)
    assert "were drawn too large" in named(ill, "bad_initialization")["title"]
    assert "bad_initialization" not in rules_of(judged(0.1))
