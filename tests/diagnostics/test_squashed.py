"""Squashing activations that hand back a hundredth of the gradient, where a loss stands behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from otoscope.diagnostics.inhibition import parents

from .made import Made as Run
from .made import flat, train
from .told import Made

STEPS = (1, 20, 240, 241, 320, 321)
FADES = (3e-4, 1e-3, 4e-3, 0.02, 0.2)
"""Gradients of five layers, of which the first has 1.5 thousandths of the last one's."""


def standing(step: int) -> float:
    return 3.3 + 0.2 * ((7 * step) % 11 - 5) / 5


def told(
    rms: tuple[float, ...] = FADES, steps: tuple[float, ...] = FADES, kind: str = "saturated"
) -> dict[str, Any]:
    """Return gradients and steps of five layers, squashed between them, or rectified (`dead`)."""
    gradients = {
        f"{name}/{layer}": dict.fromkeys(STEPS, value)
        for layer, rms, step in zip("acegi", rms, steps, strict=True)
        for name, value in (
            ("grad_sq", 100 * rms**2), ("update_sq", (0.3 * step) ** 2), ("weight_sq", 1.0), ("numel", 100.0),
        )
    }  # fmt: skip
    sites = {f"{kind}/{site}": dict.fromkeys(STEPS, 0.0) for site in "bd"}
    sizes = {f"sum_sq/{layer}": dict.fromkeys(STEPS, 1.0) for layer in "ac"}
    return {"activations": {**sizes, **sites}, "gradients": gradients}


def test_sigmoids_that_hold_a_loss_at_its_start_are_named_and_changed() -> None:
    made = Made("vanishing_gradients", told(), steps=400, loss=standing)
    assert made.sure.severity == "warning"
    assert made.sure.first_step == 1  # they did so from the start
    assert made.advice.parameter == "activation"
    assert made.advice.proposed == {"b": "ReLU", "d": "ReLU"}
    assert "plateau" not in parents("vanishing_gradients")


@pytest.mark.parametrize(
    ("families", "loss", "steps"),
    [
        (told(steps=(0.02,) * 5), standing, 400),  # Adam's: the first layers learn all the same
        (told(rms=(4e-3, 8e-3, 0.02, 0.05, 0.2)), standing, 400),  # a fiftieth comes back
        (told(rms=(1e-3, 0.02, 3e-4, 4e-3, 0.2)), standing, 400),  # in no order
        (told(kind="dead"), standing, 400),  # nothing squashes
        (told(), lambda step: standing(step) * 0.998**step, 400),  # it learns
        (told(), lambda step: 2.9 if step > 150 else 3.3, 400),  # it stands, and has learned
        (told(), standing, 190),  # many stand for so long, and go on
        (told(), standing, 2400),  # a tenth of 30,000 steps has not passed
    ],
)
def test_sigmoids_are_left_alone_where_nothing_shows_that_they_hold_the_loss(
    families: dict[str, Any], loss: Callable[[int], float], steps: int
) -> None:
    whole = 30_000 if steps > 2000 else None
    made = Made("vanishing_gradients", families, steps=min(steps, 900), loss=loss, max_steps=whole)
    assert made.finding is None


def test_a_rate_that_moves_no_layer_is_not_laid_to_the_activations_behind_which_the_loss_stands() -> (
    None
):
    short = told(steps=tuple(1e-5 * step for step in FADES))
    low = Made("vanishing_gradients", short, steps=400, loss=standing, lr=lambda step: 1e-5)
    assert low.finding is None
    usual = Made("vanishing_gradients", short, steps=400, loss=standing)
    assert usual.finding is not None  # others train with such a rate: it is no signal that arrives
    moves = Made("vanishing_gradients", told(), steps=400, loss=standing, lr=lambda step: 1e-5)
    assert moves.finding is not None


