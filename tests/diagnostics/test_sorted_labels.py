"""Labels that come sorted: batches of one class alone, seen before any other class was known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from .made import Made, falling, train

NAN = math.nan


@pytest.mark.parametrize(
    ("top", "rows", "fires"),
    [
        (0.75, 32, True),
        (0.95, 32, False),  # nearly all samples are of one class
        (0.75, 8, False),  # so few of them are by chance
    ],
)
def test_batches_of_one_class_count_as_sorted_once_another_class_is_known(
    top: float, rows: int, fires: bool
) -> None:
    made = Made("input_problem")
    made.add("train", train(falling(100)))
    labels = {
        "label_entropy": [NAN, NAN, NAN, 0.51],  # of the fourth batch a quarter is of another class
        "top_class_share": [1.0, 1.0, 1.0, top],
        "label_classes": [1.0, 1.0, 1.0, 3.0],
        "rows": [float(rows)] * 4,
    }
    scale = {"mean": [0.0] * 4, "std": [1.0] * 4, "min": [-3.0] * 4, "max": [3.0] * 4}
    made.add("inputs", {**scale, "non_finite": np.zeros(4), **labels}, [1, 2, 3, 10])
    found = made.judge()
    assert bool(found) is fires
    if fires:
        advice = found[0].recommendation
        assert advice is not None
        assert (advice.parameter, advice.proposed) == ("shuffle", True)
