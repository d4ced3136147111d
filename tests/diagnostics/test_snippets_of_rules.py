"""What rules give to be pasted sets what they propose, in a script of Lightning."""

from __future__ import annotations

import pytest
import torch

from .told import Made

STEPS = range(20, 600, 20)
GROWING = {
    "sum_sq/a": {s: 1.012 ** (2 * s) for s in STEPS},
    "numel/a": dict.fromkeys(STEPS, 1.0),
    "sum_sq/b": dict.fromkeys(STEPS, 1.0),
    "numel/b": dict.fromkeys(STEPS, 1.0),
}
STILL = {
    f"{quantity}/{layer}": dict.fromkeys(STEPS, value)
    for quantity, values in {
        "grad_sq": (1.0, 1.0),
        "weight_sq": (5.0, 5.0),
        "update_sq": (0.0, 0.01),
        "numel": (100.0, 100.0),
    }.items()
    for layer, value in zip("ab", values, strict=True)
}
HELD = [
    {"name": f"{n}.weight", "layer": n, "kind": "weight", "ndim": 2, "numel": 100} for n in "ab"
]
SGD = {"name": "SGD", "lr": 0.1, "momentum": 0.9}


def made_by(snippet: str, loop: str) -> torch.optim.Optimizer:
    """Return the optimizer that a snippet makes, of a model of two layers."""
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in "ab"})
    held = torch.optim.SGD(model["b"].parameters(), lr=0.1)
    names: dict = {"torch": torch, "model": model, "optimizer": held}
    exec(snippet, names)
    return names["configure_optimizers"](model) if loop == "lightning" else names["optimizer"]


@pytest.mark.parametrize("loop", ["own", "lightning"])
def test_outputs_that_grow_are_held_by_a_decay_that_the_snippet_sets(loop: str) -> None:
    made = Made(
        "activation_drift",
        {"activations": GROWING},
        steps=600,
        optimizers=[SGD],
        config={"loop": loop},
    )
    advice = made.advice
    group = made_by(advice.snippet, loop).param_groups[0]
    assert (advice.parameter, group["weight_decay"]) == ("weight_decay", advice.proposed)
    assert group["momentum"] == 0.9


@pytest.mark.parametrize("loop", ["own", "lightning"])
def test_layers_that_no_optimizer_holds_are_given_to_it(loop: str) -> None:
    made = Made(
        "frozen_layer",
        {"gradients": STILL},
        parameters=HELD,
        optimizers=[SGD],
        config={"loop": loop},
    )
    advice = made.advice
    assert advice.proposed == ["a.weight"]
    groups = made_by(advice.snippet, loop).param_groups
    shapes = [tuple(p.shape) for group in groups for p in group["params"]]
    assert shapes.count((2, 2)) == 2
