"""Advice that leaves alone what was sound: weights whose biases were ill, layers that a step never reached."""

from __future__ import annotations

from typing import Any

import pytest

from .made import Made as Run
from .made import flat, train
from .told import Made

NETS = [
    {
        "name": f"{layer}.{kind}",
        "layer": layer,
        "kind": kind,
        "ndim": n,
        "numel": size,
        "fan_in": 50,
    }
    for layer in "abc"
    for kind, n, size in (("weight", 2, 2500), ("bias", 1, 50))
]


def born_dead(std: float) -> Any:
    """Return the advice for two layers of 50 inputs that never fired, drawn with a deviation."""
    steps = range(10, 300, 10)
    told = {
        f"{name}/{layer}": dict.fromkeys(steps, value)
        for name, value in (("dead", 48.0), ("units", 50.0), ("samples", 600.0))
        for layer in "xy"
    }
    drawn = {"forward_gain": 0.1, "backward_gain": 0.1, "weight_std": std, "xavier_std": 0.14, "he_std": 0.2}  # fmt: skip
    first = {f"{name}/{layer}": {1: value} for name, value in drawn.items() for layer in "abc"}
    families = {"activations": told, "initialization": {**first, "loss_ratio": {1: 1.0}}}
    return Made("dead_units", families, parameters=NETS).advice


@pytest.mark.parametrize(
    ("std", "proposed"),
    [
        (0.0816, 0.0816),  # as torch draws them
        (0.25, 0.25),
        (0.01, 0.2),  # too small to pass anything on: by the fan-in
        (0.9, 0.2),
    ],
)
def test_weights_that_were_sound_keep_their_deviation_and_get_biases_of_zero(
    std: float, proposed: float
) -> None:
    advice = born_dead(std)
    assert advice.parameter == "weight_init"
    assert {layer: value["std"] for layer, value in advice.proposed.items()} == {
        "a": pytest.approx(proposed, rel=1e-3),
        "b": pytest.approx(proposed, rel=1e-3),
    }
    assert advice.snippet.count("zeros_") == 2


def raised(ratios: tuple[float, ...]) -> float:
    """Return the rate proposed where the first step moved layers by such shares of their weights at 1e-6."""
    made = Run("lr_too_low")
    made.add("train", train(flat(450, noise=0.01), lr=1e-6))
    steps = [1, 20, 40, 100, 200]
    layers = {f"{place:02}": ratio for place, ratio in enumerate(ratios)}
    sizes = {
        "update_sq": {layer: [ratio**2] * len(steps) for layer, ratio in layers.items()},
        "weight_sq": {layer: [1.0] * len(steps) for layer in layers},
    }
    made.add("gradients", {}, steps, sizes)
    (finding,) = made.judge()
    assert finding.recommendation is not None
    return float(finding.recommendation.proposed)


def test_the_rate_is_raised_by_the_step_of_the_layers_that_it_moved() -> None:
    branches = (2e-8, *[0.0] * 6, 2e-8)  # what the branches say counts for nothing at first
    assert raised(branches) == pytest.approx(1e-6 * 0.01 / 2e-8)
    some = (4e-8, 2e-8, 1e-8)
    assert raised(some) == pytest.approx(1e-6 * 0.01 / 2e-8)
    assert raised((0.0, 1e-7, 2e-7, 4e-7)) == pytest.approx(1e-6 * 0.01 / 1.5e-7, rel=0.03)
