"""What is proposed to a loss that stands still near its start: a longer step, or a shorter one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from otoscope.store import Recommendation

from .made import ADAM, SGD, Made, flat, train

SAMPLED = [1, 20, 40, 100, 200, 300, 400]


def advice(
    ratio: float | None, optimizer: dict[str, object], *, noise: float = math.nan
) -> Recommendation:
    """Return the advice to a flat loss of 450 steps whose steps are `ratio` of the weights.

    `noise`: the noise scale over the batch; NaN where none was measured.
    """
    made = Made("plateau", optimizers=[optimizer])
    made.add("train", {**train(flat(450)), "samples": np.full(450, 8.0), "lr": np.full(450, 1e-3)})
    if ratio is not None:
        moved = {"update_sq": {"0": [ratio**2] * 7}, "weight_sq": {"0": [1.0] * 7}}
        made.add("gradients", {}, SAMPLED, moved)
    if math.isfinite(noise):
        steps = np.arange(5, 450, 5)
        parts = {"small": np.full(len(steps), 4.0), "big": np.full(len(steps), 8.0)}
        wobble = np.random.default_rng(3).normal(1.0, 0.05, (2, len(steps)))
        sizes = [(1 + 8 * noise / part) * one for part, one in zip((4, 8), wobble, strict=True)]
        told = {**parts, "small_sq": sizes[0], "big_sq": sizes[1]}
        made.add("noise", told, steps.tolist())
    (finding,) = made.judge()
    assert finding.recommendation is not None
    return finding.recommendation


@pytest.mark.parametrize(("ratio", "optimizer"), [(0.001, ADAM), (0.02, ADAM), (0.004, SGD)])
def test_steps_no_longer_than_in_runs_that_train_are_made_longer(
    ratio: float, optimizer: dict[str, object]
) -> None:
    told = advice(ratio, {**optimizer, "lr": 1e-3})
    assert told.parameter == "lr" and told.proposed == pytest.approx(0.0033)
    assert told.alternatives == [{"parameter": "lr", "proposed": 0.0003}]


@pytest.mark.parametrize(
    ("ratio", "optimizer"), [(0.2, ADAM), (0.06, SGD), (None, ADAM)], ids=["Adam", "SGD", "unknown"]
)
def test_steps_that_are_long_or_of_unknown_length_are_made_shorter(
    ratio: float | None, optimizer: dict[str, object]
) -> None:
    told = advice(ratio, {**optimizer, "lr": 1e-3})
    assert told.proposed == pytest.approx(0.0003)


def test_where_the_noise_of_the_batches_holds_the_loss_steps_are_made_shorter() -> None:
    told = advice(0.001, {**ADAM, "lr": 1e-3}, noise=100.0)
    assert told.proposed == pytest.approx(0.0003)
    assert told.alternatives[0]["parameter"] == "batch_size"


def test_no_rate_is_raised_beyond_what_runs_train_with() -> None:
    made = Made("plateau", optimizers=[{**ADAM, "lr": 0.02}])
    made.add("train", {**train(flat(450)), "lr": np.full(450, 0.02)})
    moved = {"update_sq": {"0": [0.005**2] * 7}, "weight_sq": {"0": [1.0] * 7}}
    made.add("gradients", {}, SAMPLED, moved)
    (finding,) = made.judge()
    assert finding.recommendation is not None
    assert finding.recommendation.proposed == pytest.approx(0.03)
