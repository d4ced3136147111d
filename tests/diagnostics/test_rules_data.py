"""Rules about data, validation and the head: real runs that fire them, twins that do not, edges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.store import Event
from torch import nn

from .lab import digits, mlp
from .told import Made, named, rules_of, trained

SGD, Adam = torch.optim.SGD, torch.optim.Adam
SCALE = {"mean": 0.0, "std": 1.0, "min": -3.0, "max": 3.0, "non_finite": 0.0}


def inputs(steps: dict[int, dict[str, float]]) -> dict[str, Any]:
    names = {name for row in steps.values() for name in row}
    return {"inputs": {n: {s: row[n] for s, row in steps.items() if n in row} for n in names}}


def net(*parts: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*parts, mlp())


# ---- input_problem -------------------------------------------------------------------------------


def test_pixels_up_to_255_are_named_with_the_numbers_that_scale_them(tmp_path: Path) -> None:
    x, y = digits()
    model = net()
    judged = trained(tmp_path, model, SGD(model.parameters(), 0.1), data=(x * 80 + 70, y))
    finding = named(judged, "input_problem")
    proposed = finding["recommendation"]["proposed"]
    assert proposed["mean"] == pytest.approx(70, abs=3)
    assert proposed["std"] == pytest.approx(80, abs=3)
    assert finding["recommendation"]["parameter"] == "input_normalization"
    model = net()
    scaled = ((x * 80 + 70) - proposed["mean"]) / proposed["std"]
    assert (
        trained(tmp_path, model, SGD(model.parameters(), 0.1), data=(scaled, y))["findings"] == []
    )


def test_a_model_that_scales_its_inputs_itself_is_left_alone(tmp_path: Path) -> None:
    x, y = digits()
    model = net(nn.BatchNorm1d(64))
    judged = trained(tmp_path, model, SGD(model.parameters(), 0.1), data=(x * 80 + 70, y))
    assert "input_problem" not in rules_of(judged)


def test_sorted_labels_ask_for_shuffling(tmp_path: Path) -> None:
    y = digits()[1]
    by_label = torch.argsort(y, stable=True)

    def order(step: int) -> torch.Tensor:
        return by_label.roll(-32 * step)[:32]

    model = net()
    judged = trained(tmp_path, model, SGD(model.parameters(), 0.1), order=order, batch=32)
    finding = named(judged, "input_problem")
    assert finding["recommendation"]["parameter"] == "shuffle"
    assert finding["recommendation"]["proposed"] is True


def test_token_ids_have_no_scale() -> None:
    rows = {s: {"mean": math.nan, "std": math.nan, "is_integer": 1.0} for s in (1, 2, 3, 4, 50)}
    made = Made("input_problem", inputs(rows))
    assert made.finding is None
    assert "token ids" in made.why


def test_too_few_batches_are_not_judged_while_more_may_come() -> None:
    few = inputs({1: {**SCALE, "std": 9.0}, 2: {**SCALE, "std": 9.0}})
    made = Made("input_problem", few, steps=90)
    assert made.finding is None
    assert "too few batches" in made.why
    assert Made("input_problem", few, steps=120).sure.recommendation is not None


def test_one_hot_rows_are_narrow_and_all_right() -> None:
    rows = {s: {**SCALE, "mean": 0.0001, "std": 0.01, "min": 0.0, "max": 1.0} for s in (1, 2, 3, 4)}
    assert Made("input_problem", inputs(rows)).finding is None
    faint = {s: {**row, "max": 0.02} for s, row in rows.items()}
    assert Made("input_problem", inputs(faint)).sure.recommendation is not None


def test_inputs_that_are_one_number_are_named_where_the_loss_does_not_fall() -> None:
    same = {s: {"mean": 0.5, "std": 0.0, "min": 0.5, "max": 0.5} for s in (1, 2, 3, 4)}
    stuck = Made("input_problem", inputs(same))
    assert "one and the same number, 0.5" in stuck.sure.title
    assert stuck.advice.parameter == "inspect"
    assert Made("input_problem", inputs(same), loss=lambda s: 2.0 * 0.98**s).finding is None


def test_counts_up_to_16_are_named_only_where_the_loss_does_not_fall() -> None:
    rows = inputs({s: {**SCALE, "mean": 4.9, "std": 6.0} for s in (1, 2, 3, 4)})
    assert Made("input_problem", rows, loss=lambda s: 2.0 / (1 + s / 50)).finding is None
    assert Made("input_problem", rows).sure.rule == "input_problem"


def test_a_shift_counts_when_it_stays_and_not_as_a_single_batch() -> None:
    base = {s: {**SCALE, "mean": 0.01 * (-1) ** s} for s in (1, 2, 3, 4, 50, 100, 150)}
    shifted = {s: {**SCALE, "mean": 4.0} for s in (200, 220, 240)}
    once = Made("input_problem", inputs({**base, 200: shifted[200], 250: SCALE}))
    assert once.finding is None
    made = Made("input_problem", inputs({**base, **shifted}))
    assert (made.advice.parameter, made.advice.proposed) == ("inspect", [200])


def test_nan_in_the_inputs_is_critical_only_with_the_loss() -> None:
    rows = inputs({1: SCALE, 2: SCALE, 50: {**SCALE, "non_finite": 0.1}})
    assert Made("input_problem", rows).sure.severity == "info"
    broken = Made("input_problem", rows, loss=lambda s: math.nan if s >= 50 else 2.0)
    assert broken.sure.severity == "warning"
    assert broken.sure.first_step == 50


@pytest.mark.parametrize(("entropy", "fires"), [(0.1, True), (0.45, True), (0.9, False)])
def test_label_entropy_tells_sorted_from_shuffled(entropy: float, fires: bool) -> None:
    told = {"label_entropy": entropy, "top_class_share": 0.2, "label_classes": 10.0}
    rows = {s: {**SCALE, **told} for s in (1, 2, 3, 4, 50)}
    assert (Made("input_problem", inputs(rows)).finding is not None) == fires
    single = Made("input_problem", inputs(rows), samples=1)
    assert single.finding is None  # a batch of one sample is always of one class


def test_batches_of_a_rare_class_are_no_sign_of_sorting() -> None:
    told = {"label_entropy": 0.0, "top_class_share": 0.99, "label_classes": 2.0}
    rows = {s: {**SCALE, **told} for s in (1, 2, 3, 4, 50)}
    assert Made("input_problem", inputs(rows)).finding is None


# ---- overfitting ---------------------------------------------------------------------------------


def validated(losses: list[float], accuracies: list[float] | None = None) -> dict[str, Any]:
    told = {"val_loss": {20 * (i + 1): v for i, v in enumerate(losses)}}
    if accuracies is not None:
        told["val_accuracy"] = {20 * (i + 1): v for i, v in enumerate(accuracies)}
    return {"validation": told}


TURNING = [2.0, 1.2, 0.7, 0.56, 0.6, 0.7, 0.8, 0.95, 1.1, 1.25, 1.38, 1.4]
FALLING: dict[str, Any] = {"loss": lambda s: 2.0 * 0.99**s}


def test_a_net_that_learns_by_heart_is_stopped_at_its_best(tmp_path: Path) -> None:
    x, y = digits()
    torch.manual_seed(0)
    few = torch.randperm(len(x))[:200]
    labels = y[few].clone()
    labels[:40] = torch.randint(10, (40,))
    held, target = x[-400:], y[-400:]
    model = mlp((256, 256, 256))

    def validate(step: int) -> dict[str, float] | None:
        if step % 20:
            return None
        with torch.no_grad():
            out = model(held)
        right = float((out.argmax(1) == target).float().mean())
        return {"val_loss": float(nn.functional.cross_entropy(out, target)), "val_acc": right}

    judged = trained(
        tmp_path, model, Adam(model.parameters(), 3e-3), data=(x[few], labels), steps=400,
        batch=32, validate=validate, every=50,
    )  # fmt: skip
    finding = named(judged, "overfitting")
    advice = finding["recommendation"]
    assert advice["parameter"] == "stop"
    assert advice["proposed"]["best_step"] <= 160
    assert [a["parameter"] for a in advice["alternatives"]] == ["weight_decay", "dropout"]
    assert all(a["effect"] and a["verify"] and a["risk"] for a in advice["alternatives"])


def test_a_validation_loss_that_turns_names_step_and_checkpoint() -> None:
    events = [
        Event("checkpoint", attempt=1, step=s, body={"path": f"{s}.ckpt", "finite": True})
        for s in (40, 80, 120)
    ]
    made = Made("overfitting", validated(TURNING), events=events, **FALLING)
    assert made.advice.proposed == {"best_step": 80, "path": "80.ckpt"}
    assert made.sure.severity == "warning"


def test_a_gap_that_does_not_grow_is_none() -> None:
    flat = [2.0, 1.2, 0.7, *([0.56] * 9)]
    assert Made("overfitting", validated(flat), **FALLING).finding is None


def test_a_rise_in_its_own_noise_is_none() -> None:
    noisy = [2.0, 0.6, 0.5, 0.7, 0.45, 0.7, 0.5, 0.72, 0.48, 0.7, 0.5, 0.7]
    assert Made("overfitting", validated(noisy), **FALLING).finding is None


def test_where_the_training_loss_rises_too_it_is_something_else() -> None:
    assert Made("overfitting", validated(TURNING), loss=lambda s: 1 + s / 300).finding is None


def test_a_metric_that_goes_on_improving_speaks_against_it() -> None:
    better = [0.3 + 0.05 * i for i in range(12)]
    assert Made("overfitting", validated(TURNING, better), **FALLING).finding is None
    kept = [0.3, 0.6, 0.8, 0.85, *([0.849] * 8)]
    assert Made("overfitting", validated(TURNING, kept), **FALLING).sure.severity == "info"


def test_a_loss_over_its_start_tells_though_a_metric_still_creeps_up() -> None:
    worse = [2.0, 1.75, 1.5, 1.45, 1.6, 1.8, 2.0, 2.2, 2.4, 2.5, 2.55, 2.6, 2.65, 2.7]
    creeps = [0.3, 0.4, 0.5, 0.52, 0.53, 0.54, 0.53, 0.545, 0.54, 0.55, 0.545, 0.545, 0.545, 0.545]
    assert Made("overfitting", validated(worse, creeps), **FALLING).sure.severity == "warning"
    less = [1.45 + (loss - 1.45) * 0.6 for loss in worse]
    assert Made("overfitting", validated(less, creeps), **FALLING).finding is None


def test_a_metric_that_fell_by_more_than_its_noise_tells_where_the_losses_differ_too_much() -> None:
    wild = [2.0, 0.7, 0.5, 0.7, 0.52, 0.8, 0.5, 0.85, 0.55, 0.95, 0.6, 1.0, 0.62, 0.9]
    lost = [0.5, 0.94, 0.95, 0.95, 0.93, 0.9, 0.88, 0.84, 0.85, 0.82, 0.83, 0.8, 0.81, 0.8]
    assert Made("overfitting", validated(wild, lost), **FALLING).sure.severity == "warning"
    for scores, fall in (
        ([0.5, 0.94, 0.95, 0.95, *[0.93, 0.91] * 5], 0.99),  # by two hundredths of it
        ([0.5, 0.95, 0.8, *[0.96, 0.75] * 5, 0.8], 0.99),  # it differs as much anyway
        (lost, 0.998),  # while training hardly went on
    ):
        made = Made("overfitting", validated(wild, scores), loss=lambda s, by=fall: 2.0 * by**s)
        assert made.finding is None


def test_few_validations_and_other_names_are_not_judged() -> None:
    assert "fewer than" in Made("overfitting", validated(TURNING[:3])).why
    other = Made("overfitting", {"validation": {"speed": {20: 1.0, 40: 2.0}}})
    assert "no validation loss" in other.why


# ---- wrong_head ----------------------------------------------------------------------------------


def test_a_softmax_that_is_taken_twice_is_found_and_removing_it_is_silent(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(mlp(), nn.Softmax(-1))
    judged = trained(tmp_path, model, SGD(model.parameters(), 0.1))
    finding = named(judged, "wrong_head")
    assert finding["recommendation"]["parameter"] == "remove_softmax"
    assert finding["because"][1]["threshold"] == pytest.approx(1.4612, abs=1e-3)
    model = net()
    assert "wrong_head" not in rules_of(trained(tmp_path, model, SGD(model.parameters(), 0.1)))


def test_probabilities_whose_logarithm_goes_into_the_loss_are_right(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(mlp(), nn.Softmax(-1))
    judged = trained(
        tmp_path, model, SGD(model.parameters(), 0.1),
        loss=lambda p, y: nn.functional.nll_loss((p + 1e-9).log(), y),
    )  # fmt: skip
    assert "wrong_head" not in rules_of(judged)
    assert "wrong_head" in judged["judged"]


def head(**told: float) -> dict[str, Any]:
    steps = range(10, 600, 20)
    return {"head": {name: dict.fromkeys(steps, value) for name, value in told.items()}}


COLLAPSED = {"predicted_entropy": 0.1, "label_entropy": 2.0, "never_predicted": 8.0, "rows": 512.0}


SHARES = {"class_share_0": 0.9, "class_share_1": 0.1}


def test_classes_that_are_never_predicted_get_weights() -> None:
    made = Made("wrong_head", head(**COLLAPSED, **SHARES), steps=600)
    assert made.advice.parameter == "class_weights"
    assert made.advice.proposed == [0.556, 5.0]
    early = Made("wrong_head", head(**COLLAPSED, **SHARES), steps=190)
    assert early.finding is None
    even = {"class_share_0": 0.55, "class_share_1": 0.45}
    assert Made("wrong_head", head(**COLLAPSED, **even), steps=600).finding is None
    of_thousands = Made(
        "wrong_head", head(**COLLAPSED), steps=600
    )  # no shares are recorded of them
    assert of_thousands.finding is None


@pytest.mark.parametrize(
    "told", [{"never_predicted": 0.0}, {"predicted_entropy": 1.9}, {"rows": 20.0}]
)
def test_a_net_that_names_all_its_classes_is_all_right(told: dict[str, float]) -> None:
    assert Made("wrong_head", head(**{**COLLAPSED, **SHARES, **told}), steps=600).finding is None


@pytest.mark.parametrize(("evaluated", "fires"), [(2.5, True), (1.1, False), (0.5, False)])
def test_a_loss_that_is_another_in_eval_mode_names_the_norm(evaluated: float, fires: bool) -> None:
    steps = (300, 400, 500)
    told: dict[str, Any] = {
        "modes": {
            "train_loss": dict.fromkeys(steps, 1.0),
            "eval_loss": dict.fromkeys(steps, evaluated),
        }
    }
    parameters = [{"name": "1.weight", "layer": "1", "kind": "norm", "ndim": 1, "numel": 8}]
    made = Made("wrong_head", told, steps=550, parameters=parameters)
    assert (made.finding is not None) == fires
    if fires:
        assert made.advice.proposed == {"1": "GroupNorm"}


def test_without_labels_the_head_is_not_judged() -> None:
    made = Made("wrong_head", head(probability_rows=math.nan, as_logits=math.nan))
    assert made.finding is None
    assert "no labels of classes" in made.why
