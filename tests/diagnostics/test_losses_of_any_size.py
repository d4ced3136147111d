"""Losses of any size: under zero, near zero at first, or in the millions, rules say the same."""

from __future__ import annotations

import numpy as np
import pytest
from otoscope.diagnostics.facts import Facts, learned
from otoscope.diagnostics.spikes import lone_spikes
from otoscope.diagnostics.thresholds import load
from otoscope.diagnostics.windows import Window

from .made import ADAM, Made, falling, train

OFFSETS = [0.0, -3.0, -2.29]
"""Of a loss that begins at 2.3: as it is, under zero from the start, and from near zero on."""
SIZES = [1.0, 1e6, 1e-9]
EVERY = (
    *("lr_too_high", "exploding_gradients", "loss_spike", "oscillating_loss", "missing_warmup"),
    *("plateau", "lr_too_low", "clipping_too_tight", "batch_too_small"),
)


def noisy(n: int) -> np.ndarray:
    return falling(n, noise=0.0) + 0.1 * np.random.default_rng(3).standard_normal(n)


def run_of(losses: np.ndarray) -> Made:
    """Return a run whose steps look long: the loss alone keeps rules silent."""
    n = len(losses)
    made = Made(*EVERY, optimizers=[ADAM])
    norms = 1 + 0.3 * np.abs(np.random.default_rng(4).standard_normal(n))
    made.add("train", train(losses, grad_sq=norms**2))
    made.add(
        "gradients",
        {},
        layers={"update_sq": {"0": [0.03**2] * n}, "weight_sq": {"0": [1.0] * n}},
    )
    return made


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("size", SIZES)
def test_a_healthy_loss_is_no_finding_wherever_its_zero_lies(offset: float, size: float) -> None:
    assert run_of(size * (noisy(800) + offset)).judge() == []


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_loss_that_leaps_for_good_is_told_wherever_its_zero_lies(offset: float) -> None:
    losses = noisy(800)
    losses[500:] += 4.0
    found = {finding.rule: finding for finding in run_of(losses + offset).judge()}
    assert {"lr_too_high", "loss_spike"} <= set(found)
    assert found["loss_spike"].severity == "critical"


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_net_has_learned_once_its_loss_fell_by_as_much_wherever_its_zero_lies(
    offset: float,
) -> None:
    made = Made("plateau")
    made.add("train", train(falling(400) + offset))
    made.judge()
    window = Window(made.fold.history, 400)
    assert learned(window, made.fold.facts, 0.5)
    made = Made("plateau")
    made.add("train", train(np.full(400, 2.3) + offset))
    made.judge()
    assert not learned(Window(made.fold.history, 400), made.fold.facts, 0.5)


def test_noise_about_a_loss_under_zero_has_no_lone_spikes() -> None:
    losses = -3 + 0.2 * np.random.default_rng(0).standard_normal(200)
    losses[100] = 0.3
    facts = Facts(loss_start=0.01, loss_best=-3.0)
    assert not len(lone_spikes(losses, 4, facts.spike_floor(load("lr_too_high", {}))))
    losses[100] = 30.0
    assert lone_spikes(losses, 4).tolist() == [100]


@pytest.mark.parametrize(
    ("offset", "trained", "evaluated", "said"),
    [(0.0, 1.0, 1.1, []), (0.0, 1.0, 4.0, ["wrong_head"]), (-2.25, 2.23, 2.27, [])],
)
def test_a_loss_in_eval_mode_is_compared_by_its_difference(
    offset: float, trained: float, evaluated: float, said: list[str]
) -> None:
    made = Made("wrong_head")
    made.add("train", train(falling(700, end=1.0) + offset))
    columns = {"train_loss": [trained + offset] * 4, "eval_loss": [evaluated + offset] * 4}
    made.add("modes", columns, steps=[300, 400, 500, 600])
    assert [finding.rule for finding in made.judge()] == said
