"""Losses of a few samples each: the best of many windows is a lucky one, and nothing has climbed from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from otoscope.diagnostics import judge
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

from .lab import RUN, Lab
from .made import Made, train

RULES = ("lr_too_high", "oscillating_loss")
STEP = 0.03
"""Share of the weights: over it a loss that climbs is laid to the rate."""


def squares(n: int, batch: int, seed: int) -> np.ndarray:
    """Return losses at the floor of a regression: means of `batch` squared errors of deviation 1."""
    errors = np.random.default_rng(seed).standard_normal((n, batch))
    return (errors**2).mean(axis=1)


def found(losses: np.ndarray) -> set[str]:
    n = len(losses)
    made = Made(*RULES)
    made.add("train", train(losses))
    made.add(
        "gradients",
        {},
        layers={
            "update_sq": {"0": [0.005**2] * 200 + [STEP**2] * (n - 200)},  # the first are sound
            "weight_sq": {"0": [1.0] * n},
        },
    )
    return {finding.rule for finding in made.judge()}


@pytest.mark.parametrize("batch", [8, 16])
def test_what_batches_of_a_few_samples_throw_up_and_down_is_no_rate_that_is_too_high(
    batch: int,
) -> None:
    for seed in range(2):
        falls = np.concatenate([np.linspace(0.8, 0, 100), np.zeros(1900)])
        assert found(squares(2000, batch, seed) + falls) == set()


def test_a_loss_of_a_few_samples_that_climbs_for_good_is_told() -> None:
    losses = 0.3 * squares(1500, 8, 0)
    losses[:100] += np.linspace(2, 0, 100)
    losses[1000:] *= 3
    assert "lr_too_high" in found(losses)


def linear(rate: float) -> set[str]:
    """Return the rules that find something in a linear regression of diabetes by plain gradients."""
    x, y = (torch.tensor(part, dtype=torch.float32) for part in load_diabetes(return_X_y=True))
    data: tuple[Tensor, Tensor] = (x / x.std(0), ((y - y.mean()) / y.std())[:, None])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 1))
    optimizer = torch.optim.SGD(model.parameters(), rate)
    mse = nn.functional.mse_loss
    lab = Lab(model, optimizer, steps=500, batch=32, data=data, loss=mse, curvature=0)
    return {finding["rule"] for finding in judge(lab.train(), RUN)["findings"]}


def test_long_steps_of_a_linear_model_are_judged_by_its_loss() -> None:
    assert linear(0.1) == set()
    assert "lr_too_high" in linear(0.6)


def test_excursions_of_a_loss_that_goes_on_falling_are_no_swings_in_place_of_learning() -> None:
    def found(last: float) -> list[str]:
        course = np.geomspace(2.0, last, 500)
        course[np.arange(500) % 100 >= 80] *= 2.2  # a stretch of hard batches in each epoch
        made = Made("oscillating_loss")
        made.add("train", train(course))
        return [item.rule for item in made.judge()]

    assert found(1.6) == ["oscillating_loss"]
    assert found(0.05) == []
