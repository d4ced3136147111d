"""The learning rate is too low: no step moves any layer by more than a hundred-thousandth.

What: the layer that moves most moves by less than 1e-5 of its weights a step, no step of the
attempt was ever longer than 1e-4, and the loss improved by less than a tenth in 200 steps; in two
evaluations 50 steps apart. Outside warm-up, the final decay and fine-tuning. Where a layer gets no
gradient at all, or where a clip cuts the steps short, the rate is not the cause.
Why: at such steps the run needs a hundred times the steps that it would need at a sound rate.
Source: measured on digits nets: steps of 0.02 to 0.6 % of the weights in runs that train, 2.7e-7 at a
rate of 1e-5, where raising it by ten leaves it as stuck as before.
"""

from __future__ import annotations

import math

from ...store import Evidence
from ..advice import higher_rate
from ..progress import Trend, course, largest_ratio, scheduled
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import Window
from ..words import number

FAMILY = "train"
FROM_START = True


def judge(window: Window, context: Context) -> Verdict:
    """Breach where no layer moves by more than `fire` of its weights and the loss stands."""
    numbers = context.thresholds
    losses = window.samples("train", "loss", count=numbers.window, span=numbers.span).finite
    if len(losses) < numbers.min_samples:
        return unknown(f"fewer than {numbers.min_samples} finite losses since the windows began")
    schedule = scheduled(window, context, numbers.window, numbers.span, numbers["decay"])
    if schedule is not None:
        return unknown(schedule)
    ratio = largest_ratio(window)
    if not math.isfinite(ratio):
        return unknown("how far a step moves the weights was not measured")
    if not 0 < ratio < numbers.fire:
        return fine(numbers.fire / ratio if ratio > 0 else 0.0)
    trend = course(losses.steps, losses.values, int(numbers["block"]))
    learns = trend.improvement >= numbers["improvement"]
    if learns or context.facts.update_peak > numbers["ratio_moved"]:
        return fine(0.5)
    return breach(numbers.fire / ratio, _case(window, context, trend, ratio))


def _case(window: Window, context: Context, trend: Trend, ratio: float) -> Case:
    numbers = context.thresholds
    change = -100 * trend.improvement
    because = (
        Evidence(
            f"no layer moves by more than {number(100 * ratio)} % of its weights a step",
            "gradients",
            "update_ratio",
            window.step,
            ratio,
            numbers.fire,
        ),
        Evidence(
            f"loss {number(trend.now)}, {change:+.1f} % in {numbers.window} steps; "
            f"{number(context.facts.loss_start)} at the start",
            "train",
            "loss",
            window.step,
            trend.now,
            (1 - numbers["improvement"]) * context.facts.loss_start,
        ),
    )
    return Case(
        title="The learning rate is too low to move the weights",
        why="At such steps the run needs a hundred times the steps that it would need at a sound "
        "rate.",
        because=because,
        recommendation=higher_rate(window, context),
        may_be_normal="Fine-tuning that shall hardly change the weights (set task to finetune); "
        "the last steps of a schedule.",
        onset=context.start + 1,
    )
