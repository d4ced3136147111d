"""The learning rate is too low: no step moves any layer by more than a hundred-thousandth.

What: the layer that moves most moves by less than 1e-5 of its weights a step, no step of the
attempt was ever longer than 1e-4, and the loss improved by less than a tenth in 200 steps; in two
evaluations 50 steps apart. While the loss stands within 5 % of its start, steps under a thirtieth of
those that runs begin with are too short as well (1.2e-4, with Adam 6e-4), unless its first loss was
under that of guessing, or it goes on from a checkpoint. A loss of a twentieth of guessing has nothing
left to gain. Outside warm-up, the final decay and fine-tuning.
A rate that was lowered to a thousandth of its peak while the loss stood over four fifths of its start, or
in the first half of the run over three tenths, is no final decay: there earlier steps may have been longer,
and how long they are now follows from the rate where it was not measured since. Nor is a decay that got
there step by step, once the run has gone on at such a rate for as long as it took to get there: whatever ends
a run, it does not take half of it. And no decay explains a loss that stands where it began behind steps all of
which were too short, those at the highest rate, too. Of layers that began at zero the step is read
against the weights that such a layer usually begins with: next to nothing, any step is long. Where a layer gets no gradient at all, or where a clip cuts the steps short, the rate is not the cause.
Why: at such steps the run needs a hundred times the steps that it would need at a sound rate.
Source: measured on digits nets: steps of 0.02 to 0.6 % of the weights in runs that train, 2.7e-7 at a
rate of 1e-5, where raising it by ten leaves it as stuck as before.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import current_rate, former_rate, higher_rate, sound_step
from ..facts import BEGAN_AT_ZERO, learned
from ..medians import median_of, nan_median
from ..progress import WARMS_UP, Trend, course, steady_losses
from ..ratios import layer_ratios
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import KEPT_STEPS, Window
from ..words import number

FAMILY = "train"
FROM_START = True
AT_ONCE = 20
"""Steps around the beginning of the windows at which a rate that is next to nothing was lowered by a jump."""
LATEST = 10
"""Samples whose median tells how far a step moves the layers."""


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep the first loss over that of guessing: under it begins who goes on from what is trained.

    And `lowered`: since which step the rate has been next to nothing; `from_zero`: the layers that began at zero.
    """
    kept: dict[str, Json] = {
        name: value
        for name, value in context.memory.items()
        if name in ("first", "lowered", "from_zero")
    }
    if "from_zero" not in kept and (began := _from_zero(window, context)) is not None:
        kept["from_zero"] = began
    if "first" not in kept:
        found = window.samples("initialization", "loss_ratio").finite.values
        if len(found):
            kept["first"] = float(found[0])
    if not _next_to_nothing(window, context):
        kept.pop("lowered", None)
    elif "lowered" not in kept:
        kept["lowered"] = window.step
    same = kept == context.memory
    return context.memory if same else kept  # type: ignore[return-value]  # as it was


def _first(context: Context) -> float:
    """Return the first loss over that of guessing, 1 where that is not known."""
    first = context.memory.get("first")
    return float(first) if isinstance(first, (int, float)) and first > 0 else 1.0


def _goes_on(context: Context) -> bool:
    """Tell whether the run began with weights that had learned: small steps are right there."""
    if "first" in context.memory:
        return _first(context) < context.thresholds["begun"]
    return context.start > 0 or context.obstacles.why_off("initialization") is not None


