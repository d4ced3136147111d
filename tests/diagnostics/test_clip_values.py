"""Clip values: taken from norms of steps before the first bad batch, not from those between bad ones; tight ones."""

from __future__ import annotations

import numpy as np
import pytest
from otoscope.store import Recommendation

from .made import ADAM, Made, falling, train

FIRST, EVERY = 200, 15


def bursts(norms: dict[int, float]) -> Recommendation:
    """Judge losses that a batch in 15 throws up from step 200 on, with the norms measured at some steps."""
    losses = 0.06 + 1.3 * np.exp(-np.arange(420) / 50)
    losses[FIRST:] += 0.6
    losses[FIRST::EVERY] = 90.0
    squares = np.full(len(losses), np.nan)
    for step, norm in norms.items():
        squares[step - 1] = norm**2
    made = Made("exploding_gradients", optimizers=[ADAM])
    made.add("train", train(losses, grad_sq=squares))
    (finding,) = made.judge()
    assert finding.recommendation is not None
    return finding.recommendation


FEW = {1: 0.46, 2: 0.41, 20: 0.73, 30: 0.29, 40: 0.19, 100: 0.07}


def test_norms_measured_between_bad_batches_tell_nothing_of_what_is_usual() -> None:
    spoiled = {216: 110.0, 231: 125.0, 246: 131.0, 261: 120.0, 276: 118.0}
    torn = dict.fromkeys((210, 220, 240, 250, 265, 270, 280, 285, 290, 300), 5.0)
    clip = bursts({**FEW, **spoiled, **torn})
    assert clip.parameter == "gradient_clip_val"
    assert clip.proposed == pytest.approx(0.57, abs=0.01)  # three times 0.19


def test_of_few_norms_the_last_ones_count_and_not_those_of_the_first_steps() -> None:
    assert bursts({**FEW, 1: 21.0}).proposed == pytest.approx(0.57, abs=0.01)


@pytest.mark.parametrize(("factor", "fires"), [(0.15, False), (0.01, True)])
def test_adam_is_clipped_to_a_seventh_of_its_norm_in_many_a_sound_run(
    factor: float, fires: bool
) -> None:
    made = Made("clipping_too_tight", gradient_clip_val=0.5, optimizers=[ADAM])
    made.add("train", train(falling(260), clip_factor=np.full(260, factor)))
    assert [item.severity for item in made.judge()] == ["info"] * fires


def stretch(losses: np.ndarray, norms: dict[int, float]) -> Recommendation:
    """Judge losses that stand at 8 from step 240 to 261, behind a first step of a tenth of the weights."""
    losses = losses.copy()
    losses[239:261] = 8.0
    squares = np.full(len(losses), np.nan)
    for step, norm in norms.items():
        squares[step - 1] = norm**2
    made = Made("loss_spike", optimizers=[{"name": "SGD", "lr": 0.2, "momentum": 0.9}])
    made.add("train", train(losses, 0.2, grad_sq=squares))
    layers = {"update_sq": {"a": [1e-4], "b": [1e-4]}, "weight_sq": {"a": [1.0], "b": [1.0]}}
    made.add("gradients", {}, [1], layers)
    (finding,) = made.judge()
    assert finding.recommendation is not None
    return finding.recommendation


def test_a_norm_that_was_small_by_chance_just_before_a_stretch_is_not_where_to_clip() -> None:
    clip = stretch(falling(300, 1.7, 0.1, 0.01), {1: 1.3, 20: 0.9, 100: 0.7, 205: 0.6, 210: 0.003})
    assert (clip.parameter, clip.proposed) == ("gradient_clip_val", 0.7)


def test_long_steps_by_which_a_run_learned_did_not_throw_it_up() -> None:
    norms = {1: 1.3, 100: 0.7, 210: 0.6}
    assert stretch(falling(300, 1.7, 0.1, 0.01), norms).parameter == "gradient_clip_val"
    assert stretch(falling(300, 1.7, 1.2, 0.01), norms).parameter == "lr"
