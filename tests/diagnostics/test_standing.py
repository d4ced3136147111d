"""A loss that stands at its start: what tells that long steps hold it there, and what does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from otoscope.diagnostics.standing import error_of, spread_of
from otoscope.store import Finding
from torch import nn

from .labs import last_loss, run_lab
from .made import ADAM, Made, flat, train

LONG = 0.004**2
"""Squared size of a first step of 0.4 %: 4 % grown by a momentum of 0.9, ten times the sound one."""


def standing(
    losses: np.ndarray, update_sq: float = LONG, guess: float = 2.303, **meta: object
) -> list[Finding]:
    """Return what lr_too_high says of losses behind a first step of a size over weights of one."""
    told = {"optimizers": [{"name": "SGD", "lr": 0.1, "momentum": 0.9}], "classes": 10, **meta}
    made = Made("lr_too_high", **told)
    made.add("initialization", {"expected_loss": [guess]}, [1])
    layers = {"update_sq": {"a": [update_sq]}, "weight_sq": {"a": [1.0]}}
    layers["update_sq"]["b"], layers["weight_sq"]["b"] = [update_sq], [1.0]
    made.add("gradients", {}, [1], layers)
    made.add("train", train(losses))
    return made.judge()


def slow_start(n: int, stands: int) -> np.ndarray:
    """Return losses that stand at guessing, and fall by a fifth in 50 steps from then on."""
    fall = np.clip((np.arange(n) - stands) / 250, 0, 0.9)
    return flat(n, 2.303, 0.01) * (1 - fall)


def test_long_first_steps_are_no_fault_of_a_loss_that_stands_and_then_falls() -> None:
    assert standing(slow_start(300, 150)) == []


def test_a_loss_that_falls_as_slowly_as_its_noise_lets_one_see_is_waited_for() -> None:
    assert standing(slow_start(260, 150)) == []
    slowly = flat(500, 2.303, 0.01) - np.linspace(0, 0.1, 500)
    assert standing(slowly) == []


def test_a_loss_that_goes_on_standing_behind_long_steps_is_a_warning_after_200_steps() -> None:
    losses = flat(400, 2.303, 0.01)
    assert standing(losses[:200]) == []
    found = standing(losses)
    assert [item.rule for item in found] == ["lr_too_high"]
    assert found[0].severity == "warning"


def test_steps_hardly_too_long_are_given_twice_as_many() -> None:
    hardly = (0.0015) ** 2  # 1.5 % grown by momentum, where 1.2 % is the limit
    losses = flat(600, 2.303, 0.01)
    assert standing(losses[:380], hardly) == []
    assert [item.rule for item in standing(losses, hardly)] == ["lr_too_high"]


def test_a_loss_over_its_start_is_told_within_a_hundred_steps() -> None:
    found = standing(np.concatenate([flat(10, 2.303, 0.01), flat(90, 2.5, 0.05)]))
    assert [item.severity for item in found] == ["critical"]


def test_a_loss_that_steps_threw_up_is_told_early_with_the_step_at_which_they_did() -> None:
    losses = flat(100, 2.303, 0.01)
    losses[20:24] = 3.4
    found = standing(losses)
    assert [item.severity for item in found] == ["critical"]
    assert "→ 3.4 at step 21" in found[0].because[1].text


def test_the_noise_of_batches_is_not_taken_for_a_loss_that_was_thrown_up() -> None:
    assert standing(flat(120, 2.303, 0.25)) == []


def test_a_step_that_leaves_nothing_of_the_weights_is_told_early() -> None:
    found = standing(flat(100, 2.303, 0.01), 0.15**2)
    assert [item.severity for item in found] == ["critical"]


def test_what_momentum_would_make_of_a_first_step_tells_nothing_early() -> None:
    losses = flat(400, 2.303, 0.01)
    grown = 0.07**2  # 70 % in the long run, had the gradient stayed
    assert standing(losses[:180], grown) == []
    assert [item.severity for item in standing(losses, grown)] == ["warning"]  # it goes on standing


def test_what_momentum_would_make_of_a_first_step_tears_no_net_that_learns() -> None:
    losses = flat(200, 2.303, 0.01) * np.geomspace(1, 0.3, 200)
    losses[2:8] *= 1.4  # thrown up, and it comes down
    grown = 0.07**2  # 70 % in the long run, had the gradient stayed
    assert standing(losses, grown) == []
    alone = 0.7**2
    assert [item.rule for item in standing(losses, alone)] == ["lr_too_high"]


def test_a_loss_that_comes_down_to_guessing_alone_has_learned_nothing() -> None:
    above = np.concatenate([flat(5, 2.36, 0.001), 2.34 - np.linspace(0, 0.04, 395)])
    rng = np.random.default_rng(0)
    losses = above + rng.normal(0, 0.01, 400)
    assert [item.rule for item in standing(losses)] == ["lr_too_high"]
    # where guessing is another loss's, it may be on its way
    assert standing(losses, guess=9.0, classes=None) == []


def test_a_rate_that_warms_up_while_the_loss_stands_is_not_blamed_for_it() -> None:
    made = Made("lr_too_high", optimizers=[ADAM], classes=10)
    losses = flat(200, 2.33, 0.05)
    rates = 3e-3 * np.minimum(np.arange(1, 201) / 80, 1)
    made.add("train", {**train(losses), "lr": rates})
    assert made.judge() == []


@pytest.mark.parametrize("count", [20, 80])
def test_the_error_of_two_medians_is_what_many_draws_show(count: int) -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(2.0, 0.3, (4000, 2, count))
    medians = np.median(draws, axis=2)
    measured = float((medians[:, 0] - medians[:, 1]).std())
    spread = float(np.mean([spread_of(row) for row in draws[:200, 0]]))
    assert spread == pytest.approx(0.3, rel=0.1)
    assert error_of(spread, count) == pytest.approx(measured, rel=0.15)


def slow_net() -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(64, 48), nn.Sigmoid()]
    for _ in range(6):
        layers += [nn.Linear(48, 48), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(48, 10))


def test_a_real_net_that_stands_for_a_hundred_steps_and_then_learns_is_left_alone() -> None:
    lab, judged = run_lab(
        lambda p: torch.optim.Adam(p, 0.007), steps=300, curvature=0, net=slow_net
    )
    losses = [float(frame.values[0]) for frame in lab.frames if frame.family == "train"]
    assert (
        np.median(losses[40:80]) > 2.28
    )  # it stood, behind a first step of a tenth of its weights
    assert last_loss(lab) < 2.1  # and learned
    assert judged["findings"] == []