def judge(window: Window, context: Context) -> Verdict:
    """Breach where no layer moves by more than `fire` of its weights and the loss stands."""
    numbers = context.thresholds
    losses, why_not = steady_losses(window, context)
    lowered = _lowered(window, context)
    no_end = lowered is not None or _never_long(window, context)
    if why_not and not (no_end and why_not != WARMS_UP and len(losses) >= numbers.min_samples):
        return unknown(why_not)
    since = window.since if lowered is None else max(window.since, lowered)
    ratio = _moves_most(replace(window, since=since), context)
    if lowered is not None and not ratio > 0:  # a step so short is rounded away
        ratio = _as_the_rate(window, context, lowered)
    if not math.isfinite(ratio):
        return unknown("how far a step moves the weights was not measured")
    limit = _limit(window, context)
    if not ratio < limit or (
        ratio == 0 and lowered is None
    ):  # a gradient of zero is none of the rate's
        return fine(limit / ratio if ratio > 0 else 0.0)
    trend = course(losses.steps, losses.values, int(numbers["block"]))
    if 0 < trend.now < numbers["floor"] * context.facts.loss_start / min(_first(context), 1.0):
        return fine(0.5)  # nothing is left to gain
    # where all steps of the window come to less than one such step, it is batches that differ
    learns = trend.improvement >= numbers["improvement"] and ratio * numbers.window > numbers.fire
    moved = context.facts.update_peak > max(limit, numbers["ratio_moved"])
    if learns or (moved and lowered is None):
        return fine(0.5)
    strength = limit / max(ratio, numbers.fire**2)
    return breach(strength, _case(window, context, trend, ratio, limit, lowered))


def _moves_most(window: Window, context: Context) -> float:
    """Return how far the layer moves that moves most, in the latest samples; NaN unknown."""
    found = _shares(window, context, window.since, LATEST)
    known = found[np.isfinite(found).any(axis=1)]
    return median_of(np.fmax.reduce(known, axis=1)) if len(known) else math.nan


def _never_long(window: Window, context: Context) -> bool:
    """Tell whether no step of the attempt moved any layer by what a run needs to leave its start, and it has not."""
    limit = _limit(window, context)
    if limit <= context.thresholds.fire:  # it has learned, or goes on from what has
        return False
    found = _shares(window, context, context.start)
    known = found[np.isfinite(found)]
    return bool(context.facts.update_peak < limit and len(known) and known.max() < limit)


def _shares(window: Window, context: Context, after: int, count: int | None = None) -> np.ndarray:
    """Return how far steps moved the layers, [samples, layers], as a share of their weights; NaN where unknown.

    Of the layers that began at zero as a share of the weights that they would usually begin with.
    """
    history = window.history
    _, ratios = layer_ratios(history, after, window.step, count)
    sizes = context.memory.get("from_zero") or {}
    if not len(ratios) or not isinstance(sizes, dict) or not sizes:
        return ratios
    updates = history.layers("gradients", "update_sq", after, window.step, "weight", count)
    shares = ratios.copy()
    for place, layer in enumerate(updates.layers):
        if layer in sizes:
            shares[:, place] = np.sqrt(updates.values[:, place]) / sizes[layer]
    return shares


def _from_zero(window: Window, context: Context) -> dict[str, Json] | None:
    """Return the size that layers of zeros would usually begin with, by their fan-in; None until it is known.

    Those whose first step is all that they are. None of a net that begins so as a whole: how large the weights
    of a single layer begin means nothing.
    """
    first = (context.start, context.start + 1)
    _, ratios = layer_ratios(window.history, *first)
    if not len(ratios):
        return None
    read = [window.history.layers("gradients", x, *first, "weight") for x in ("weight_sq", "numel")]
    began = ratios[0] >= BEGAN_AT_ZERO
    if not began.any() or began.all() or read[0].layers != read[1].layers:
        return {}
    # weights of a deviation of 1 / sqrt(fan-in) each, or as large as those of the other layers
    usual = nan_median(read[0].values[0][~began] / read[1].values[0][~began])
    # a layer has a row for its bias too, which has none
    rows = [row for row in context.meta.parameters if row.get("fan_in")]
    told = {str(row["layer"]): row["fan_in"] for row in rows}
    sizes = zip(read[0].layers, read[1].values[0].tolist(), began.tolist(), strict=True)
    fans = {layer: (told.get(layer), numel) for layer, numel, is_one in sizes if is_one}
    found = {
        x: math.sqrt(n / int(fan) if fan else n * float(usual)) for x, (fan, n) in fans.items()
    }
    return {layer: size for layer, size in found.items() if size > 0}


