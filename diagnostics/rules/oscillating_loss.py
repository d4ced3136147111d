"""The loss goes up and down by far more than the noise of its batches.

What: within 500 steps three times or more a block of 10 losses stands 1.5 times over the lowest block
before, by three standard errors and 3 % of the first loss, and comes back, while the later half of
them does not lie under half of the earlier; or steps of more than 10 %
of the weights were seen and the loss, far above its floor, makes no progress in 200 steps. The noise
of single batches does not count, however large, nor what follows a single one that throws the loss up,
be it a long step.
Why: what one stretch of steps learns the next one throws away.
Source: measured on digits nets: three to five such excursions at rates of 0.2 to 0.7 where 0.05 to 0.1
is sound, none to one in 58 healthy runs; but two to four in eight runs in which batches of few samples
differ much and whose loss fell to a fifth meanwhile; a first step of 4 to 6 % of the weights in sound runs
that stood at the noise of their labels, or were thrown back once. A rule on the signs of the loss's changes fires on every run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ..advice import lower_rate, one_layer, rate_times, timid
from ..batching import larger_batch, noise_over_batch
from ..medians import median_of
from ..progress import course, scheduled
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..spikes import lone_spikes
from ..thresholds import Thresholds
from ..windows import Samples, Window
from ..words import count, number, percent

FAMILY = "train"
FROM_START = True


@dataclass(frozen=True, slots=True)
class _Swings:
    """Excursions of the loss: how many, where the first began, the highest and the lowest block."""

    times: int
    first: int
    high: float
    high_step: int
    low: float


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the loss makes several excursions, or long steps and no progress."""
    numbers = context.thresholds
    losses = window.samples("train", "loss", count=numbers.window, span=numbers.span).finite
    if len(losses) < numbers.min_samples:
        return unknown(f"fewer than {numbers.min_samples} finite losses since the windows began")
    start = context.facts.loss_scale
    if not start > 0:
        return unknown("the first losses were not finite")
    floor = context.facts.spike_floor(context.rates)
    hard = losses.steps[lone_spikes(losses.values, context.rates["spike"], floor)]
    swings = _swings(losses, numbers, start, hard)
    if swings.times >= numbers.fire:
        if _learns(losses.values, numbers["learns"]):
            return fine(0.8)
        return breach(swings.times / numbers.fire, _case(window, context, swings, None))
    torn = _no_progress(window, context, losses, hard)
    if torn is not None:
        return breach(1.0, _case(window, context, swings, torn))
    return fine(swings.times / numbers.fire)


def _swings(losses: Samples, numbers: Thresholds, start: float, hard: np.ndarray) -> _Swings:
    """Count how often the loss leaves its lowest block so far, and comes back.

    `hard`: steps of single batches that threw it up: what follows one is not the rate's doing.
    """
    block = int(numbers["block"])
    whole = len(losses) // block
    rows = losses.values[-whole * block :].reshape(whole, block)
    steps = losses.steps[-whole * block :].reshape(whole, block)[:, 0]
    means, errors = rows.mean(axis=1), rows.std(axis=1, ddof=1) / math.sqrt(block)
    errors = np.fmax(
        errors, median_of(errors)
    )  # the lowest block is a lucky one, and calm by chance
    low, out, times, first, top = 0, False, 0, 0, 0
    for i in range(1, whole):
        rise = means[i] - means[low]
        sure = rise > numbers["errors"] * math.hypot(errors[i], errors[low])
        if not out and means[i] > numbers["times"] * means[low] and sure:
            thrown = (hard >= steps[i - 1]) & (hard < steps[i] + block)
            if rise > numbers["rise_of_start"] * start:
                out = True
                if not thrown.any():
                    times, first = times + 1, first or int(steps[i])
        elif out and means[i] < numbers["back"] * means[low]:
            out = False
        if out and means[i] > (means[top] if top else -math.inf):
            top = i
        if means[i] < means[low]:
            low = i
    return _Swings(times, first, float(means[top]), int(steps[top]), float(means[low]))


def _learns(losses: np.ndarray, share: float) -> bool:
    """Tell whether the later half of the losses lies under a share of the earlier: it falls, if unsteadily."""
    half = len(losses) // 2
    return bool(0 < median_of(losses[-half:]) < share * median_of(losses[:half]))


def _no_progress(
    window: Window, context: Context, losses: Samples, hard: np.ndarray
) -> Evidence | None:
    """Return the longest step where the loss stands high above its floor and makes no progress.

    None where a single batch (`hard`: their steps) came before that step, which was of its making (a loss that
    leaps in the first hundred steps is the rate's).
    """
    numbers, facts = context.thresholds, context.facts
    schedule = scheduled(window, context, int(numbers["flat_window"]), numbers.span, 0.5)
    long = facts.update_peak > numbers["update_peak"] and not one_layer(context)
    if not long or context.adaptive or schedule is not None:
        return None
    late = hard[hard > context.start + numbers["flat_window"] / 2]
    if len(late) and late[0] <= facts.update_peak_step:
        return None
    recent = losses.values[-int(numbers["flat_window"]) :]
    trend = course(losses.steps[-len(recent) :], recent, 2 * int(numbers["block"]))
    flat = trend.improvement < numbers["flat"] and trend.z < 2
    if not flat or trend.now < numbers["floor"] * abs(facts.loss_start):
        return None
    text = (
        f"a step of {percent(facts.update_peak)} of the weights at step {facts.update_peak_step:,}, "
        f"and the loss at {number(trend.now)} for {len(recent)} steps"
    )
    return Evidence(
        text,
        "gradients",
        "update_ratio",
        facts.update_peak_step,
        facts.update_peak,
        numbers["update_peak"],
    )


def _case(window: Window, context: Context, swings: _Swings, torn: Evidence | None) -> Case:
    numbers = context.thresholds
    because = []
    if swings.times:
        text = (
            f"{count(swings.times, 'excursion')} over {number(numbers['times'])} times the lowest "
            f"block of {number(numbers['block'])} losses so far: {number(swings.high)} at step "
            f"{swings.high_step:,}, lowest {number(swings.low)}"
        )
        limit = numbers["times"] * swings.low
        because.append(Evidence(text, "train", "loss", swings.high_step, swings.high, limit))
    because += [torn] if torn is not None else []
    noise = noise_over_batch(window, context, numbers["noise"])
    if noise is not None:
        because.append(noise.evidence())
    return Case(
        title="The loss goes up and down instead of falling",
        why="What one stretch of steps learns the next one throws away.",
        because=tuple(because),
        recommendation=_advice(window, context, torn is not None),
        may_be_normal="Restarts of a schedule; data that change from stretch to stretch, such as "
        "files that are read in order.",
        not_measured=()
        if noise is not None
        else ("noise scale: whether a larger batch would help",),
        onset=swings.first or context.start + 1,
    )


def _advice(window: Window, context: Context, torn: bool) -> Recommendation:
    if torn:  # how long the steps are tells how far down the rate must go
        return lower_rate(window, context, rollback_before=context.start + 1)
    noise = noise_over_batch(window, context, 1.0)
    return rate_times(
        window,
        context,
        context.thresholds["thumb"],
        effect="steps that stay on one side of the valley",
        verify="the loss makes no excursion in 200 steps; if it does, lower the rate once more",
        risk="slower where the loss would have settled by itself"
        + ("; the first step was short already" if timid(context) else ""),
        alternatives=larger_batch(window, context, noise) if noise is not None else [],
    )
