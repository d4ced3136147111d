"""A ReLU behind the last layer is told by what outputs and targets are; what need not be negative is not."""

from __future__ import annotations

import numpy as np
import pytest

from .told import Made

Rows = dict[str, dict[str, dict[int, float]]]

HEAD = (
    "probability_rows", "as_logits", "as_probabilities", "predicted_entropy", "label_entropy",
    "never_predicted", "rows", "in_eval", "at_zero", "under_zero",
)  # fmt: skip
NUMBERS = {"at_zero": 0.45, "under_zero": 0.5}
CLASSES = {"at_zero": 0.5, "as_logits": 1.0, "probability_rows": 0.0, "label_entropy": 2.3}


def head(steps: tuple[int, ...], **columns: float) -> Rows:
    whole = {**dict.fromkeys(HEAD, np.nan), **columns}
    return {"head": {name: dict.fromkeys(steps, value) for name, value in whole.items()}}


@pytest.mark.parametrize(
    ("told", "fires"),
    [
        (NUMBERS, True),
        ({**NUMBERS, "under_zero": 0.0}, False),
        ({**NUMBERS, "at_zero": 0.0}, False),
        ({**NUMBERS, "at_zero": 0.01}, False),
        (CLASSES, True),
        ({**CLASSES, "at_zero": 0.1}, False),
        ({**CLASSES, "as_logits": 1.3}, False),
        ({**CLASSES, "probability_rows": 1.0, "as_probabilities": 1.0}, False),
    ],
    ids=[
        "numbers",
        "none of the targets negative",
        "outputs of either sign",
        "hardly ever zero",
        "classes",
        "few logits at zero",
        "not taken for logits",
        "a softmax that underflows",
    ],
)
def test_a_relu_at_the_end_is_told_where_outputs_would_have_to_be_negative(
    told: dict[str, float], fires: bool
) -> None:
    made = Made("wrong_head", head((3, 4), **told))
    assert (made.finding is not None) == fires
    if made.finding is not None:
        assert "ReLU" in made.finding.title
        assert made.finding.because[0].column == "at_zero"


def test_one_sample_does_not_tell_it() -> None:
    assert Made("wrong_head", head((3,), **NUMBERS)).finding is None
