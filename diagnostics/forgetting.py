"""Forgetting: steps so long that the weights of some hundred steps ago are gone, and what they knew."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..store import Evidence
from .advice import first_step, one_layer, sound_step
from .as_drawn import Drawn
from .facts import BEGAN_AT_ZERO, Facts
from .medians import median_of
from .progress import course, scheduled
from .ratios import layer_ratios, update_ratios
from .rule import UNCORRECTED, Context
from .windows import Window
from .words import number, percent

HIGHEST = 3
"""Losses of the first steps whose mean tells that they went up: one alone is a hard batch."""
LOSSES = 200
RECENT = 10
"""Samples of the steps' length whose median counts; half of them are the fewest."""
BLOCK = 20
DECAY = 0.5
SMALL = 0.2
"""Deviation of weights over He's under which they are drawn small on purpose, as where they only may be
positive or a layer begins with next to no part: the framework draws by 0.41. A first step is far longer than
they are then, and nothing is lost by that."""


def first_of_moved(window: Window, context: Context) -> float:
    """Return the attempt's first step over the weights before it, a median of the layers that it moved.

    NaN where it was not measured, or moved none. A layer behind a share of zero (a branch that begins with
    no part in the net) has no gradient at first: its step of nothing tells not how long steps are.
    """
    at = context.facts.first_step
    _, ratios = layer_ratios(window.history, at - 1, at)
    moved = ratios[(ratios > 0) & (ratios < BEGAN_AT_ZERO)]
    ratio = median_of(moved)
    return ratio / math.sqrt(1 - ratio**2)


def drawn_small(window: Window, context: Context) -> float | None:
    """Return how small the weights were drawn: their deviation over SMALL of He's, a median over layers, at most 1.

    None where it was not measured, or was zero.
    """
    start = Drawn.of(window, context)
    if start is None:
        return None
    shares = start.std / start.he
    share = median_of(shares[np.isfinite(shares)])
    return min(share / SMALL, 1.0) if share > 0 else None


def beside_usual(context: Context, size: float) -> float:
    """Return a step over the weights as a share of such as are usually drawn, where these were drawn smaller.

    `drawn` of the rule's memory is what `drawn_small` returned.
    """
    drawn = context.memory.get("drawn")
    return size * float(drawn) if isinstance(drawn, (int, float)) else size


def of_moved(context: Context) -> Context:
    """Return the context with the first step of the layers that it moved, where most had no gradient.

    The median over all layers is zero then. With Adam and its kin alone, where all that moves moves as far:
    else what hardly moves may have a gradient that fades. `moved` of the rule's memory is what
    `first_of_moved` returned.
    """
    moved = context.memory.get("moved")
    if context.facts.update_first != 0 or not context.adaptive:
        return context
    if not isinstance(moved, (int, float)):
        return context
    return replace(context, facts=replace(context.facts, update_first=float(moved)))


