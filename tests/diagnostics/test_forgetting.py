"""Forgetting: Adam at a rate at which its steps undo each other, and runs that only look like it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from .made import ADAM, Made, falling, flat, train


def forgetful(losses: np.ndarray, ratio: float, **columns: Any) -> Made:
    made = Made("lr_too_high", optimizers=[ADAM])
    made.add("train", train(losses, **columns))
    steps = list(range(6, len(losses), 12))
    n = len(steps)
    rows = {"update_sq": {"0": [ratio**2] * n}, "weight_sq": {"0": [1.0] * n}}
    made.add("gradients", {}, steps, rows)
    return made


def stands(at: float, n: int = 500) -> np.ndarray:
    return np.concatenate([falling(100, 4.0, at), flat(n - 100, at)])


def test_adams_steps_that_replace_the_weights_hold_the_loss_up() -> None:
    (finding,) = forgetful(stands(2.4), 0.12).judge()
    assert finding.severity == "warning"
    assert finding.because[0].column == "update_ratio"
    advice = finding.recommendation
    assert advice is not None
    assert advice.proposed < 0.05


@pytest.mark.parametrize(
    ("losses", "ratio"),
    [
        (stands(2.4), 0.02),  # steps as in any run with Adam
        (stands(2.4), math.nan),
        (stands(0.4), 0.12),  # near its floor
        (falling(500, 4.0, 1.0)[:300], 0.12),  # still falling
        (stands(2.4, 250), 0.12),  # too few losses since it stands
    ],
)
def test_a_loss_that_falls_or_is_low_or_has_usual_steps_is_held_by_no_rate(
    losses: np.ndarray, ratio: float
) -> None:
    assert forgetful(losses, ratio).judge() == []


def test_the_final_decay_of_a_rate_explains_a_loss_that_stands() -> None:
    made = forgetful(stands(2.4), 0.12, lr=np.geomspace(0.1, 0.001, 500))
    assert made.judge() == []


def test_a_first_step_that_tore_the_weights_is_named_where_the_loss_stands_half_way() -> None:
    def begun(ratio: float, at: float) -> Made:
        made = Made("lr_too_high", optimizers=[{**ADAM, "lr": 0.2}])
        made.add("train", train(stands(at), lr=0.2))
        rows = {"update_sq": {"0": [ratio**2] * 2}, "weight_sq": {"0": [1.0] * 2}}
        made.add("gradients", {}, [1, 2], rows)
        return made

    (finding,) = begun(0.9, 2.8).judge()
    assert finding.recommendation is not None
    assert finding.recommendation.proposed < 0.01
    assert begun(0.9, 1.0).judge() == []
    assert begun(0.05, 2.8).judge() == []


def torn(
    first: list[float], then: np.ndarray, ratio: float = 0.6, second: float = 0.0
) -> list[str]:
    """Return the rules that speak of first steps of a size, behind ten losses."""
    made = Made("lr_too_high", optimizers=[{**ADAM, "lr": 0.2}], classes=10)
    made.add("initialization", {"expected_loss": [2.303]}, [1])
    made.add("train", train(np.concatenate([first, then]), lr=0.2))
    sizes = [ratio**2, second**2]
    rows = {"update_sq": {"0": sizes, "1": sizes}, "weight_sq": {"0": [1.0] * 2, "1": [1.0] * 2}}
    made.add("gradients", {}, [1, 2], rows)
    return [item.rule for item in made.judge()]


def begun(first: float, losses: np.ndarray, batch: int = 32) -> list[str]:
    """Return what is said of a first step of a size, after which steps are short beside weights that grew."""
    made = Made("lr_too_high", optimizers=[{**ADAM, "lr": 0.02}])
    made.add("train", train(losses, lr=0.02, samples=batch))
    sizes = [first**2, 0.003**2, 0.003**2, 0.002**2]
    rows = {"update_sq": {"0": sizes, "1": sizes}, "weight_sq": {"0": [1.0] * 4, "1": [1.0] * 4}}
    made.add("gradients", {}, [1, 240, 320, 400], rows)
    return [item.rule for item in made.judge()]


def test_a_first_step_longer_than_that_of_runs_that_train_is_told_where_the_loss_stands_half_way() -> (
    None
):
    halfway = np.concatenate([falling(100, 2.6, 1.2), flat(300, 1.2)])
    assert begun(0.22, halfway) == ["lr_too_high"]
    assert begun(0.08, halfway) == []
    assert begun(0.22, np.concatenate([falling(100, 2.6, 0.6), flat(300, 0.6)])) == []  # its floor
    assert begun(0.22, falling(400, 2.6, 0.9)) == []  # it learns
    assert begun(0.16, halfway[:380]) == []  # hardly too long: twice as many steps
    stands_on = np.concatenate([halfway, flat(200, 1.2)])
    assert begun(0.16, stands_on) == ["lr_too_high"]
    assert begun(0.12, stands_on) == []  # as in runs that came to their floor
    assert begun(0.12, stands_on, batch=1) == ["lr_too_high"]  # each step goes another way


RISES = [2.3, 2.4, 2.5, 2.6, 2.6, 2.6, 2.5, 2.4, 2.3, 2.2]


def test_a_first_step_that_tore_the_weights_is_told_by_several_losses_over_the_start() -> None:
    learns = falling(200, 2.2, 0.9)
    assert torn(RISES, learns) == ["lr_too_high"]
    assert torn([2.3] * 4 + [2.9] + [2.3] * 5, learns) == []  # one hard batch
    assert torn(RISES, learns, 0.1) == []
    assert torn(RISES, learns, 0.1, second=0.5) == ["lr_too_high"]  # what was stepped, not foretold
    back = 0.1 + 2.1 * np.exp(-np.arange(200) / 15)
    assert torn(RISES, back) == []


def test_a_loss_hardly_thrown_up_by_its_first_step_came_back_once_it_has_fallen_by_a_third() -> (
    None
):
    falls = 1.3 + 0.9 * np.exp(-np.arange(200) / 10)
    far = [2.3, 9.0, 12.0, 11.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.5]
    assert torn(RISES, falls) == []
    assert torn(far, falls) == ["lr_too_high"]
    assert torn(RISES, np.maximum(falls, 1.9)) == ["lr_too_high"]


def test_behind_torn_weights_a_loss_that_creeps_is_told_and_one_that_falls_is_not() -> None:
    def then(end: float) -> np.ndarray:
        return np.linspace(1.9, end, 400) + 0.02 * np.random.default_rng(0).standard_normal(400)

    assert torn([2.3] * 10, then(1.8)) == ["lr_too_high"]
    assert torn([2.3] * 10, then(1.2)) == []


def test_behind_torn_weights_naming_the_classes_shares_is_no_learning() -> None:
    shares = flat(400, 2.03, 0.02)  # under guessing, as classes are uneven
    assert torn([2.3] * 10, shares) == ["lr_too_high"]
    assert torn([2.3] * 10, shares, 0.11) == []
