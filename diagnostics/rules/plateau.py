"""The loss stands still although there is much left to learn.

What: over 200 steps, in blocks of 20 whose medians count, the loss improved by less than 1 % and
by less than two standard errors, in four evaluations 50 steps apart. It must be near its start
(over 80 %), or stuck for a reason that was seen: layers that do not move although they should,
dead units, vanishing gradients, or a learning rate far too low. A flat loss at the floor, in the final
decay of the learning rate, or far below its start without such a reason is what convergence looks
like, and is no finding.
Why: every further step costs the same and brings nothing.
Source: measured: healthy nets improve by 13 % and more in 200 steps until they converge; sigmoid × 8
by at most 0.3 %.
"""

from __future__ import annotations

import math

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import current_rate, higher_rate, timid
from ..initialization import as_code, he_normal
from ..progress import Trend, course, largest_ratio, scheduled
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import optimizer_snippet
from ..windows import Window
from ..words import listing, number, rounded

FAMILY = "train"
FROM_START = True


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the loss stands still for a reason, or near its start."""
    numbers = context.thresholds
    losses = window.samples("train", "loss", count=numbers.window, span=numbers.span).finite
    if len(losses) < numbers.min_samples:
        return unknown(f"fewer than {numbers.min_samples} finite losses since the windows began")
    schedule = scheduled(window, context, numbers.window, numbers.span, numbers["decay"])
    if schedule is not None:
        return unknown(schedule)
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
    near_start = trend.now > numbers["unlearned"] * start
    frozen = _frozen(window, context, near_start)
    caused = context.standing("dead_units", "vanishing_gradients", "lr_too_low")
    if not (near_start or frozen or caused):
        return fine(0.5)
    return breach(1.0, _case(window, context, trend, ratio, frozen))


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
                None,
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
    drawn = he_normal(context)
    if ratio == 0 and not context.facts.update_peak > 0 and drawn:
        return "Stuck: no gradient reaches any weight", _draw_anew(drawn)
    if timid(context):
        return "Stuck: the steps are shorter than in any run that trains", higher_rate(
            window, context
        )
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