def forgets(window: Window, context: Context) -> Evidence | None:
    """Return how long steps are where they undo each other, None where they do not.

    Steps of a share r of the weights, each another way, have replaced them after 1/r² steps: what a
    batch taught is kept no longer than that. With Adam and its kin steps do not shrink with the
    gradient, so that a loss far above its floor stands for as long as the rate does. Weights that grew
    large in the first steps hide that: there the first step tells, which left nothing of the
    initialization, or was longer than that of any run that trains (later ones may be short beside weights that
    grew with it, and the loss stands all the same). Numbers of lr_too_high: `forgets`, the median share;
    `forgets_floor`, of the first loss; `clearly` times `torn`, and `trained`, the same of the first step;
    `forgets_first`, where it stands after `patience` steps, twice as many under `clearly` times that: sound
    runs that come to their floor began with up to a fifth. With one sample a step, each of which goes another
    way, it is `adaptive_first`.
    """
    numbers, facts = context.thresholds, context.facts
    if not context.adaptive:
        return None
    losses = window.samples("train", "loss", count=LOSSES, span=2 * LOSSES).finite
    if len(losses) < 0.9 * LOSSES or scheduled(window, context, LOSSES, 2 * LOSSES, DECAY):
        return None
    trend = course(losses.steps, losses.values, BLOCK)
    at, size = facts.first_step, beside_usual(context, first_step(context))
    slow = trend.improvement < numbers["torn_flat"]
    clearly = numbers["clearly"]
    if slow and size > clearly * numbers["torn"] and trend.now > left_of(facts, numbers["trained"]):
        text = (
            f"the first step moved the weights by {percent(size)}: nothing of the initialization is "
            f"left, and the loss fell by {percent(max(trend.improvement, 0.0))} in {len(losses)} steps"
        )
        return Evidence(text, "gradients", "update_ratio", at, size, clearly * numbers["torn"])
    if trend.improvement > numbers["forgets_flat"]:
        return None
    if trend.now < left_of(facts, numbers["forgets_floor"]):
        return None
    limit = numbers["adaptive_first" if _of_one_sample(context) else "forgets_first"]
    patience = numbers["patience"] * (1 if size >= clearly * limit else 2)
    stood = window.step - context.start >= patience
    if size > limit and stood and not one_layer(context):
        text = (
            f"the first step moved the weights by {percent(size)}; in runs that train it is about "
            f"{percent(sound_step(context))}, and the loss has stood for {len(losses)} steps"
        )
        return Evidence(text, "gradients", "update_ratio", at, size, limit)
    steps, ratios = update_ratios(window.history, int(losses.steps[0]) - 1, window.step)
    if len(ratios) < RECENT // 2:
        return None
    ratio = median_of(ratios[-RECENT:])
    if not ratio > numbers["forgets"]:
        return None
    text = (
        f"each step moves the weights by {percent(ratio)} (median of the last "
        f"{len(ratios[-RECENT:])} measured), so that none keeps what it learned for longer than "
        f"{number(max(math.ceil(1 / min(ratio, 1.0) ** 2), 1))} steps, and the loss stands"
    )
    at = int(steps[-RECENT:][int(np.argmax(ratios[-RECENT:]))])
    return Evidence(text, "gradients", "update_ratio", at, ratio, numbers["forgets"])


def _of_one_sample(context: Context) -> bool:
    return (context.obstacles.noise.batch or context.meta.batch_size or math.inf) <= 1


def torn(window: Window, context: Context, now: float) -> Evidence | None:
    """Return the step of the first ones that left nothing of the initialization, if the loss went up.

    A step that was measured: what momentum would make of the first one, had the gradient stayed, is not
    what was stepped. None where the loss (`now`) has come back from that: sooner where it was hardly thrown
    up. Numbers of lr_too_high: `torn`, `torn_steps`, `torn_rise`; `learned`, and `learned_soon` under `blown_up`
    times the first loss; `torn_leap`: losses thrown up so many times tell that a step was too long, though
    later ones of the same rate are shorter.
    """
    numbers, facts = context.thresholds, context.facts
    few = int(numbers["torn_steps"])
    losses = window.history.column(
        "train", "loss", facts.first_step, facts.first_step + few
    ).finite.values
    at, size = facts.first_step, min(facts.update_first, first_step(context))
    if not len(losses):
        return None
    highest = float(np.sort(losses)[-HIGHEST:].mean())
    hardly = highest < left_of(facts, numbers["blown_up"])
    if now < left_of(facts, numbers["learned_soon" if hardly else "learned"]):
        return None
    leapt = highest > facts.loss_start + (numbers["torn_leap"] - 1) * facts.loss_scale
    shrinks = 1.0 if leapt else UNCORRECTED.get(context.optimizer_name.lower(), 1.0)
    longest = facts.update_peak / shrinks
    if longest > size and facts.update_peak_step < facts.first_step + few:
        at, size = facts.update_peak_step, longest
    if not size > numbers["torn"] or highest < left_of(facts, numbers["torn_rise"]):
        return None
    which = "the first step" if at == facts.first_step else f"step {at:,}"
    text = (
        f"{which} moved the weights by {percent(size)}; "
        f"in runs that train it is about {percent(sound_step(context))}"
    )
    return Evidence(text, "gradients", "update_ratio", at, size, numbers["torn"])


def left_of(facts: Facts, share: float) -> float:
    """Return the loss of which so large a share of the first one is left; under zero by as much."""
    return facts.loss_start - (1 - share) * abs(facts.loss_start)
