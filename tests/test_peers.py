"""Peers' rules, re-implemented, say what their published definitions say; their alerts count as they should."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.faults.case import PLANNED, Case, load_cases
from benchmarks.faults.training import train
from benchmarks.peers import living, page, sagemaker, scoring, spikes, trace, tracing
from benchmarks.peers.alert import FAULTS, Alert, episodes, packed, unpacked
from benchmarks.peers.autotrainer import autotrainer
from benchmarks.peers.running import LOOKS_FOR, PEERS, same
from benchmarks.peers.trace import Trace

STEPS = 300


def noisy(seed: int = 0, steps: int = STEPS) -> np.ndarray:
    return 1 + 0.1 * np.random.default_rng(seed).uniform(-1, 1, steps)


def made(**series: Any) -> Trace:
    steps = len(next(iter(series.values()))) if series else STEPS
    return Trace({"loss": noisy(steps=steps), "grad_norm": noisy(1, steps), **series})


def with_weights(**weights: Any) -> Trace:
    steps = len(next(iter(weights.values())))
    return Trace({"loss": np.linspace(2, 1, steps)}, weights=weights)


def names(alerts: list[Alert]) -> list[str]:
    return [alert.name for alert in alerts]


def test_olmo_skips_a_step_six_deviations_off_and_none_of_a_uniform_noise() -> None:
    spike = noisy()
    spike[200] = 2.0  # deviation of the noise 0.058: 17 of them

    found = spikes.olmo(made(loss=spike))

    assert [(alert.kind, alert.step) for alert in found] == [("loss spike", 201)]
    assert spikes.olmo(made()) == []


def test_olmo_judges_nothing_before_half_a_window() -> None:
    early = noisy()
    early[62] = 5.0
    late = noisy()
    late[63] = 5.0

    assert spikes.olmo(made(loss=early)) == []
    assert [alert.step for alert in spikes.olmo(made(loss=late))] == [64]


def test_zclip_clips_over_two_and_a_half_deviations_and_learns_from_what_it_let_through() -> None:
    norms = np.where(np.arange(STEPS) % 2, 1.1, 0.9)  # z of 1
    norms[100] = 1.5

    found = spikes.zclip(made(grad_norm=norms))

    assert [(alert.step, alert.last) for alert in found] == [(101, 101)]
    assert spikes.zclip(made(grad_norm=np.where(np.arange(STEPS) % 2, 1.1, 0.9))) == []
    assert spikes.zclip(made(grad_norm=norms[:20], loss=norms[:20])) == []


def test_megatron_needs_ten_times_the_largest_of_the_first_hundred() -> None:
    first = noisy()
    first[10] = 3.0
    first[200], first[290] = 29.0, 31.0

    assert [alert.step for alert in spikes.megatron(made(loss=first))] == [291]


def test_megatron_leaves_what_is_not_finite_to_its_own_check() -> None:
    loss = noisy()
    loss[150:] = math.nan

    found = spikes.megatron(made(loss=loss))

    assert [(alert.kind, alert.step, alert.severity) for alert in found] == [
        ("not finite", 151, "critical")
    ]


@pytest.mark.parametrize(
    ("size", "fires"), [(0.9e-7, True), (1.1e-7, False)], ids=["under 1e-7", "over 1e-7"]
)
def test_sagemaker_calls_a_gradient_vanished_under_1e_7(size: float, fires: bool) -> None:
    gradients = np.full((20, 3), 1e-2)
    gradients[5, 1] = size

    found = sagemaker.vanishing_gradient(with_weights(grad_abs_mean=gradients))

    assert [alert.step for alert in found] == ([6] if fires else [])


def test_sagemaker_sees_units_dead_or_saturated_in_over_half_of_a_layer() -> None:
    shares = np.array([[0.5, 0.5], [0.6, 0.4], [0.4, 0.6]])
    told = Trace({"loss": np.ones(3)}, kinds=("relu", "tanh"), activations={"inactive": shares})

    assert [(one.step, one.last) for one in sagemaker.dead_relu(told)] == [(2, 2)]
    assert [(one.step, one.last) for one in sagemaker.saturated_activation(told)] == [(3, 3)]


def test_sagemaker_wants_updates_between_1e_8_and_ten_of_the_weight() -> None:
    weights = {"weight_norm": np.ones((3, 1)), "update_norm": np.array([[11.0], [0.5], [0.5e-8]])}

    found = sagemaker.weight_update_ratio(with_weights(**weights))

    assert [(alert.kind, alert.step) for alert in found] == [
        ("update too large", 1),
        ("not updated", 3),
    ]


def test_sagemaker_compares_the_loss_with_that_of_ten_steps_before() -> None:
    falling = np.linspace(2, 1, 101)
    back = falling.copy()
    back[80] = 2.0

    assert sagemaker.loss_not_decreasing(made(loss=falling, grad_norm=falling)) == []
    found = sagemaker.loss_not_decreasing(made(loss=back, grad_norm=falling))
    assert [(alert.step, alert.last) for alert in found] == [(81, 81)]


def test_sagemaker_calls_a_gap_of_over_a_tenth_overfit() -> None:
    validation = np.full(40, math.nan)
    validation[9], validation[19], validation[29] = 1.05, 1.09, 1.2

    found = sagemaker.overfit(made(loss=np.ones(40), grad_norm=np.ones(40), val_loss=validation))

    assert [alert.step for alert in found] == [30]


def test_sagemaker_calls_it_overtrained_when_neither_loss_improves_by_a_tenth() -> None:
    flat = np.ones(40)

    found = sagemaker.overtraining(made(loss=flat, grad_norm=flat, val_loss=flat))

    assert [(alert.step, alert.last) for alert in found] == [(11, 40)]
    falling = np.linspace(9, 1, 40)
    assert sagemaker.overtraining(made(loss=falling, grad_norm=flat, val_loss=flat)) == []


def test_sagemaker_counts_classes_after_five_hundred_labels() -> None:
    labels = np.tile([56.0, 5.0], (10, 1))
    told = Trace({"loss": np.ones(10)}, labels=labels, wrong=0 * labels)
    even = np.tile([30.0, 30.0], (10, 1))
    missed = even * [0.1, 0.8]

    assert [alert.step for alert in sagemaker.class_imbalance(told)] == [9]
    assert (
        sagemaker.class_imbalance(Trace({"loss": np.ones(10)}, labels=even, wrong=0 * even)) == []
    )
    assert sagemaker.class_imbalance(Trace({"loss": np.ones(10)}, labels=even, wrong=missed))


def test_sagemaker_judges_the_initialization_by_its_first_ten_steps() -> None:
    variance = np.full((30, 2), 1.0)
    variance[20:] = [1.0, 50.0]
    falling = {"loss": np.linspace(2, 1, 30)}
    calm = Trace(falling, kinds=("relu",) * 2, activations={"input_variance": variance})
    variance = variance[::-1]
    uneven = Trace(falling, kinds=("relu",) * 2, activations={"input_variance": variance})

    assert sagemaker.poor_weight_initialization(calm) == []
    assert [alert.step for alert in sagemaker.poor_weight_initialization(uneven)] == [1]
    flat = Trace({"loss": np.ones(30)})
    assert [alert.step for alert in sagemaker.poor_weight_initialization(flat)] == [6]


def trained(accuracy: np.ndarray, gradients: list[float], zeros: float = 0.0) -> Trace:
    """Thirty epochs of ten steps."""
    steps = len(accuracy)
    series = {
        "loss": np.linspace(2, 1, steps),
        "grad_norm": np.ones(steps),
        "val_loss": np.linspace(2, 1, steps),
        "val_accuracy": accuracy,
        "train_accuracy": accuracy,
    }
    weights = {
        "grad_norm": np.tile(gradients, (steps, 1)),
        "grad_zeros": np.full((steps, len(gradients)), zeros),
    }
    return Trace(series, weights=weights, epoch_steps=10)


STUCK, LEARNS = np.full(300, 0.1), np.minimum(np.linspace(0.3, 3.0, 300), 0.97)


@pytest.mark.parametrize(
    ("accuracy", "gradients", "zeros", "kind"),
    [
        (LEARNS, [1.0, 1.0], 0.0, None),
        (LEARNS, [1e-5, 1.0], 0.0, None),
        (STUCK, [1e-5, 1.0], 0.0, "vanishing"),
        (STUCK, [71.0, 1.0], 0.0, "exploding"),
        (STUCK, [1.0, 1.0], 0.7, "dead units"),
        (STUCK, [1.0, 1.0], 0.0, "not learning"),
        (0.8 + 0.1 * np.repeat(np.arange(30) % 2, 10), [1.0, 1.0], 0.0, "oscillating"),
    ],
    ids=["healthy", "vanished but learns", "vanishing", "exploding", "dying", "slow", "unstable"],
)
def test_autotrainer_names_one_problem_of_a_training_that_does_not_converge(
    accuracy: np.ndarray, gradients: list[float], zeros: float, kind: str | None
) -> None:
    found = autotrainer(trained(accuracy, gradients, zeros))

    assert [alert.kind for alert in found] == ([kind] if kind else [])
    # judged from 30 % of thirty epochs on, at every third
    assert [alert.step for alert in found] == ([90] if kind else [])


def test_autotrainer_calls_nan_an_explosion_at_its_next_check() -> None:
    told = trained(LEARNS, [1.0, 1.0])
    told.series["loss"][45:] = math.nan

    assert [(alert.kind, alert.step) for alert in autotrainer(told)] == [("not finite", 60)]


def test_an_alert_that_goes_on_is_one_and_kinds_must_be_known() -> None:
    found = episodes("loss spike", "6 sigma", [10, 59, 109, 400], "critical")

    assert [(alert.step, alert.last) for alert in found] == [(10, 59), (109, 109), (400, 400)]
    assert unpacked(packed(found)) == found
    with pytest.raises(ValueError, match="no kind"):
        Alert("bad luck", "x")


def test_every_kind_counts_for_rules_of_the_catalogue_and_every_word_has_a_kind() -> None:
    assert {fault for faults in FAULTS.values() for fault in faults} <= PLANNED
    assert {kind for kinds in LOOKS_FOR.values() for kind in kinds} <= set(FAULTS)
    assert {*LOOKS_FOR} == {*PEERS} - {"Otoscope"}
    assert Alert("dead_units", "our own").faults == ("dead_units",)


def case(kind: str = "fault", expect: tuple[str, ...] = ("lr_too_high",), onset: int = 1) -> Case:
    body = {"net": "mlp", "data": "digits", "steps": 600}
    return Case("one", kind, "tuning", body, expect, onset=onset)


def test_an_alert_counts_by_its_kind_and_only_from_the_onset_on() -> None:
    wrong, right = Alert("overfitting", "a", 320), Alert("diverging", "b", 340)
    early = Alert("diverging", "b", 20, 250)

    row = scoring.row_of(case(onset=300), 0, 600, [early, wrong, right])
    assert (row["alarmed"], row["right"], row["first"], row["delay"]) == (True, True, False, 40)
    row = scoring.row_of(case(onset=300), 0, 600, [early])
    assert (row["alarmed"], row["right"], row["first"]) == (False, False, False)
    # an alert of no step comes from a report at the end
    assert scoring.row_of(case(onset=300), 0, 600, [Alert("diverging", "b")])["right"]


def test_an_info_is_no_alarm_and_finds_only_what_is_an_info_by_design() -> None:
    quiet = Alert("noisy gradient", "snr", 10, severity="info")

    assert scoring.row_of(case("healthy", ()), 0, 600, [quiet])["alarms"] == 0
    assert not scoring.row_of(case(), 0, 600, [quiet])["alarmed"]
    assert scoring.row_of(case(expect=("batch_too_small",)), 0, 600, [quiet])["right"]


def test_the_figures_are_shares_of_the_rows() -> None:
    loud = Alert("diverging", "b", 20)
    rows = [
        scoring.row_of(case(), 0, 600, [loud]),
        scoring.row_of(case(expect=("overfitting",)), 0, 600, [loud]),
        scoring.row_of(case("healthy", ()), 0, 600, [loud, loud]),
        scoring.row_of(case("look-alike", ()), 0, 400, []),
    ]

    told = scoring.figures(rows, known=FAULTS["diverging"])

    assert (told["alarmed"], told["right_kind"], told["right_first"]) == (1.0, 0.5, 0.5)
    assert (told["looked_for_runs"], told["right_of_looked_for"]) == (1, 1.0)
    assert (told["flagged"], told["healthy_runs"], told["alarms_per_1000_steps"]) == (1, 2, 2.0)
    assert scoring.per_net(rows) == {"mlp on digits": [1, 2, 1, 2, 2, 1000]}


def test_a_word_of_a_package_that_is_not_known_is_an_alert_of_no_fault() -> None:
    said = {"name": "divergence", "title": "diverged", "severity": "critical", "step": 30}
    new = {**said, "name": "new word"}

    found = living.alerts_of("runmedic", [said, new, {**new, "severity": "info"}])

    assert [(alert.kind, alert.name, alert.severity) for alert in found] == [
        ("diverging", "divergence", "critical"),
        ("other", "new word", "critical"),
    ]
    assert found[1].faults == ()


def test_a_log_says_losses_that_are_nan_and_leaves_out_validations_that_were_not_made(
    tmp_path: Path,
) -> None:
    told = Trace({"loss": np.array([1.0, math.nan]), "val_loss": np.array([math.nan, 2.0])})

    living.write_log(told, tmp_path / "log.csv")

    assert (tmp_path / "log.csv").read_text().splitlines() == [
        "step,loss,eval_loss",
        "1,1.0,",
        "2,nan,2.0",
    ]


def test_the_dense_logger_changes_no_loss_and_its_trace_survives_the_disk(tmp_path: Path) -> None:
    body = dict(next(one.body for one in load_cases() if one.name == "mlp-sgd"))
    body |= {"steps": 40, "clip": 0.05, "accumulate": 2}

    path = tracing.traced(body, 3, tmp_path)

    told = trace.load(path)
    plain = train(body, 3)
    assert same(plain["losses"], told)
    assert not same(train(body, 4)["losses"], told)
    assert told.get("grad_norm").min() > 0.05  # as it was before clipping
    assert told.layers == ("0.weight", "2.weight", "4.weight", "6.weight")
    assert told.weight("update_norm").shape == (40, 4)
    assert told.activation("inactive", "relu").shape == (40, 3)
    assert np.isfinite(told.get("val_loss")).sum() == 4
    assert told.labels is not None
    assert np.all(told.labels.sum(1) == 128)


def test_the_page_holds_the_figures_of_the_result() -> None:
    result = json.loads(page.RESULT.read_text(encoding="utf-8"))

    assert page.PAGE.read_text(encoding="utf-8") == page.page(result)
    for bodies in result["sets"].values():
        assert set(bodies) <= set(PEERS)


def test_a_peer_that_did_not_run_is_named_with_its_reason() -> None:
    told = page.main_table({"runmedic": {"failed": "no such version", "version": "9"}})

    assert "did not run: no such version" in told
