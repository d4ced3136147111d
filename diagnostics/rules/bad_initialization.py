"""The weights were drawn too large or too small: the signal grows or fades from layer to layer.

What: at the first step. Too large: the layers together multiply the signal's energy by more than 10,
one of them by more than 2, and the first loss is more than three times that of guessing; or most of
four layers and more were drawn with 1.8 times what keeps the signal, and it is more than twice that (the
farther over, the less of it: with 3.6 times one and a half of guessing). A net whose loss has come down
all the same is named only where it learned the training samples by heart on such weights: validation
stays over 0.4 of guessing, and the training loss under a quarter of that. Where nobody knows what
guessing costs: most layers 1.8 times over (of fewer than four 3 times), and either the first loss is five
times that of 30 steps later (of fewer, ten), or the gradient's energy grows by more than 100 on its way back. Too small:
the signal, or its gradient, shrinks in most layers and by more than a ten-thousandth in all, by the
weights and not by the activations' slope, and the loss has not moved after 150 steps that were
long enough. A net that learns all the same, inputs out of scale and weights from a checkpoint are
no finding.
Why: with a gain that is not 1 the signal grows or fades exponentially with depth; the loss begins
far above guessing, or the first layers never hear of it.
Source: Glorot and Bengio 2010, He et al. 2015; that large weights fit without learning features, and do
worse on new samples: Chizat et al. 2019; measured: deviation 0.5 at depth 6 begins at 119 times
the loss of guessing; healthy 0.97 to 1.13.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import current_rate, highest_rate
from ..as_drawn import Drawn
from ..facts import BLOCK, learned
from ..initialization import as_code, can_be_drawn, not_rectified
from ..medians import median_of
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import KEPT_STEPS, Window
from ..words import listing, number
from .overfitting import chosen

FAMILY = "train"
FROM_START = True
OTHERS = (
    "lr_too_high",
    "dead_units",
    "frozen_layer",
    "symmetric_weights",
    "input_problem",
    "lr_too_low",
)
SHIFTED = 4.0
"""A gain of so many times what a layer's deviation gives comes from a mean that is not zero."""
HEAD = 0.1
"""A last layer under this share of its deviation was drawn too small as well; many begin small by design."""
UNKNOWN = "whether weights are too large for the first loss: what guessing costs is not known"
ERRORS = 2.5
"""Standard errors by which two medians of the loss may differ where it stands."""
UNDOING = (20, 40)
"""Steps between which the loss is read that comes after what large weights cost at first."""
UNIFORM = 1 / math.sqrt(3)
"""Deviation of U(-1, 1): the framework's default draws from U(-1/sqrt(n), 1/sqrt(n))."""


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the weights are too large for the first loss, or too small to learn from."""
    numbers, start = context.thresholds, Drawn.of(window, context)
    if start is None:
        return unknown(_why_not(window, context))
    if np.isfinite(start.forward).sum() < numbers["least_layers"]:
        return unknown("too few layers with weights were seen at the first step")
    # where all targets of a batch are one number guessing costs nothing: that is no measure either
    known = math.isfinite(start.ratio)
    ratio = start.ratio if known else 0.0
    grows, largest = start.grows / numbers["compound"], float(np.nanmax(start.forward))
    # it may be the targets that lie far from zero: next to them the outputs of every layer are small
    strength = 0.0 if start.own < numbers["own"] else min(grows, ratio / numbers.fire)
    over = start.over / numbers["over"]
    if over > 1:  # the farther over, the less of the first loss is needed to tell
        strength = max(strength, min(over, (ratio - 1) / (numbers["ratio"] - 1) * over))
    came_down = _came_down(window, context, start)
    if strength > 1 and (largest > numbers["gain"] or over > 1) and not came_down:
        return breach(strength, _case(context, start, grows=True), certain=True)
    if over > 1 and ratio > numbers["ratio_of_heart"] and came_down:
        heart = _by_heart(window, context)
        if heart is not None:
            case = _case(context, start, grows=True)
            return breach(over, replace(case, because=(*case.because, heart)))
    if strength > 1:
        return fine(0.5)
    if not known:
        unmeasured = _without_guessing(window, context, start)
        if unmeasured is not None:
            return unmeasured
    faint = numbers["faded"] / max(start.fades, 1e-80)
    if faint > 1 and (start.slope > numbers["slope"] or start.forth < numbers["gone"]):
        return _faded(window, context, start, faint)
    large = over > 1 or (grows > 1 and largest > numbers["gain"])
    return fine(min(0.9, max(strength, 0.0)), UNKNOWN if large and not known else "")


def _without_guessing(window: Window, context: Context, start: Drawn) -> Verdict | None:
    """Breach where weights are too large, though what guessing costs is not known; None where they are not.

    Either the first steps did nothing but undo them, which no learning is as fast as, or the gradient grows
    on its way back: then tiny changes of the weights change everything, and the net learns slowly.
    """
    numbers = context.thresholds
    deep = math.isfinite(start.over)
    over = start.over / numbers["over"] if deep else start.times / numbers["far_over"]
    behind = window.step - context.start
    if not over > 1:
        return None
    losses = window.history.column("train", "loss", context.start, context.start + UNDOING[1])
    numeric = np.isfinite(losses.values)
    large = start.grows > numbers["compound"] or start.returns > numbers["returns"]
    if large and numeric.any() and numeric[0] and not numeric.all():
        return _unguessed(context, start, over, "the first steps threw the loss out of all numbers")
    later = losses.values[losses.steps > context.start + UNDOING[0]]
    middle = median_of(later) if len(later) else math.nan
    if behind < UNDOING[1] or not middle > 0 or not len(losses):
        return None
    undone = float(losses.values[0]) / middle
    if undone > numbers["undone"] * (1 if deep else 2) and start.grows > numbers["compound"]:
        text = (
            f"the first loss is {number(undone)} times that of steps {UNDOING[0]} to {UNDOING[1]}"
        )
        return _unguessed(context, start, over, text)
    if not start.returns > numbers["returns"] or behind < numbers["settle"]:
        return None
    now = window.samples("train", "loss", count=BLOCK).finite.values
    if not len(now) or median_of(now) < numbers["comes_down"] * middle:
        return None
    text = f"the gradient's energy is multiplied by {number(start.returns)} on its way back"
    return _unguessed(context, start, over, text)


def _unguessed(context: Context, start: Drawn, over: float, text: str) -> Verdict:
    case = _case(context, start, grows=True)
    first = Evidence(text, "train", "loss", context.start + 1)
    return breach(over, replace(case, because=(first, *case.because)), certain=True)


def _why_not(window: Window, context: Context) -> str:
    """Return why nothing is known of how the weights were drawn."""
    off = context.obstacles.why_off("initialization")
    if off is not None:
        return f"the first step was not looked at: {off}"
    if context.start > 0:
        return f"the run goes on from step {context.start:,}: it has no first step"
    if window.step - context.start > KEPT_STEPS:
        return f"the first step lies more than {KEPT_STEPS:,} steps back"
    return "the first step was not looked at"


def _came_down(window: Window, context: Context, start: Drawn) -> bool:
    """Tell whether the loss fell under half of that of guessing, in spite of its start."""
    return learned(window, context.facts, context.thresholds["learned"] / max(start.ratio, 1.0))


def _by_heart(window: Window, context: Context) -> Evidence | None:
    """Return what tells that the net knows its training samples, and next to nothing of others."""
    numbers = context.thresholds
    losses = window.samples("train", "loss", count=BLOCK).finite.values
    guess = window.history.column(
        "initialization", "expected_loss", max(context.start, window.step - KEPT_STEPS), window.step
    ).finite.values
    table = window.history.tables.get("validation")
    name = None if table is None else chosen([column.name for column in table.schema.columns])[0]
    if name is None or len(losses) < BLOCK or not len(guess):
        return None
    seen = window.samples("validation", name).finite.values
    if len(seen) < numbers["validations"]:
        return None
    train, best = float(np.median(losses)), float(seen.min())
    if not (best > numbers["unknown"] * guess[0] and train < numbers["known"] * best):
        return None
    text = (
        f"training loss {number(train)}, validation never under {number(best)}: it knows its samples "
        "by heart"
    )
    return Evidence(
        text, "validation", name, window.step, best, numbers["unknown"] * float(guess[0])
    )


def _faded(window: Window, context: Context, start: Drawn, strength: float) -> Verdict:
    numbers, facts = context.thresholds, context.facts
    if window.step - context.start < numbers["settle"]:
        return unknown(f"whether the net learns is seen from step {numbers['settle']:,.0f} on")
    still = _stands(window, context)
    gone = start.fades < numbers["gone"] and to_draw(start, context, grows=False)
    # a rate that others train with is not what keeps it from moving
    usual = gone or current_rate(window, context) > numbers["usual"] * highest_rate(context)
    moves = numbers["moved"] < facts.update_peak or usual
    others = [rule for rule in context.standing(*OTHERS) if rule != "lr_too_low" or not usual]
    torn = facts.update_peak > numbers["torn"] or (not gone and others)
    if not still or not moves or torn:
        return fine(0.5)
    return breach(min(strength, 100.0), _case(context, start, grows=False))


def _stands(window: Window, context: Context) -> bool:
    """Tell whether the loss is where it began: of 50 steps then and now, but for what these vary by.

    One that lay lower between has learned, and was thrown back by something else.
    """
    losses = window.samples("train", "loss", count=BLOCK).finite.values
    first = window.history.column(
        "train", "loss", context.start, context.start + BLOCK
    ).finite.values
    if min(len(losses), len(first)) < BLOCK:
        return False
    begin, now = float(np.median(first)), float(np.median(losses))
    spread = max(float(np.median(np.abs(part - np.median(part)))) for part in (first, losses))
    # standard error of the difference of two medians: 1.4826 · √(π/2) · √(2/50) median deviations
    error = 1.4826 * math.sqrt(math.pi / BLOCK) * spread
    least = max((1 / context.thresholds["flat"] - 1) * abs(begin), ERRORS * error)
    best = context.facts.loss_best
    return abs(now - begin) < least and not begin - best > least


def to_draw(start: Drawn, context: Context, *, grows: bool) -> dict[str, dict[str, Json]]:
    """Return the deviation to draw each layer with: He's before a ReLU, Xavier's elsewhere.

    Of a layer of few inputs He's is large beside what all others learn with: there Xavier's, times the
    same sqrt(2), keeps signal and gradient in the mean of both.
    Which layers come before a ReLU is told by their places, where the net has activations that squash, too.
    """
    proposed: dict[str, dict[str, Json]] = {}
    known, unbent = can_be_drawn(context), not_rectified(context)
    for i, layer in enumerate(start.layers):
        if layer not in known:
            continue
        last = i == len(start.layers) - 1
        he = start.rectifies and not last and layer not in unbent
        most = math.sqrt(2) * start.xavier[i]
        target = float(np.fmin(start.he[i], most) if he else start.xavier[i])
        off = start.std[i] / target if target > 0 else math.nan
        # weights of one sign add up: their deviation is all right, and the layer's gain is not
        shifted = start.forward[i] > SHIFTED * max(off, 1.0) ** 2
        if (off > 1.5 or shifted) if grows else off < (HEAD if last else 0.67):
            kind = "kaiming_normal" if he else "xavier_normal"
            proposed[layer] = {"kind": kind, "std": float(f"{target:.3g}")}
    if grows and not proposed and start.layers[-1] in known:  # each is all right, their sum is not
        std = start.std[-1] / math.sqrt(start.grows)
        proposed[start.layers[-1]] = {"kind": "xavier_normal", "std": float(f"{std:.3g}")}
    return proposed


def _case(context: Context, start: Drawn, *, grows: bool) -> Case:
    drawn = to_draw(start, context, grows=grows)
    layers = tuple(drawn) or start.layers
    known = start.forward[np.isfinite(start.forward)]
    middle = float(np.median(known))
    default = _is_default(start)
    how = (
        f"`{layers[0]}` was drawn with deviation {number(_of(start, layers[0]))}"
        + (", the framework's default U(±1/√n)" if default and not grows else "")
        + (f", {number(drawn[layers[0]]['std'])} keeps the signal" if drawn else "")
    )
    because = [
        Evidence(
            f"the signal's energy is multiplied by {number(start.grows)} over {len(known)} layers, "
            f"by {number(middle)} in the median layer",
            "initialization",
            f"forward_gain/{start.layers[int(np.nanargmax(start.forward))]}",
            context.start + 1,
            float(np.nanmax(start.forward)) if grows else middle,
            context.thresholds["gain"] if grows else 1 / context.thresholds["gain"],
        ),
        Evidence(how, "initialization", f"weight_std/{layers[0]}", context.start + 1),
    ]
    if grows and math.isfinite(start.ratio):
        text = f"the first loss is {number(start.ratio)} times that of guessing"
        because.insert(
            0,
            Evidence(
                text, "initialization", "loss_ratio", context.start + 1, start.ratio,
                context.thresholds.fire,
            ),
        )  # fmt: skip
    too = "large" if grows else "small"
    return Case(
        title=f"The weights of {listing(layers, 2)} were drawn too {too}",
        why="The signal grows from layer to layer: the net begins by being wrong with great "
        "certainty, and every step is as large as its error."
        if grows
        else "The signal fades from layer to layer: what is left at the end does not tell one "
        "sample from another, and next to no gradient comes back.",
        because=tuple(because),
        recommendation=Recommendation(
            parameter="weight_init",
            current={
                layer: {"kind": "as drawn", "std": float(f"{_of(start, layer):.3g}")}
                for layer in drawn
            },
            proposed=drawn,
            basis="derived",
            formula="sqrt(2 / inputs) before a ReLU, sqrt(4 / (inputs + outputs)) where that is less, "
            "sqrt(2 / (inputs + outputs)) elsewhere: each layer passes on the energy that it gets",
            snippet=as_code(drawn, context),
            effect="the first loss is that of guessing, and every layer gets a gradient"
            if grows
            else "the signal and its gradient reach every layer",
            verify="loss ratio near 1 and gains between 0.5 and 2 at the first step",
            risk="starts again from the first step; weights that were loaded would be lost",
        ),
        may_be_normal="Weights that were loaded for another task; a loss that guessing does not "
        "describe.",
        layers=layers,
        onset=context.start + 1,
    )


def _of(start: Drawn, layer: str) -> float:
    return float(start.std[start.layers.index(layer)])


def _is_default(start: Drawn) -> bool:
    """Tell whether the layers were drawn from U(±1/√n), as Linear and Conv are by default."""
    expected = UNIFORM * start.he / math.sqrt(2)
    with np.errstate(invalid="ignore"):
        alike = np.abs(start.std / expected - 1) < 0.1
    return bool(alike[np.isfinite(start.he)].mean() > 0.5) if np.isfinite(start.he).any() else False
