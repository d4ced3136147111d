"""The loss stands still although there is much left to learn.

What: over 200 steps, in blocks of 20 whose medians count, the loss improved by less than 1 % and
by less than two standard errors, in four evaluations 50 steps apart. It must be near its start
(over 80 %), or stuck for a reason that was seen: layers that do not move although they should,
dead units, vanishing gradients, or steps far too small. A flat loss at the floor, in the final
decay of the learning rate, or far below its start without such a reason is what convergence looks
like, and is no finding.
Why: every further step costs the same and brings nothing.
Source: measured: healthy nets improve by 13 % and more in 200 steps until they converge; sigmoid × 8
and a learning rate of 1e-5 by at most 0.3 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import current_rate, first_step, sound_step
from ..initialization import as_code, he_normal
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import optimizer_snippet
from ..windows import Window
from ..words import listing, number, percent, rounded

FAMILY = "train"
FROM_START = True


@dataclass(frozen=True, slots=True)
class Trend:
    """The course of the loss over a window: relative improvement and its standard errors."""

    improvement: float
    z: float
    now: float
    first_step: int


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the loss stands still for a reason, or near its start."""
    numbers = context.thresholds
    losses = window.samples("train", "loss", count=numbers.window, span=numbers.span).finite
    if len(losses) < numbers.min_samples:
        return unknown(f"fewer than {numbers.min_samples} finite losses since the windows began")
    schedule = _schedule(window, context)
    if schedule is not None:
        return unknown(schedule)
    trend = course(losses.steps, losses.values, int(numbers["block"]))
    start = abs(context.facts.loss_start)
    if not start > 0 or trend.now < numbers["floor"] * start:
        return fine()
    ratio = _largest_ratio(window)
    slow = ratio < numbers["ratio_low"] and not context.facts.update_peak > numbers["ratio_moved"]
    # so small steps bring nothing in a window: what looks like it is the noise of the batches
    least = numbers["slow_fire"] if slow else numbers.fire
    if trend.improvement >= least:
        return fine(least / trend.improvement)
    if abs(trend.z) >= numbers["z"] and not slow:
        return fine(0.5)
    near_start = trend.now > numbers["unlearned"] * start
    frozen = _frozen(window, context, near_start)
    caused = context.standing("dead_units", "vanishing_gradients")
    if not (near_start or slow or frozen or caused):
        return fine(0.5)
    return breach(1.0, _case(window, context, trend, ratio, frozen))


def course(steps: np.ndarray, losses: np.ndarray, block: int) -> Trend:
    """Return how a loss went: medians of blocks, the later half against the earlier one.

    >>> course(np.arange(200), np.linspace(2.0, 1.0, 200), 20).improvement > 0.3
    True
    """
    whole = len(losses) // block
    medians = np.median(losses[-whole * block :].reshape(whole, block), axis=1)
    half = whole // 2
    old, new = medians[:half], medians[-half:]
    change = float(np.median(old) - np.median(new))
    error = math.sqrt(float(old.var(ddof=1)) / half + float(new.var(ddof=1)) / half)
    base = abs(float(np.median(old)))
    z = change / error if error > 0 else math.copysign(math.inf, change) if change else 0.0
    # the halves lie half a window apart: the whole window's change is twice the halves'
    improvement = 2 * change / base if base > 0 else 0.0
    return Trend(improvement, z, float(np.median(new)), int(steps[0]))


def _schedule(window: Window, context: Context) -> str | None:
    """Return why the schedule makes a flat loss mean nothing, None where it does not."""
    numbers = context.thresholds
    rates = window.samples("train", "lr", count=numbers.window, span=numbers.span).finite.values
    if len(rates) < 2:
        return None
    if rates[-1] > 1.02 * rates[0]:
        return "the learning rate is still warming up"
    falling = rates[-1] < 0.98 * rates[0]
    if rates[-1] <= 0 or (falling and rates[-1] < numbers["decay"] * context.facts.lr_peak):
        return "the learning rate is in its final decay"
    return None


def _largest_ratio(window: Window) -> float:
    """Return how far the layer moves that moves most, NaN where no layer was measured.

    The median over layers is small, too, where gradients vanish or units are dead: no learning
    rate helps there.
    """
    updates = window.layers("gradients", "update_sq", count=10, group="weight")
    weights = window.layers("gradients", "weight_sq", count=10, group="weight")
    if not len(updates) or updates.layers != weights.layers:
        return math.nan
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratios = np.sqrt(updates.values / np.where(weights.values > 0, weights.values, np.nan))
    known = ratios[np.isfinite(ratios).any(axis=1)]
    return float(np.median(np.nanmax(known, axis=1))) if len(known) else math.nan


