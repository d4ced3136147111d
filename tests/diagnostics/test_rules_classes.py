"""Classes that are never predicted beside several that are, and inputs of which few batches were seen."""

from __future__ import annotations

from typing import Any

import pytest

from .told import Made, Rows

SHARES = (0.47, 0.47, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01)
TWO_OF_EIGHT = {
    "predicted_entropy": 0.69, "label_entropy": 0.99, "never_predicted": 6.0, "rows": 576.0,
    "as_logits": 1.0, **{f"class_share_{place}": share for place, share in enumerate(SHARES)},
}  # fmt: skip
"""Two classes share what the other six leave: the predicted ones have most of the labels' entropy."""


def head(**told: float) -> dict[str, Rows]:
    rows = {**TWO_OF_EIGHT, **told}
    return {
        "head": {name: dict.fromkeys(range(205, 700, 5), value) for name, value in rows.items()}
    }


def validated(loss: float) -> dict[str, Rows]:
    return {"validation": {"val_loss": dict.fromkeys(range(50, 700, 50), loss)}}


def falling(to: float) -> Any:
    return lambda step: to + (2.0 - to) * 0.97**step


def test_half_of_the_classes_are_missed_beside_two_frequent_ones() -> None:
    made = Made("wrong_head", {**head(), **validated(2.2)}, steps=600, loss=falling(0.25))
    assert made.sure.severity == "warning"
    assert made.sure.first_step <= 220
    first = made.sure.because[0]
    assert (first.column, first.value, first.threshold) == ("never_predicted", 6.0, 4.0)
    assert made.advice.parameter == "class_weights"
    assert made.advice.proposed == [0.266, 0.266, *[12.5] * 6]


def test_rare_classes_that_are_named_now_and_then_are_told_where_validation_suffers() -> None:
    hardly = {"never_predicted": 0.0, "predicted_entropy": 0.75}
    made = Made("wrong_head", {**head(**hardly), **validated(2.2)}, steps=600, loss=falling(0.25))
    assert made.sure.severity == "warning"
    assert made.sure.title.startswith("Rare classes are hardly ever predicted")
    assert [(e.column, e.threshold) for e in made.sure.because[:1]] == [("predicted_entropy", 0.85)]
    for told, loss in (
        ({**hardly, "predicted_entropy": 0.95}, 2.2),  # named as often as they come
        (hardly, 0.7),  # and validation does not suffer
        ({**hardly, **{f"class_share_{place}": 0.125 for place in range(8)}}, 2.2),
    ):
        still = {**head(**told), **validated(loss)}
        assert Made("wrong_head", still, steps=600, loss=falling(0.25)).finding is None


def test_missed_classes_are_information_where_no_validation_suffers() -> None:
    calm = Made("wrong_head", {**head(), **validated(0.3)}, steps=600, loss=falling(0.25))
    assert calm.sure.severity == "info"
    assert calm.sure.first_step > 300  # once the loss has come to a stand


@pytest.mark.parametrize(
    ("told", "loss"),
    [
        ({"never_predicted": 3.0, "predicted_entropy": 0.9}, falling(0.25)),  # most are predicted
        ({}, falling(0.04)),  # what is left is less than how often the rare ones come
        (
            {
                "rows": 101.0,
                "class_share_0": 0.5,
                "class_share_1": 0.48,
                **{f"class_share_{i}": 0.003 for i in range(2, 8)},
            },
            falling(0.25),
        ),  # two labels of them were met
        ({"as_logits": 0.5}, falling(0.25)),  # another loss, whose floor is not known
        ({f"class_share_{place}": 0.125 for place in range(8)}, falling(0.25)),
        ({"class_share_7": 0.3}, falling(0.25)),  # no rarer than those that are predicted
    ],
)
def test_missed_classes_are_left_alone_where_they_are_not_what_is_left(
    told: dict[str, float], loss: Any
) -> None:
    still = {**head(**told), **validated(2.2)}
    assert Made("wrong_head", still, steps=600, loss=loss).finding is None


def test_a_rare_class_of_two_comes_last_where_the_loss_already_tells_samples_apart() -> None:
    told = {
        "head": {
            name: dict.fromkeys(range(205, 700, 5), value)
            for name, value in {
                "predicted_entropy": 0.0, "label_entropy": 0.08, "never_predicted": 1.0,
                "rows": 512.0, "as_logits": 1.0, "class_share_0": 0.985, "class_share_1": 0.015,
            }.items()
        }
    }  # fmt: skip
    assert Made("wrong_head", told, steps=600, loss=falling(0.03)).finding is None
    made = Made("wrong_head", {**told, **validated(1.5)}, steps=600, loss=falling(0.03))
    assert made.finding is None
    made = Made("wrong_head", {**told, **validated(1.5)}, steps=600, loss=falling(0.06))
    assert made.sure.severity == "warning"


SCALE = {"mean": 0.0, "std": 1.0, "min": -3.0, "max": 3.0, "non_finite": 0.0}


def inputs(rows: dict[int, dict[str, float]]) -> dict[str, Rows]:
    return {"inputs": {name: {s: row[name] for s, row in rows.items()} for name in SCALE}}


def test_a_shift_is_told_against_the_only_two_batches_that_were_looked_at_before_it() -> None:
    first = {1: {**SCALE, "mean": 0.1}, 2: {**SCALE, "mean": 0.12}}
    late = {s: {**SCALE, "mean": 4.0 + s / 1e4} for s in (223, 224, 229, 234)}
    made = Made("input_problem", inputs({**first, **late}))
    assert (made.advice.parameter, made.advice.proposed) == ("inspect", [224])
    near = {s: {**SCALE, "mean": 1.5} for s in late}
    assert Made("input_problem", inputs({**first, **near})).finding is None


def test_missing_numbers_that_a_model_masks_hide_no_scale() -> None:
    holes = {**SCALE, "non_finite": 0.1}
    assert Made("input_problem", inputs(dict.fromkeys((1, 2, 3, 4), holes))).sure.severity == "info"
    wide = {**holes, "mean": 90.0, "std": 40.0, "max": 255.0}
    made = Made("input_problem", inputs(dict.fromkeys((1, 2, 3, 4), wide)))
    assert made.advice.parameter == "input_normalization"
    assert made.advice.proposed == {"mean": 90.0, "std": 40.0}