def sigmoids(back: float = 0.02, kind: str = "saturated", step: float = 1e-3) -> dict[str, Any]:
    """Return the start of three layers of which each hands back a share of the gradient, and even gradients."""
    drawn = {
        "forward_gain": 0.3,
        "backward_gain": back,
        "weight_std": 0.04,
        "xavier_std": 0.1,
        "he_std": 0.1,
    }
    rows = {f"{name}/{layer}": {1: value} for name, value in drawn.items() for layer in "ace"}
    gradients = {
        f"{name}/{layer}": dict.fromkeys(STEPS, value)
        for layer in "ace"
        for name, value in (
            ("grad_sq", 1e-6),
            ("update_sq", step**2),
            ("weight_sq", 1.0),
            ("numel", 100.0),
        )
    }
    sites = {f"{kind}/{site}": dict.fromkeys(STEPS, 0.0) for site in "bd"}
    sizes = {f"sum_sq/{layer}": dict.fromkeys(STEPS, 1.0) for layer in "ac"}
    start = {**rows, "loss_ratio": {1: 1.0}}
    return {"activations": {**sizes, **sites}, "gradients": gradients, "initialization": start}


def test_a_few_sigmoids_hold_a_loss_at_its_start_though_their_layers_get_as_much_as_each_other() -> (
    None
):
    made = Made("vanishing_gradients", sigmoids(), steps=400, loss=standing)
    assert (made.sure.severity, made.sure.first_step) == ("warning", 1)
    assert made.advice.proposed == {"b": "ReLU", "d": "ReLU"}
    assert made.sure.because[0].column == "backward_gain/e"
    soon = Made("vanishing_gradients", sigmoids(), steps=290, loss=standing)
    assert soon.finding is None  # two of them may stand for so long, and learn


@pytest.mark.parametrize(
    ("families", "loss", "optimizer"),
    [
        (sigmoids(), standing, "Adam"),  # its steps are as long whatever comes back
        (sigmoids(step=0.1), standing, "SGD"),  # long steps explain a loss that stands as well
        (sigmoids(back=0.1), standing, "SGD"),  # as tanh does
        (sigmoids(kind="dead"), standing, "SGD"),
        (sigmoids(), lambda step: standing(step) * 0.999**step, "SGD"),  # it learns
    ],
)
def test_a_few_activations_are_left_alone_where_their_slopes_do_not_hold_the_loss(
    families: dict[str, Any], loss: Callable[[int], float], optimizer: str
) -> None:
    told = [{"name": optimizer, "lr": 0.01}]
    assert (
        Made("vanishing_gradients", families, steps=400, loss=loss, optimizers=told).finding is None
    )


def named(*rules: str) -> list[str]:
    """Return what is named of a net that stands at the entropy of uneven labels, as no gradient comes back."""
    made = Run(*rules)
    made.add("train", train(flat(500, at=0.9, noise=0.01)))
    looks = list(range(205, 500, 5))
    shares = {
        f"class_share_{place}": [share] * len(looks) for place, share in enumerate((0.7, 0.2, 0.1))
    }
    head = {
        "predicted_entropy": 0.0,
        "label_entropy": 0.8,
        "never_predicted": 2.0,
        "rows": 576.0,
        "as_logits": 1.0,
    }
    made.add(
        "head", {**{name: [value] * len(looks) for name, value in head.items()}, **shares}, looks
    )
    steps = list(range(10, 500, 10))
    fading = {layer: 10.0 ** (-2 * place) for place, layer in enumerate("edcba")}
    sizes = {
        name: {layer: [times * fading[layer] ** 2] * len(steps) for layer in "abcde"}
        for name, times in (("grad_sq", 1.0), ("update_sq", 1e-4))
    } | {
        name: {layer: [100.0] * len(steps) for layer in "abcde"} for name in ("weight_sq", "numel")
    }
    made.add("gradients", {}, steps, sizes)
    return [finding.rule for finding in made.judge()]


def test_a_net_that_hears_nothing_of_its_loss_is_not_told_to_weigh_its_classes() -> None:
    assert named("wrong_head") == ["wrong_head"]
    assert named("vanishing_gradients", "wrong_head") == ["vanishing_gradients"]