def _frozen(window: Window, context: Context, near_start: bool) -> list[str]:
    """Return the layers whose weights should train and did not move at all.

    No gradient was seen of weights that no optimizer has, but neither of a head that is not in
    use: those count only where the net learned nothing.
    """
    numbers = context.thresholds
    updates = window.layers("gradients", "update_sq", group="weight")
    gradients = window.layers("gradients", "grad_sq", group="weight")
    if not len(updates) or gradients.layers != updates.layers:
        return []
    unknown_gradient = np.isnan(gradients.values).all(axis=0) & near_start
    often = len(updates) >= numbers["frozen_samples"]
    if not often or updates.steps[-1] - updates.steps[0] < numbers["frozen_steps"]:
        wanted = unknown_gradient
    else:
        # a gradient of zero does not move weights either: that is a dead net, not a frozen layer
        wanted = unknown_gradient | (gradients.values > 0).any(axis=0)
    still = (updates.values == 0).all(axis=0) & wanted
    trained = {
        str(entry["layer"])
        for entry in context.meta.parameters
        if entry.get("requires_grad", True) and entry.get("kind") == "weight"
    }
    return [
        layer
        for layer, is_still in zip(updates.layers, still, strict=True)
        if is_still and layer in trained
    ]


def _case(window: Window, context: Context, trend: Trend, ratio: float, frozen: list[str]) -> Case:
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
                numbers["ratio_low"],
            )
        )
    if frozen:
        because.append(
            Evidence(
                f"{listing(frozen)} did not move at all",
                "gradients",
                f"update_sq/{frozen[0]}",
                window.step,
                0.0,
                0.0,
            )
        )
    title, advice = _advice(window, context, ratio, frozen)
    missing = ("noise scale: whether a larger batch would help",)
    return Case(
        title=title,
        why="Every further step costs the same and brings nothing.",
        because=tuple(because),
        recommendation=advice,
        may_be_normal="The loss floor may be reached: noise in the labels, or a model too small "
        "for the data.",
        layers=tuple(frozen),
        not_measured=missing,
        onset=max(trend.first_step, context.start + 1),
    )


def _advice(
    window: Window, context: Context, ratio: float, frozen: list[str]
) -> tuple[str, Recommendation]:
    numbers = context.thresholds
    rate = current_rate(window, context)
    if frozen:
        return f"Stuck: {listing(frozen, 2)} should train and never moves", _thaw(context, frozen)
    slow = 0 < ratio < numbers["ratio_low"]
    moved = context.facts.update_peak > numbers["ratio_moved"]
    if slow and not moved and not context.standing("dead_units", "vanishing_gradients"):
        return "Stuck: the learning rate is too low to move the weights", _raise(context, rate)
    drawn = he_normal(context)
    if ratio == 0 and not context.facts.update_peak > 0 and drawn:
        return "Stuck: no gradient reaches any weight", _draw_anew(drawn)
    value = rounded(rate * numbers["thumb"])
    return "Stuck: the loss stands still far above zero", Recommendation(
        parameter="lr",
        current=rate,
        proposed=value,
        basis="rule of thumb",
        formula=f"{number(rate)} × {number(numbers['thumb'])}, what a plateau schedule would do",
        snippet=optimizer_snippet(context, value),
        effect="smaller steps average the noise of the batches",
        verify="the loss falls by more than 2 % in 300 steps; no change means that it was not the "
        "step: look for dead or frozen layers",
        risk="slower where the loss would have gone on by itself",
    )


def _thaw(context: Context, frozen: list[str]) -> Recommendation:
    names = [
        str(entry["name"]) for entry in context.meta.parameters if entry.get("layer") in frozen
    ]
    return Recommendation(
        parameter="params",
        current=[],
        proposed=names,
        basis="derived",
        formula="parameters that want a gradient and whose weights stayed the same to the last bit",
        snippet="optimizer.add_param_group({'params': [p for n, p in model.named_parameters() "
        f"if n in {names!r}]}})",
        effect="these layers begin to learn",
        verify="their update is no longer zero in the next sample",
        risk="if they were left out on purpose, set requires_grad=False instead",
    )


def _draw_anew(drawn: dict[str, dict[str, Json]]) -> Recommendation:
    return Recommendation(
        parameter="weight_init",
        current={layer: {"kind": "as drawn"} for layer in drawn},
        proposed=drawn,
        basis="rule of thumb",
        formula="standard deviation sqrt(2 / fan-in), biases of zero: half of the units fire on "
        "any sample",
        snippet=as_code(drawn),
        effect="weights get a gradient from the first step on",
        verify="the first layers move in the next sample, and the loss falls",
        risk="starts again from the first step; weights that were loaded would be lost",
    )


def _raise(context: Context, rate: float) -> Recommendation:
    numbers, edge = context.thresholds, context.facts.edge_peak
    size, at = first_step(context), context.facts.update_first_lr
    factor, reason = numbers["raise_most"], "the most while the first step was not measured"
    if size > 0 and at > 0:
        aim = numbers["raise_share"] * sound_step(context)
        factor = max(at * aim / size / rate, 1.0)
        reason = f"the first step would move the weights by {percent(aim)}"
    derived = edge > 0 and 0.5 / edge < factor
    if derived:
        factor, reason = max(0.5 / edge, 1.0), "half of what the curvature allows"
    value = rounded(rate * factor)
    return Recommendation(
        parameter="lr",
        current=rate,
        proposed=value,
        basis="derived" if derived else "rule of thumb",
        formula=f"{number(rate)} × {number(factor)}: {reason}",
        snippet=optimizer_snippet(context, value),
        effect=f"steps {number(factor)} times longer",
        verify="the loss falls by more than 2 % in 200 steps; else it is judged again",
        risk="too long a step shows within 100 steps as a rising loss",
    )
