"""The batch is too small for what is left to learn: nearly all of a step is noise.

What: the lower bound of the noise scale stands over four times the batch for 200 steps, while the loss
makes no progress (less than 2 % in 200 steps, within two standard errors) far above its floor. Where
the gradient cannot be told from its noise, the noise scale has no upper bound, but a lower one, which
counts; where the noise was sampled too rarely, so does the cosine of consecutive gradients, which is
what the batch leaves of the signal. A warning where the loss is still over half of its start, else information: the noise scale
always rises late.
Why: below the noise scale a step goes as far as its batch is large, and the average of many small
steps is what moves: smaller steps average more of the noise away, at no cost.
Source: McCandlish et al. 2018 (noise scale, time and samples); the price of a larger batch is
(B* + noise) / (B + noise) times the samples.
"""

from __future__ import annotations

import math

from ...store import Evidence, Recommendation
from ..advice import rate_times
from ..batching import NoiseOverBatch, by_pairs, larger_batch, noise_over_batch, steps_of
from ..progress import Trend, course, scheduled
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import Window
from ..words import number

FAMILY = "train"
FROM_START = True


def judge(window: Window, context: Context) -> Verdict:
    """Breach where noise stands far over the batch and the loss makes no progress."""
    numbers, noise = context.thresholds, context.obstacles.noise
    pairs, samples = by_pairs(window, context), noise.estimator.samples
    if not noise.batch or (samples < numbers.min_samples and pairs is None):
        return unknown(f"noise was measured in {steps_of(samples)} only")
    if samples >= numbers.min_samples and window.step - noise.step > numbers["young"]:
        return unknown(f"noise was last measured at step {noise.step:,}")
    found = noise_over_batch(window, context, numbers.fire)
    if found is None:
        known = noise.estimator.estimate().low
        if samples < numbers.min_samples and pairs is not None:
            known = pairs.low * noise.batch
        return fine(known / (numbers.fire * noise.batch) if math.isfinite(known) else 0.0)
    losses = window.samples("train", "loss", count=numbers.window, span=numbers.span).finite
    if len(losses) < numbers.window * 0.9:
        return unknown("too few losses since the windows began")
    schedule = scheduled(window, context, numbers.window, numbers.span, numbers["decay"])
    if schedule is not None:
        return unknown(schedule)
    trend = course(losses.steps, losses.values, int(numbers["block"]))
    start = abs(context.facts.loss_start)
    stuck = trend.improvement < numbers["improvement"] and trend.z < numbers["z"]
    if not stuck or trend.now < numbers["floor"] * start:
        return fine(0.5)
    much_left = trend.now > numbers["much_left"] * start
    strength = found.low / (numbers.fire * found.batch)
    return breach(strength, _case(window, context, found, trend, much_left))


def _case(
    window: Window, context: Context, found: NoiseOverBatch, trend: Trend, much_left: bool
) -> Case:
    numbers = context.thresholds
    text = f"loss {number(trend.now)}, {-100 * trend.improvement:+.1f} % in {numbers.window} steps"
    flat = Evidence(text, "train", "loss", window.step, trend.now, None)
    return Case(
        title="Stuck: the batch is too small for what is left to learn",
        why="Nearly all of a step is noise: only the average of many steps moves towards the "
        "minimum, and long steps throw it back.",
        because=(found.evidence(), flat),
        recommendation=_advice(window, context, found),
        may_be_normal="The noise scale always rises late; the loss floor may be reached.",
        severity=None if much_left else "info",
        onset=max(trend.first_step, context.start + 1),
    )


def _advice(window: Window, context: Context, found: NoiseOverBatch) -> Recommendation:
    return rate_times(
        window,
        context,
        context.thresholds["thumb"],
        reason=": smaller steps average the noise, too, and cost nothing",
        effect="the loss falls to where the noise of smaller steps holds it, at no extra compute",
        verify="the loss falls by more than 2 % in 300 steps; no change means that it was not noise: "
        "look at dead or frozen layers",
        risk="slower where the loss would have gone on by itself",
        alternatives=larger_batch(window, context, found),
    )
