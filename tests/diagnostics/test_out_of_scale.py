"""Inputs out of scale: a loss that comes down to that of guessing has undone what they did, and learned nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from otoscope.store import Finding

from .made import Made, train

BEGAN_AT = 14.0


def regression(losses: np.ndarray, deviation: float, guess: float = 1.0) -> list[Finding]:
    """Judge a run whose loss of guessing is `guess`, of inputs of such a deviation."""
    made = Made("input_problem")
    made.add("train", train(losses))
    steps = [1, 2, 3, 4]
    row: dict[str, Any] = {"mean": 0.1, "std": deviation, "min": -60.0, "max": 60.0}
    made.add("inputs", {name: [value] * 4 for name, value in row.items()}, steps)
    made.add("initialization", {"expected_loss": [guess]}, [1])
    return made.judge()


def falls_to(least: float, began_at: float = BEGAN_AT) -> np.ndarray:
    """Return 400 losses that come down to so many times that of guessing, from fourteen times it."""
    return least + (began_at - least) * np.exp(-np.arange(400) / 15)


def test_a_loss_that_only_came_down_towards_guessing_has_learned_nothing_of_such_inputs() -> None:
    (finding,) = regression(falls_to(1.3), 11.8)
    assert finding.recommendation is not None
    assert finding.recommendation.parameter == "input_normalization"


def test_a_loss_under_that_of_guessing_has_learned_of_inputs_of_any_scale() -> None:
    assert regression(falls_to(0.4), 11.8) == []


def test_inputs_of_a_usual_scale_are_not_blamed_for_a_loss_that_stays_over_guessing() -> None:
    assert regression(falls_to(1.3), 1.2) == []


def test_a_loss_whose_guess_is_not_known_is_held_against_its_start_alone() -> None:
    assert regression(falls_to(1.3), 11.8, guess=float("nan")) == []


def test_a_loss_that_began_little_over_guessing_has_to_get_under_it_as_well() -> None:
    (finding,) = regression(falls_to(1.3, began_at=2.4), 11.8)
    assert finding.rule == "input_problem"
    assert regression(falls_to(0.8, began_at=2.4), 11.8) == []
