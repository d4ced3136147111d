"""The gradient clip is so tight that it sets the length of every step.

What: more than 95 % of the measured steps of the last 500 were clipped, or of the last ones measured
where the budget allows few, to less than a fifth of their norm; and a step moves the weights by less
than 0.03 %, while the loss improved by less than a tenth in 200 steps and stands over half of its
start. With Adam and its kin, whose
steps do not depend on the scale of gradients, it is information, from a 25th of the norm on: there the clip
only hides spikes, and many are set to cut most steps of a sound run.
Why: a clip is meant for the few steps that are too long; where it cuts all of them, the learning rate
is multiplied by clip / norm, and changes as the norm does.
Source: Pascanu et al. 2013; measured on a digits net: a clip of 0.01 cuts every step and leaves the
loss at 2.28 of 2.30 after 600 steps, a clip of 1.0 is active in 62 % of steps of a run that is fine.
"""

from __future__ import annotations

import math

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import current_rate, sound_step
from ..facts import learned
from ..medians import median_of
from ..progress import course
from ..ratios import update_ratios
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import clip_snippet, optimizer_snippet
from ..windows import Samples, Window
from ..words import count, number, percent, rounded

FAMILY = "train"
CLIPPED = 0.999
"""A step whose norm was left at more than this share was not clipped."""


def judge(window: Window, context: Context) -> Verdict:
    """Breach where next to all steps are clipped to a small part of their norm."""
    numbers = context.thresholds
    factors = window.samples("train", "clip_factor", span=numbers.span).finite
    if len(factors) < numbers.min_samples:
        return unknown(f"what clipping does was measured at fewer than {numbers.min_samples} steps")
    recent = factors.values[factors.steps > window.step - numbers.window]
    if len(recent) < numbers.min_samples:
        recent = factors.values[-numbers.min_samples :]
    share = float(np.mean(recent < CLIPPED))
    times = 1 / max(median_of(recent), 1e-12)
    most = _most(context)
    if share <= numbers["clipped"] or times <= most:
        return fine(min(share / numbers["clipped"], times / most))
    steps, ratios = update_ratios(window.history, window.since, window.step)
    moved = median_of(ratios[-10:])
    if not context.adaptive:
        if not math.isfinite(moved):
            return unknown("how far a step moves the weights was not measured")
        if moved > numbers["update_ratio"] or _learns(window, context):
            return fine(0.5)
    at = int(steps[-1]) if len(steps) else window.step
    return breach(times / most, _case(window, context, share, times, moved, at))


def _most(context: Context) -> float:
    """Return the times that a clip may cut the norm by: by more where it does not shorten steps."""
    return context.thresholds["adaptive"] if context.adaptive else context.thresholds.fire


def _learns(window: Window, context: Context) -> bool:
    numbers = context.thresholds
    if learned(window, context.facts, numbers["learned"]):
        return True  # it has come far in spite of the clip
    losses = window.samples("train", "loss", count=200, span=400).finite
    if len(losses) < 100:
        return True  # too few to say that it does not
    trend = course(losses.steps, losses.values, int(numbers["block"]))
    return trend.improvement > numbers["improvement"]


def _case(
    window: Window, context: Context, share: float, times: float, moved: float, at: int
) -> Case:
    numbers = context.thresholds
    because = [
        Evidence(
            f"{percent(share)} of the measured steps were clipped, to 1/{number(times)} of their "
            "norm in the median",
            "train",
            "clip_factor",
            window.step,
            1 / times,
            1 / _most(context),
        )
    ]
    if math.isfinite(moved):
        text = f"a step moves the weights by {number(100 * moved)} %"
        limit = None if context.adaptive else numbers["update_ratio"]
        because.append(Evidence(text, "gradients", "update_ratio", at, moved, limit))
    why = (
        f"{context.optimizer_name}'s steps do not depend on the scale of the gradients: such a clip "
        "does not shorten them, and a spike counts as much as any other step."
        if context.adaptive
        else "A clip is meant for the few steps that are too long; where it cuts all of them, it "
        "takes the place of the learning rate."
    )
    return Case(
        title=f"The gradient clip is {number(times)} times too tight: it cuts every step",
        why=why,
        because=tuple(because),
        recommendation=_advice(window, context, times, moved),
        may_be_normal="Normalized gradients on purpose, with a learning rate that was chosen for "
        "them; differential privacy, which needs the clip.",
        severity="info" if context.adaptive else None,
        onset=context.start + 1,
    )


def _norms(window: Window, context: Context) -> Samples:
    squares = window.samples("train", "grad_sq", span=context.thresholds.span).finite
    return Samples(squares.steps[-100:], np.sqrt(squares.values[-100:]))


def _wider(context: Context, times: float) -> Recommendation:
    """Return the advice where no norm before clipping is known: the clip, by what it cuts."""
    told = context.meta.gradient_clip_val
    value = rounded(told * times) if told else math.nan
    return Recommendation(
        parameter="gradient_clip_val",
        current=told,
        proposed=value,
        basis="rule of thumb",
        formula=f"the clip in force × {number(times)}, what it cuts a usual step by",
        snippet=clip_snippet(context, value),
        effect=f"steps about {number(times)} times longer",
        verify="fewer than a fifth of the steps are clipped, and the loss falls",
        risk="if the loss rises within 100 steps, lower the learning rate",
    )


def _advice(window: Window, context: Context, times: float, moved: float) -> Recommendation:
    norms = _norms(window, context)
    told = context.meta.gradient_clip_val
    if not len(norms):
        return _wider(context, times)
    quantile, grown = context.thresholds["clip_quantile"], context.thresholds["clip_times"]
    value = rounded(grown * float(np.quantile(norms.values, quantile)))
    also = _rate_without(window, context, times, moved)
    rates = [optimizer_snippet(context, float(item["proposed"])) for item in also]
    low, high = (rounded(grown * float(q)) for q in np.quantile(norms.values, [0.75, 0.95]))
    return Recommendation(
        parameter="gradient_clip_val",
        current=told,
        proposed=value,
        range=[low, high],
        basis="from your run",
        formula=f"{number(grown)} × the norm that {percent(quantile)} of the "
        f"{count(len(norms), 'measured step')} stayed under, before clipping: norms grow as a run "
        "that stood begins to learn",
        snippet="\n".join([clip_snippet(context, value), *rates]),
        effect="usual steps keep their length, the few that are longer are cut to it"
        if context.adaptive
        else f"steps about {number(times)} times longer; the few that are too long are still cut",
        verify="fewer than a fifth of the steps are clipped, and the loss falls by more than 2 % in "
        "200 steps",
        risk="the learning rate was perhaps chosen for the clipped steps: if the loss rises within "
        "100 steps, lower it",
        also=also,
    )


def _rate_without(
    window: Window, context: Context, times: float, moved: float
) -> list[dict[str, Json]]:
    """Return the rate to set with the clip, where whole steps would be too long at the one at hand."""
    whole, sound = moved * times, sound_step(context)
    if context.adaptive or not whole > context.rates["bold"] * sound:
        return []
    return [{"parameter": "lr", "proposed": rounded(current_rate(window, context) * sound / whole)}]
