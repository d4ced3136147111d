"""The loss stands still although there is much left to learn.

What: over 200 steps, in blocks of 20 whose medians count, the loss improved by less than 1 % and
by less than two standard errors, in four evaluations 50 steps apart. It must be near its start, or the loss of
guessing (over 95 % of that, or 80 % of a start that tells nothing of it), or at the entropy of the labels; or stuck for a reason that was seen: layers that never move,
dead units, vanishing gradients, or a learning rate far too low. Without such a reason it has stood for a
tenth of the run, where its length is known: many stand at first and learn then. A flat loss at the floor, in the final
decay of the learning rate, or far below its start without such a reason is what convergence looks
like, and is no finding. Where activations squash and the first weights get a hundredth of the last ones' gradient or
less, they are what to change. The rate is lowered where the noise of the batches holds the loss, or steps are long or of
unknown length; where no step is longer than in runs that train, it is raised.
Why: every further step costs the same and brings nothing.
Source: measured: healthy nets improve by 13 % and more in 200 steps until they converge; sigmoid × 8
by at most 0.3 %.
"""

from __future__ import annotations

import math

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import (
    aimed_step,
    current_rate,
    first_step,
    higher_rate,
    highest_rate,
    rate_times,
    timid,
)
from ..batching import larger_batch, noise_over_batch
from ..guessing import knows_classes_alone, knows_guessing, of_guessing, remembered
from ..initialization import drawn_anew, he_normal
from ..progress import Trend, course, largest_ratio, patience_of, steady_losses
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import Window
from ..words import number, rounded
from .vanishing_gradients import advice_where_it_fades

FAMILY = "train"
FROM_START = True


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep what the loss of guessing is: of that is told whether anything was learned."""
    return remembered(window, context)


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the loss stands still for a reason, or near its start."""
    numbers = context.thresholds
    losses, why_not = steady_losses(window, context)
    if why_not:
        return unknown(why_not)
    trend = course(losses.steps, losses.values, int(numbers["block"]))
    start = abs(context.facts.loss_start)
    if not start > 0 or trend.now < numbers["floor"] * start:
        return fine()
    ratio = largest_ratio(window)
    still = ratio == 0 and not context.facts.update_peak > 0
    # where no weight moves, what looks like an improvement is that of a bias, or noise
    least = numbers["still_fire"] if still else numbers.fire
    if trend.improvement >= least:
        return fine(least / trend.improvement)
    if abs(trend.z) >= numbers["z"] and not still:
        return fine(0.5)
    near_start = trend.now > _unlearned(context)
    near_start |= knows_classes_alone(trend.now, context.memory, numbers["of_entropy"])
    caused = context.standing("dead_units", "vanishing_gradients", "lr_too_low", "frozen_layer")
    if not (near_start or caused):
        return fine(0.5)
    if not (caused or still) and window.step - context.start < patience_of(context):
        return fine(0.5)
    return breach(1.0, _case(window, context, trend, ratio))


def _unlearned(context: Context) -> float:
    """Return the loss over which a net has learned next to nothing.

    Where that of guessing is known, what stands clearly under it has: of targets that are mostly noise no
    more can be learned. What goes on from trained weights, with a first loss that tells nothing of guessing,
    is at no such start.
    """
    numbers, memory = context.thresholds, context.memory
    begin = of_guessing(context, memory)
    if knows_guessing(context, memory):
        return numbers["unlearned_of_guess"] * begin
    return math.inf if context.start > 0 else numbers["unlearned"] * begin


