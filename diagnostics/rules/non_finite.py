"""A loss, gradient or output is not a finite number.

What: any value that is NaN or infinite in the loss, the gradients or, where sampled, the outputs.
Under a loss scaler skipped steps are normal; there it needs a non-finite loss, five skipped steps
in a row, or more than 5 % of 200.
Why: the next update writes NaN into every weight, and nothing learned survives it. Checkpoints
that go on rotating replace the last good one.
Source: pocket-tts pull request 262 (checkpoints rotated until no healthy one was left); Lightning
issue 20708 (training goes on silently).
"""

from __future__ import annotations

import math

import numpy as np

from ...store import Evidence, Recommendation
from ..advice import current_rate, good_checkpoint, lower_rate, none_left, rate_to
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import resume_snippet
from ..windows import Samples, Window
from ..words import number, rounded

FAMILY = "train"


def judge(window: Window, context: Context) -> Verdict:
    """Breach at the first non-finite value of the window."""
    numbers = context.thresholds
    counts = window.samples("train", "non_finite", count=numbers.window, span=numbers.span).finite
    if len(counts) < numbers.min_samples:
        return unknown("non-finite values were not counted")
    bad = counts.steps[counts.values > 0]
    if "16-mixed" in context.meta.precision and context.meta.precision != "bf16-mixed":
        bad = _beyond_the_scaler(window, context, bad)
    if not len(bad):
        return fine()
    return breach(float(len(bad)), _case(window, context, int(bad[0])))


def _beyond_the_scaler(window: Window, context: Context, bad: np.ndarray) -> np.ndarray:
    numbers = context.thresholds
    losses = window.samples("train", "loss", count=numbers.window)
    spoiled = losses.steps[~np.isfinite(losses.values)]
    if len(spoiled):
        return spoiled
    skipped = window.samples("train", "skipped", span=numbers.span).finite
    in_a_row = skipped.values[-int(numbers["skipped_in_a_row"]) :]
    often = len(skipped) >= numbers.span // 2
    if len(in_a_row) >= numbers["skipped_in_a_row"] and (in_a_row > 0).all():
        return bad
    if often and float((skipped.values > 0).mean()) > numbers["skipped_share"]:
        return bad
    return bad[:0]


def _case(window: Window, context: Context, step: int) -> Case:
    before = _losses_before(window, context, step)
    layer = _first_bad_layer(window, step)
    seen = f"first non-finite value at step {step:,}"
    if layer is not None:
        seen += f", in layer `{layer}`"
    because = [
        Evidence(seen, "train", "non_finite", step, 1.0, 0.0),
    ]
    if len(before):
        last = float(before.values[-1])
        text = f"loss {number(last)} at step {int(before.steps[-1]):,}, the last finite one"
        because.append(Evidence(text, "train", "loss", int(before.steps[-1]), last, None))
    return Case(
        title=f"Not a number since step {step:,}: this run can only be stopped or rolled back",
        why="The next update writes NaN into every weight; checkpoints saved from here on are "
        "worthless, so stop rotating them before the last good one is gone.",
        because=tuple(because),
        recommendation=_advice(window, context, step, before),
        may_be_normal="One skipped step of a loss scaler at the start; a metric that divides by "
        "zero but is not trained on.",
        layers=() if layer is None else (layer,),
        onset=step,
    )


def _losses_before(window: Window, context: Context, step: int) -> Samples:
    losses = window.samples("train", "loss").finite
    keep = losses.steps < step
    count = int(context.thresholds["loss_before"])
    return Samples(losses.steps[keep][-count:], losses.values[keep][-count:])


def _first_bad_layer(window: Window, step: int) -> str | None:
    outputs = window.layers("activations", "non_finite", span=200)
    gradients = window.layers("gradients", "grad_sq", span=200)
    for found, bad in (
        (outputs, outputs.values > 0),
        (gradients, ~np.isfinite(gradients.values)),
    ):
        rows = np.flatnonzero(found.steps >= step)
        if len(rows) and bad[rows[0]].any():
            return found.layers[int(np.argmax(bad[rows[0]]))]
    return None


def _advice(window: Window, context: Context, step: int, before: Samples) -> Recommendation:
    checkpoint = good_checkpoint(context, step)
    rate = current_rate(window, context)
    if checkpoint is None:
        return _smaller_rate(window, context, rate, _was_climbing(context, before))
    half = rounded(rate / 2)
    return Recommendation(
        parameter="rollback",
        current=None,
        proposed={"step": checkpoint["step"], "path": checkpoint["path"], "then": {"lr": half}},
        basis="from your run",
        formula="the last checkpoint with finite weights, and half the learning rate",
        snippet=resume_snippet(context, checkpoint["path"], {"lr": half}),
        effect=f"goes on from step {checkpoint['step']:,} with finite weights",
        verify="no non-finite value in the 200 steps behind the old onset",
        risk=f"{step - checkpoint['step']:,} steps are trained again",
    )


def _was_climbing(context: Context, before: Samples) -> bool:
    last = float(np.max(before.values[-3:])) if len(before) else math.inf
    return not last <= 1.5 * context.facts.loss_start or context.facts.edge_peak > 1


def _smaller_rate(window: Window, context: Context, rate: float, climbing: bool) -> Recommendation:
    if climbing:
        return lower_rate(window, context, rollback_before=0)
    half = rounded(rate / 2)
    return rate_to(
        context,
        rate,
        half,
        formula="half the learning rate",
        effect=f"starts again from the first step: these weights are spoiled{none_left(context)}",
        verify="no non-finite value in the first 200 steps; if there is one, look at the inputs",
        risk="where the data hold NaN, no learning rate helps",
    )
