"""Stretches of bad batches: told by the losses just before them, and not laid to the gradients they throw up."""

from __future__ import annotations

import numpy as np
import pytest
from otoscope.store import Finding

from .made import ADAM, Made, train


def learns_late(n: int = 400) -> np.ndarray:
    """Return losses that stood at 1.8 for a hundred steps and stand at 0.45 from step 180 on."""
    noise = 0.05 * np.random.default_rng(2).standard_normal(n)
    return 0.45 + 1.35 * np.clip((180 - np.arange(n)) / 80, 0, 1) + noise


@pytest.mark.parametrize(("height", "severity"), [(4.0, "warning"), (0.9, None)])
def test_of_a_loss_that_fell_a_hundred_steps_ago_those_just_before_a_stretch_tell_how_bad_it_is(
    height: float, severity: str | None
) -> None:
    losses = learns_late()
    losses[200:210] = height * np.array([0.5, 3, 0.4, 2, 1, 0.5, 3, 0.4, 2, 0.5])
    losses[210:250] += 0.8
    made = Made("loss_spike", optimizers=[ADAM])
    made.add("train", train(losses))
    assert [item.severity for item in made.judge()] == ([severity] if severity else [])


def test_three_high_losses_of_a_run_that_learned_late_are_information_as_before() -> None:
    losses = learns_late()
    losses[200:203] = 8.0
    made = Made("loss_spike", optimizers=[ADAM])
    made.add("train", train(losses))
    assert [item.severity for item in made.judge()] == ["info"]


def thrown(norms: np.ndarray) -> list[Finding]:
    """Judge a run whose losses stand at 4 from step 301 to 325, and at 2 from there on."""
    losses = 0.3 + 2 * np.exp(-np.arange(420) / 60)
    losses[300:325], losses[325:] = 4.0, 2.0
    made = Made("exploding_gradients", "loss_spike", optimizers=[ADAM])
    made.add("train", train(losses, grad_sq=norms**2))
    return made.judge()


def test_gradients_that_a_stretch_of_bad_batches_threw_up_explain_nothing() -> None:
    norms = np.ones(420)
    norms[300:325] = 40.0
    stretch, gradients = thrown(norms)
    assert (stretch.rule, stretch.caused) == ("loss_spike", [])
    assert (gradients.rule, gradients.severity) == ("exploding_gradients", "info")
    norms[300:325] = 1.0
    norms[[300, 308, 316, 324]] = 40.0  # the loss is up in between, and the norms are not
    (root, effect) = thrown(norms)
    assert (root.rule, root.caused) == ("exploding_gradients", [effect.id])


def little_learned(rises: float, steps: int = 30) -> list[Finding]:
    """Judge a loss that fell from 1.4 to 1.07, and stands higher by `rises` from step 301 on."""
    draw = np.random.default_rng(4)
    losses = 1.07 + 0.33 * np.exp(-np.arange(340) / 60) + 0.09 * draw.standard_normal(340)
    losses[300 : 300 + steps] += rises
    made = Made("loss_spike", optimizers=[ADAM])
    made.add("train", train(losses))
    return made.judge()


def test_wrong_labels_of_a_net_that_hardly_beats_guessing_undo_all_that_it_had_learned() -> None:
    (finding,) = little_learned(0.45)
    assert (finding.severity, finding.state) == ("warning", "firing")
    assert 300 <= finding.first_step <= 303


@pytest.mark.parametrize(("rises", "steps"), [(0.25, 30), (0.45, 11)])
def test_a_loss_that_is_thrown_back_by_most_of_that_or_for_a_few_steps_is_left_alone(
    rises: float, steps: int
) -> None:
    assert little_learned(rises, steps) == []


def test_a_run_that_had_learned_nothing_has_nothing_to_lose() -> None:
    losses = 1.4 + 0.05 * np.random.default_rng(5).standard_normal(340)
    losses[300:330] += 0.25
    made = Made("loss_spike", optimizers=[ADAM])
    made.add("train", train(losses))
    assert made.judge() == []


def test_a_stretch_is_told_where_no_weight_had_moved_before_it() -> None:
    """A share of no steps is no number: the leap is told, and not laid to longer steps."""
    losses = 0.3 + 2 * np.exp(-np.arange(420) / 60)
    losses[300:325] = 4.0
    made = Made("loss_spike", optimizers=[ADAM])
    made.add("train", train(losses))
    steps = list(range(10, 421, 10))
    layers = {"update_sq": {"a": [0.0] * len(steps)}, "weight_sq": {"a": [1.0] * len(steps)}}
    made.add("gradients", {}, steps=steps, layers=layers)
    (finding,) = made.judge()
    assert finding.rule == "loss_spike"
    assert made.judged("loss_spike")
    assert not any("longer than usual" in told.text for told in finding.because)


def test_a_leap_from_a_loss_that_was_always_zero_is_told() -> None:
    losses = np.zeros(420)
    losses[300:330] = 1.0
    made = Made("loss_spike", optimizers=[ADAM])
    made.add("train", train(losses))
    assert [item.rule for item in made.judge()] == ["loss_spike"]
    assert made.judged("loss_spike")
