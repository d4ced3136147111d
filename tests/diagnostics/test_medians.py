"""Medians and quantiles are numpy's, and what was read of a point is not what a later one reads."""

from __future__ import annotations

import math

import numpy as np
import pytest
from otoscope.diagnostics.medians import median_of, quantiles_of

from .made import Made, falling, train


@pytest.mark.parametrize("n", [1, 2, 3, 10, 127, 128])
def test_medians_and_quantiles_are_those_of_numpy(n: int) -> None:
    values = np.random.default_rng(n).standard_normal(n)
    shares = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
    assert median_of(values) == np.median(values)
    np.testing.assert_array_equal(quantiles_of(values, *shares), np.quantile(values, shares))


def test_there_is_no_median_of_nothing_nor_of_what_was_not_measured() -> None:
    assert math.isnan(median_of([]))
    assert math.isnan(median_of([1.0, math.nan, 2.0]))


def test_what_was_read_of_a_column_is_read_anew_once_more_has_come() -> None:
    made = Made("plateau")
    made.add("train", train(falling(50)))
    made.judge()
    history = made.fold.history
    before = history.column("train", "loss", 0, 100)
    assert history.column("train", "loss", 0, 100) is before
    made.add("train", train(falling(50)), steps=range(51, 101))
    made.fold.judge()
    assert len(history.column("train", "loss", 0, 100)) == 100
    with pytest.raises(ValueError, match="read-only"):
        before.values[0] = 0.0
