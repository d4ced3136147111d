"""Odd recordings: what was not measured, or is infinite, fails no rule and makes none say so."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator

import numpy as np
import pytest
from otoscope.diagnostics.facts import Facts
from otoscope.diagnostics.fold import Fold
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.snippets import clip_snippet, precision_snippet
from otoscope.diagnostics.thresholds import load
from otoscope.store import Meta

from .made import ADAM, Made, falling, flat, train


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    Fold.strict = True
    yield
    Fold.strict = False


def context(**meta: object) -> Context:
    numbers = load("lr_too_high", {})
    return Context(meta=Meta(**meta), facts=Facts(), thresholds=numbers, rates=numbers)  # type: ignore[arg-type]


def test_a_layer_without_a_gradient_is_no_stale_moment() -> None:
    losses = falling(200, noise=0.0)
    losses[:6] = [2.3, 5, 5, 5, 4, 3]
    made = Made("missing_warmup", optimizers=[ADAM])
    made.add("train", train(losses))
    made.add(
        "gradients",
        {},
        layers={"adam_ratio": {"0": [2.0] * 200, "1": [math.inf] * 50 + [2.0] * 150}},
    )
    assert made.judge() == []


def test_labels_without_a_largest_class_leave_the_order_unjudged_and_no_rule_fails() -> None:
    made = Made("input_problem")
    made.add("train", train(falling(200)))
    n = 8
    columns = {"label_entropy": [1.0] * n, "top_class_share": [math.nan] * n}
    columns |= {"label_classes": [math.inf] * n, "non_finite": [math.inf] + [0.0] * (n - 1)}
    made.add("inputs", columns, steps=list(range(1, n + 1)))
    (finding,) = made.judge()
    assert "100 %" in finding.because[0].text


def test_activations_that_were_never_finite_are_not_judged() -> None:
    made = Made("saturated_activations")
    made.add("train", train(flat(200)))
    counts = {"saturated": {"0": [math.nan] * 5}, "numel": {"0": [64.0] * 5}}
    made.add("activations", {}, steps=[10, 50, 90, 130, 170], layers=counts)
    assert made.judge() == []
    assert made.why("saturated_activations") == "no activation that saturates was seen"


def clipped(clip: float | None) -> Made:
    made = Made("clipping_too_tight", gradient_clip_val=clip)
    made.add("train", train(flat(400), clip_factor=0.01))
    steps = {"update_sq": {"0": [1e-10] * 400}, "weight_sq": {"0": [1.0] * 400}}
    made.add("gradients", {}, layers=steps)
    return made


def test_a_tight_clip_whose_norms_nobody_measured_is_widened_by_what_it_cuts() -> None:
    (finding,) = clipped(0.01).judge()
    assert finding.recommendation is not None
    assert (finding.recommendation.parameter, finding.recommendation.proposed) == (
        "gradient_clip_val",
        1.0,
    )
    (unknown,) = clipped(None).judge()
    assert unknown.recommendation is not None
    assert unknown.recommendation.parameter == "inspect"


def test_steps_of_no_samples_have_no_pace() -> None:
    made = Made("throughput_drop")
    made.add("train", {**train(falling(1500), step_seconds=1.0), "samples": np.zeros(1500)})
    assert made.judge() == []
    assert made.why("throughput_drop") == "how many samples a step has is not known"


def test_a_loader_that_is_slow_in_most_stretches_but_not_in_all_is_no_finding() -> None:
    def told(slow: float) -> list[str]:
        waits = np.where(np.arange(600) % 100 < 100 * slow, 0.05, 0.001)
        made = Made("input_bound", num_workers=0)
        made.add("train", train(falling(600), data_seconds=waits, step_seconds=0.03 + waits))
        return [finding.rule for finding in made.judge()]

    assert told(0.6) == []
    assert told(1.0) == ["input_bound"]


@pytest.mark.parametrize(("clip", "parameter"), [(None, "gradient_clip_val"), (0.1, "lr")])
def test_where_a_tighter_clip_is_in_force_the_rate_is_lowered(
    clip: float | None, parameter: str
) -> None:
    losses, norms = falling(400, noise=0.0), np.ones(400)
    losses[300:], norms[300:] = 4.0, 40.0
    made = Made("exploding_gradients", gradient_clip_val=clip)
    made.add("train", train(losses, grad_sq=norms**2))
    (finding,) = made.judge()
    assert finding.recommendation is not None
    assert finding.recommendation.parameter == parameter


def test_a_clip_by_value_becomes_one_by_norm() -> None:
    line = clip_snippet(context(gradient_clip_val=0.5, gradient_clip_algorithm="value"), 2.0)
    assert 'gradient_clip_algorithm="norm"' in line


def test_the_precision_of_a_loop_of_ones_own_is_code_that_runs() -> None:
    ast.parse(precision_snippet(context(config={"loop": "own"}), "bf16-mixed"))


@pytest.mark.parametrize(("task", "severity"), [("gan", "info"), ("supervised", "critical")])
def test_where_the_loss_is_no_measure_exploding_norms_are_information(
    task: str, severity: str
) -> None:
    losses, norms = falling(400, noise=0.0), np.ones(400)
    losses[300:], norms[300:] = 4.0, 40.0
    made = Made("exploding_gradients", task=task)
    made.add("train", train(losses, grad_sq=norms**2))
    (finding,) = made.judge()
    assert finding.severity == severity


def test_a_loss_that_single_batches_throw_up_does_not_swing() -> None:
    losses = falling(700, noise=0.0)
    swings = losses.copy()
    for at in range(250, 700, 90):
        after = slice(at, min(at + 35, 700))
        swings[after] += 1.5
        losses[after] += 0.8
        losses[at] = 9.0
    for values, said in ((losses, []), (swings, ["oscillating_loss"])):
        made = Made("oscillating_loss")
        made.add("train", train(values))
        assert [finding.rule for finding in made.judge()] == said
