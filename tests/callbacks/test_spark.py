"""The small curve of the list of runs holds the whole run, however long it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from otoscope.callbacks.spark import MOST, Spark


@pytest.mark.parametrize("steps", [0, 1, 47, 48, 49, 96, 97, 1000, 12_345])
def test_every_bin_holds_the_mean_of_its_steps(steps: int) -> None:
    losses = np.random.default_rng(steps).random(steps)
    spark = Spark()
    for loss in losses:
        spark.add(float(loss))
    length = 1
    while length * MOST < steps:
        length *= 2
    expected = [losses[i : i + length].mean() for i in range(0, steps, length)]
    assert len(spark.means()) <= MOST
    np.testing.assert_allclose(spark.means(), expected, rtol=1e-3)


def test_what_is_not_finite_does_not_spoil_its_bin() -> None:
    spark = Spark(most=2)
    for loss in (1.0, math.nan, 3.0, math.inf, math.nan, math.nan, math.nan, math.nan):
        spark.add(loss)
    assert spark.means()[0] == 2.0
    assert math.isnan(spark.means()[1])