def _case(window: Window, context: Context, trend: Trend, ratio: float) -> Case:
    numbers = context.thresholds
    change = -trend.improvement
    because = [
        Evidence(
            f"loss {number(trend.now)}, flat for {numbers.window} steps ({100 * change:+.1f} %); "
            f"{number(context.facts.loss_start)} at the start",
            "train",
            "loss",
            window.step,
            trend.now,
            numbers["floor"] * context.facts.loss_start,
        )
    ]
    if math.isfinite(ratio):
        because.append(
            Evidence(
                f"steps of at most {number(100 * ratio)} % of a layer's weights",
                "gradients",
                "update_ratio",
                window.step,
                ratio,
                None,
            )
        )
    title, advice = _advice(window, context, ratio)
    measured = math.isfinite(context.obstacles.noise.estimator.at_least())
    missing = () if measured else ("noise scale: whether a larger batch would help",)
    noise = noise_over_batch(window, context, numbers["noise"])
    if noise is not None:
        because.append(noise.evidence())
    return Case(
        title=title,
        why="Every further step costs the same and brings nothing.",
        because=tuple(because),
        recommendation=advice,
        may_be_normal="The loss floor may be reached: noise in the labels, or a model too small "
        "for the data.",
        not_measured=missing,
        onset=max(trend.first_step, context.start + 1),
    )


def _advice(window: Window, context: Context, ratio: float) -> tuple[str, Recommendation]:
    numbers = context.thresholds
    drawn = he_normal(context)
    if ratio == 0 and not context.facts.update_peak > 0 and drawn:
        return "Stuck: no gradient reaches any weight", _draw_anew(context, drawn)
    faded = advice_where_it_fades(window, context, numbers["faded"], numbers["in_order"])
    if faded is not None:
        return "Stuck: the activations hand back next to no gradient to the first layers", faded
    if timid(context):
        return "Stuck: the steps are shorter than in any run that trains", higher_rate(
            window, context
        )
    noise = noise_over_batch(window, context, numbers["noise"])
    title = "Stuck: the loss stands still far above zero"
    longer = math.nan if noise is not None else _times_longer(window, context, ratio)
    if longer > 1:
        return title, _longer(window, context, longer)
    return title, rate_times(
        window,
        context,
        numbers["thumb"],
        reason=", what a plateau schedule would do",
        effect="smaller steps average the noise of the batches",
        alternatives=larger_batch(window, context, noise) if noise is not None else [],
        verify="the loss falls by more than 2 % in 300 steps; no change means that it was not the "
        "step: look for dead or frozen layers",
        risk="slower where the loss would have gone on by itself",
    )


def _times_longer(window: Window, context: Context, ratio: float) -> float:
    """Return how many times longer steps may be where none is longer than in runs that train, else 1.

    Measured: an exclusive or that stood at a quarter ended at 0.25 with 0.3 of its rate, at 0.14 to 0.21 with it,
    and under 0.004 with three times it. NaN steps are of unknown length.
    """
    rate, edge, aim = current_rate(window, context), context.facts.edge_peak, aimed_step(context)
    if not (rate > 0 and ratio <= aim and first_step(context) <= aim):
        return 1.0
    stable = 0.5 / edge if edge > 0 else math.inf
    return min(1 / context.thresholds["thumb"], highest_rate(context) / rate, stable)


def _longer(window: Window, context: Context, times: float) -> Recommendation:
    lower = rounded(current_rate(window, context) * context.thresholds["thumb"])
    return rate_times(
        window,
        context,
        times,
        reason=": next to nothing was learned, and no step is longer than in runs that train",
        effect="longer steps leave the flat place near the start sooner",
        alternatives=[{"parameter": "lr", "proposed": lower}],
        verify="the loss falls by more than 2 % in 300 steps; no change means that it was not the "
        "step: look for dead or frozen layers",
        risk="where the batches' noise holds the loss, which was not measured, a lower rate helps",
    )


def _draw_anew(context: Context, drawn: dict[str, dict[str, Json]]) -> Recommendation:
    return drawn_anew(
        drawn,
        context,
        basis="rule of thumb",
        formula="standard deviation sqrt(2 / fan-in), biases of zero: half of the units fire on "
        "any sample",
        effect="weights get a gradient from the first step on",
        verify="the first layers move in the next sample, and the loss falls",
        risk="starts again from the first step; weights that were loaded would be lost",
    )