def _next_to_nothing(window: Window, context: Context) -> bool:
    """Tell whether the rate is a thousandth of what it was at its highest, or less."""
    return current_rate(window, context) < context.thresholds["lowered"] * context.facts.lr_peak


def _lowered(window: Window, context: Context) -> int | None:
    """Return the step at which the rate was lowered to next to nothing long before the loss was low, or None.

    At once, or step by step: then it has been so for as long as it took to get there.
    """
    numbers, at = context.thresholds, context.memory.get("lowered")
    if not _next_to_nothing(window, context) or not isinstance(at, int):
        return None
    if abs(at - window.since) <= AT_ONCE and window.since > context.start:
        at = window.since
    elif window.step - at < at - context.start:
        return None
    total = context.meta.max_steps
    most_of_it = isinstance(total, int) and at < total / 2
    least = numbers["left_early" if most_of_it else "left"]
    return None if learned(window, context.facts, least) else at


def _as_the_rate(window: Window, context: Context, lowered: int) -> float:
    """Return how far the layer moves that moves most, from what it did before the rate was; NaN unknown."""
    after = max(context.start, window.step - KEPT_STEPS)
    steps, ratios = layer_ratios(window.history, after, lowered)
    known = np.flatnonzero((ratios > 0).any(axis=1)) if len(ratios) else np.empty(0, int)
    if not len(known):
        return math.nan
    last, name = known[-1], window.history.written("train", "lr")
    then = window.history.column("train", name, int(steps[last]) - 1, int(steps[last])).finite
    if not len(then) or not then.values[-1] > 0:
        return math.nan
    times = current_rate(window, context) / float(then.values[-1])
    return float(np.nanmax(ratios[last])) * times


def _limit(window: Window, context: Context) -> float:
    """Return the share of its weights by which some layer must move in a step.

    It is higher while the loss stands where it began, unless that is the end of another training.
    """
    numbers = context.thresholds
    if learned(window, context.facts, numbers["unmoved"]) or _goes_on(context):
        return numbers.fire
    return max(numbers.fire, context.rates["timid"] * sound_step(context))


def _higher(window: Window, context: Context) -> Recommendation:
    """Return the advice to raise the rate, by the first step of the layers that moved."""
    return higher_rate(window, _of_those_that_moved(window, context))


def _of_those_that_moved(window: Window, context: Context) -> Context:
    """Return the context with the first step of the layers that it moved, where most got no gradient.

    As in a net of branches that begin with no part in it: half of its layers stand still at first, and
    the median over all of them says nothing of how long a step is.
    """
    facts = context.facts
    if facts.update_first != 0:
        return context
    _, ratios = layer_ratios(window.history, facts.first_step - 1, facts.first_step)
    moved = ratios[(ratios > 0) & (ratios < BEGAN_AT_ZERO)]
    if not len(moved):
        return context
    return replace(context, facts=replace(facts, update_first=median_of(moved)))


def _case(
    window: Window,
    context: Context,
    trend: Trend,
    ratio: float,
    limit: float,
    lowered: int | None,
) -> Case:
    numbers = context.thresholds
    change = -100 * trend.improvement
    because = (
        Evidence(
            f"no layer moves by more than {number(100 * ratio)} % of its weights a step",
            "gradients",
            "update_ratio",
            window.step,
            ratio,
            limit,
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
        recommendation=_higher(window, context)
        if lowered is None
        else former_rate(window, context, lowered),
        may_be_normal="Fine-tuning that shall hardly change the weights (set task to finetune); "
        "the last steps of a schedule.",
        onset=(context.start if lowered is None else lowered) + 1,
    )
