"""Rates that jump in the middle of a run, stretches of bad batches, and what is advised behind them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from otoscope.store import Event, Finding

from .made import ADAM, Made, falling, flat, train


def jumped(
    losses: np.ndarray,
    rates: np.ndarray,
    at: int,
    rule: str,
    update_sq: float = 0.02**2,
    total: int | None = None,
) -> list[Finding]:
    """Return what a rule says of a run whose rate jumps, as its event told, behind a first step."""
    made = Made(rule, optimizers=[ADAM], classes=5, max_steps=total)
    before, after = float(rates[0]), float(rates[-1])
    body = {"optimizer": 0, "group": 0, "from": before, "to": after, "phase": "decay"}
    rests = {**body, "from": after, "phase": "constant"}
    made.fold.push(
        events=[
            Event("lr", step=at, body=body, id="a"),
            Event("lr", step=at + 180, body=rests, id="b"),
        ]
    )
    layers = {"update_sq": {"a": [update_sq]}, "weight_sq": {"a": [1.0]}}
    layers["update_sq"]["b"], layers["weight_sq"]["b"] = [update_sq], [1.0]
    made.add("gradients", {}, [1], layers)
    made.add("train", {**train(losses), "lr": rates})
    return made.judge()


def lowered(times: float, at: float, total: int | None = None) -> list[Finding]:
    losses = np.concatenate([falling(60, 1.6, at, 0.01), flat(400, at, 0.01)])
    rates = np.where(np.arange(1, 461) <= 60, 2e-3, 2e-3 * times)
    return jumped(losses, rates, 61, "lr_too_low", total=total)


def test_a_milestone_that_came_while_nothing_was_learned_is_told_with_the_rate_before_it() -> None:
    (finding,) = lowered(1e-5, 1.47)
    assert finding.rule == "lr_too_low"
    assert finding.recommendation is not None
    assert finding.recommendation.proposed == pytest.approx(2e-3)
    assert finding.recommendation.basis == "from your run"
    assert finding.first_step == 62


def test_the_last_stage_of_a_schedule_is_no_milestone_that_came_too_soon() -> None:
    assert lowered(1e-5, 0.5) == []  # it has learned by then
    assert lowered(1e-2, 1.47) == []  # a hundredth is a usual stage


def test_a_rate_that_is_gone_before_half_of_the_run_is_told_though_the_loss_had_halved() -> None:
    assert [item.rule for item in lowered(1e-5, 0.8, total=460)] == ["lr_too_low"]
    assert lowered(1e-5, 0.8, total=100) == []
    assert lowered(1e-5, 0.2, total=460) == []  # little is left to learn


def decayed(rate: np.ndarray, losses: np.ndarray) -> list[Finding]:
    """Return what is said of a rate that falls step by step from the first one on."""
    steps = len(losses)
    made = Made("lr_too_low", optimizers=[ADAM], classes=5, max_steps=steps)
    layers = {"update_sq": {"a": [0.02**2]}, "weight_sq": {"a": [1.0]}}
    made.add("gradients", {}, [1], layers)
    made.add("train", {**train(losses), "lr": rate})
    return made.judge()


def test_a_decay_that_is_over_long_before_the_run_is_no_final_one() -> None:
    step, noisy = np.arange(400), np.concatenate([falling(60, 1.6, 1.1, 0.2), flat(340, 1.1, 0.2)])
    (finding,) = decayed(2e-3 * 0.5 ** (step / 7), noisy)
    assert finding.severity == "warning"
    assert 60 < finding.first_step < 100  # where a thousandth of the rate was left
    assert finding.recommendation is not None
    assert finding.recommendation.proposed == pytest.approx(2e-3)
    assert "lasts as long as the run" in finding.recommendation.snippet
    to_zero = 2e-3 * np.clip(1 - step / 80, 0, 1)  # within a fifth of the run
    (gone,) = decayed(to_zero, noisy)
    assert gone.recommendation is not None
    assert gone.recommendation.effect == "steps again"
    cosine = 1e-3 * (1 + np.cos(np.pi * step / 400))
    for rate, losses in (
        (cosine, noisy),  # it is next to nothing at the very end
        (2e-3 * 0.5 ** (step / 25), noisy),  # for less than half of the run
        (2e-3 * 0.5 ** (step / 7), falling(400, 1.6, 0.1, 0.01)),  # it learned all the same
    ):
        assert decayed(rate, losses) == []


def test_a_schedule_that_comes_to_rest_does_not_begin_the_windows_anew() -> None:
    made = Made("plateau")
    still = {"optimizer": 0, "group": 0, "from": 0.1, "to": 0.1, "phase": "constant"}
    made.fold.push(events=[Event("lr", step=250, body=still, id="a")])
    made.add("train", train(flat(300)))
    made.judge()
    assert made.fold.place.since == 0


def blown_up(peak: float) -> list[Finding]:
    """Return what is said of a loss that a rate 200 times as high threw up, and that comes down."""
    down = peak * np.exp(-np.arange(240) / 25) + 1.5
    losses = np.concatenate([falling(160, 0.7, 0.1, 0.005), down])
    rates = np.where(np.arange(1, 401) <= 160, 5e-4, 0.1)
    return jumped(losses, rates, 161, "lr_too_high", 0.001**2)


def test_a_loss_that_a_raised_rate_blew_up_is_told_although_it_comes_down() -> None:
    (finding,) = blown_up(1e4)
    assert finding.rule == "lr_too_high"
    assert finding.severity == "critical"
    assert finding.recommendation is not None
    assert finding.recommendation.proposed == pytest.approx(5e-4)


def thrown_back(lost: float, times: float = 60.0) -> list[Finding]:
    """Return what is said of a loss of 0.1 that begins at 2.3, loses a share of the way, and comes back."""
    down = lost * 2.2 * np.exp(-np.arange(240) / 100)
    losses = np.concatenate([falling(240, 2.3, 0.1, 0.005), 0.1 + down])
    rates = np.where(np.arange(1, 481) <= 240, 1e-3, times * 1e-3)
    return jumped(losses, rates, 241, "lr_too_high", 0.01**2)


def test_what_a_raised_rate_undid_is_told_while_a_quarter_of_it_is_lost() -> None:
    (finding,) = thrown_back(0.8)
    assert finding.recommendation is not None
    assert finding.recommendation.proposed == pytest.approx(1e-3)
    assert thrown_back(0.2) == []  # a bump that comes down
    assert thrown_back(0.8, 1.5) == []  # the rate was hardly raised


def broken(first: float) -> list[Finding]:
    made = Made("lr_too_high", optimizers=[{"name": "SGD", "lr": 1.0, "momentum": 0.9}])
    layers = {"update_sq": {"a": [first**2]}, "weight_sq": {"a": [1.0]}}
    layers["update_sq"]["b"], layers["weight_sq"]["b"] = [first**2], [1.0]
    made.add("gradients", {}, [1], layers)
    losses = np.concatenate([falling(120, 0.95, 0.4, 0.02), np.full(30, math.nan)])
    made.add("train", train(losses, 1.0))
    return made.judge()


def test_a_run_that_learned_behind_wild_steps_and_broke_off_had_too_high_a_rate() -> None:
    assert [item.rule for item in broken(0.02)] == ["lr_too_high"]  # 20 % with momentum
    assert broken(0.001) == []  # what breaks off behind sound steps has another cause


def wrong_labels(norm: float | None, **meta: object) -> Finding:
    """Return what is said of 20 batches with wrong labels, the first norms being measured or not."""
    made = Made("loss_spike", **meta)
    losses = falling(300, 1.7, 0.1, 0.01)
    losses[239:262] = 8.0
    squares = np.full(300, math.nan)
    if norm is not None:
        squares[:4] = norm**2
    made.add("train", train(losses, grad_sq=1.0) | {"grad_sq": squares})
    (finding,) = made.judge()
    return finding


def test_a_stretch_of_bad_batches_is_clipped_at_the_last_norm_that_is_known() -> None:
    advice = wrong_labels(1.3).recommendation
    assert advice is not None
    assert (advice.parameter, advice.proposed) == ("gradient_clip_val", 1.3)


def test_no_lower_rate_is_advised_for_batches_that_are_bad_themselves() -> None:
    advice = wrong_labels(None).recommendation
    assert advice is not None
    assert advice.parameter == "inspect"
    assert advice.proposed[0] == 240


def validated(top: float, *, rising: bool) -> list[Finding]:
    """Return what is said of a validation loss that rises to a height while the accuracy creeps up."""
    made = Made("overfitting")
    steps = list(range(20, 420, 20))
    loss = np.concatenate([np.linspace(1.6, 1.4, 4), np.linspace(1.45, top, 16)])
    accuracy = np.linspace(0.3, 0.6 if rising else 0.4, 20)
    made.add("train", train(falling(400, 1.6, 0.01, 0.01)))
    made.add("validation", {"val_loss": loss, "val_accuracy": accuracy}, steps)
    return made.judge()


def test_a_validation_loss_far_over_its_first_one_is_told_as_information_beside_a_better_metric() -> (
    None
):
    assert [item.severity for item in validated(3.4, rising=True)] == ["info"]
    assert validated(1.8, rising=True) == []
