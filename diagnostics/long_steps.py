"""Long steps: what tells that the steps of a run are too long by their own measure.

The numbers are those of lr_too_high.
"""

from __future__ import annotations

import math

import numpy as np

from ..store import Evidence
from .advice import current_rate, first_step, raised, sound_step
from .forgetting import left_of
from .medians import median_of
from .ratios import update_ratios
from .rule import UNCORRECTED, Context
from .windows import Window
from .words import number, percent


def too_long(
    window: Window, context: Context, *, from_start: bool, worse: bool
) -> list[Evidence] | None:
    """Return the evidence that steps are too long, None where there is none.

    `worse`: the loss stands over its best by more than its noise; else no rate was the better one.
    """
    numbers, facts = context.thresholds, context.facts
    seen: list[Evidence] = []
    edges = window.samples("curvature", "edge_ratio").finite
    edge = median_of(edges.values[-3:]) if len(edges) else math.nan
    if facts.edge_peak > numbers["edge"] and (edge > numbers["edge"] or from_start):
        text = (
            f"largest eigenvalue {number(facts.edge_lambda)}: {number(facts.edge_peak)} times what "
            f"{context.optimizer_name} can take at this learning rate"
        )
        seen.append(
            Evidence(
                text, "curvature", "edge_ratio", facts.edge_step, facts.edge_peak, numbers["edge"]
            )
        )
    rate = current_rate(window, context)
    if worse and raised(window, context, rate):
        text = (
            f"learning rate {number(rate)} since step {window.since:,}; the loss was lowest "
            f"at {number(facts.lr_at_best)}"
        )
        limit = numbers["raised"] * facts.lr_at_best
        seen.append(Evidence(text, "train", "lr", window.step, rate, limit))
    first = first_too_long(context)
    far = first is not None and (first.value or 0) > numbers["surely"] * (first.threshold or 1)
    if first is not None and (from_start or (worse and far)):
        seen.append(first)
    steps, ratios = update_ratios(window.history, window.since, window.step)
    behind = steps > (window.step - numbers.span)
    limit = numbers["update_peak"] if from_start else numbers["update_ratio"]
    if from_start:
        peak, at = facts.update_peak, facts.update_peak_step
    elif behind.sum() > 1:
        # the second largest: a single exploding batch is no learning rate
        top = int(np.argsort(np.where(behind, ratios, -1))[-2])
        peak, at = float(ratios[top]), int(steps[top])
    else:
        peak, at = math.nan, 0
    few = facts.first_step + int(numbers["torn_steps"])
    if at < few:  # before what divides them is a mean of many gradients
        peak /= UNCORRECTED.get(context.optimizer_name.lower(), 1.0)
    if peak > limit:
        text = f"steps of {percent(peak)} of the weights (step {at:,}); over {percent(limit)} is too long"
        seen.append(Evidence(text, "gradients", "update_ratio", at, peak, limit))
    return seen or None


def first_too_long(context: Context) -> Evidence | None:
    """Return a first step too long for any run that trains; None where this one did train."""
    facts = context.facts
    if facts.loss_best < left_of(facts, context.thresholds["trained"]):
        return None
    size = first_step(context)
    limit = context.thresholds["adaptive_first" if context.adaptive else "update_first"]
    return first_evidence(context, size, limit) if size > limit else None


def first_evidence(context: Context, size: float, limit: float) -> Evidence:
    """Return the evidence of a first step of a share `size` of the weights."""
    moved = "the first step moved the weights by"
    if context.optimizer.get("momentum"):
        moved = "the first step, grown by momentum, moves the weights by"
    text = f"{moved} {percent(size)}; in runs that train it is about {percent(sound_step(context))}"
    return Evidence(text, "gradients", "update_ratio", context.facts.first_step, size, limit)
