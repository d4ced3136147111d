"""Stretches: steps in a row whose losses leave together what was usual, and what a single batch leaves behind.

The numbers are those of loss_spike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .medians import median_of, quantiles_of
from .rule import Context
from .thresholds import Thresholds
from .windows import Samples, Window

IN_A_ROW = 8
NEAR = 32
"""Losses just before a stretch: of more, where the loss was falling, most were higher than it was by then."""
NORMAL = 1.349
"""Interquartile range of a normal distribution over its standard deviation."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Losses that stand over the usual: their steps, the highest, what was usual, the limit."""

    steps: np.ndarray
    top: float
    top_step: int
    usual: float
    limit: float
    most: int
    """Of so many steps in a row as a stretch must have, how many are high."""
    edge: float = math.inf
    """The 95th percentile of the losses before."""
    level: int = 0
    """Of so many steps in a row, how many are over that."""
    near: float = math.inf
    """The limit by the losses just before alone."""


def losses_of(window: Window, numbers: Thresholds) -> Samples:
    """Return the finite losses that a stretch is looked for in, and compared with."""
    return window.samples("train", "loss", count=numbers.window + 400, span=numbers.span).finite


def look(losses: Samples, context: Context) -> Stretch | None:
    """Return what of the last steps stands over the usual of those before; None if too few."""
    numbers = context.thresholds
    stretch = int(numbers["stretch"]) + 2
    before = losses.values[:-stretch][-numbers.window :]
    if len(before) < numbers.min_samples:
        return None
    usual, limit = _limit(before, context)
    recent, steps = losses.values[-stretch:], losses.steps[-stretch:]
    high = recent > limit
    (edge,) = quantiles_of(np.minimum(before, limit), 0.95)
    near = _limit(before[-NEAR:], context)[1]
    if high.sum() < numbers.fire or most_of(high, IN_A_ROW) < numbers.fire:
        if not _undoes(before, recent, edge, context):
            return Stretch(steps[:0], math.nan, 0, usual, limit, 0)
        usual, limit, near, high = median_of(before[-NEAR:]), edge, edge, recent > edge
    top = int(np.argmax(recent))
    most = most_of(high, stretch)
    seen = (steps[high], float(recent[top]), int(steps[top]), usual, limit, most, edge)
    return Stretch(*seen, near=near)


def _undoes(before: np.ndarray, recent: np.ndarray, edge: float, context: Context) -> bool:
    """Tell whether next to all of the last losses are high, and together undo more than the run had learned.

    A loss that stands little under that of guessing can hardly be one and a half times as high: what it
    leaves is small beside its size, and all that there was to lose.
    """
    numbers, facts = context.thresholds, context.facts
    row = recent[-int(numbers["stretch"]) :]
    if (row > edge).sum() < numbers["all"]:
        return False
    usual = median_of(before[-NEAR:])
    had_learned = facts.loss_start - usual
    lost = median_of(row) - usual
    return (
        had_learned > numbers["rise_of_start"] * facts.loss_scale
        and lost > numbers["undone"] * had_learned
    )


def _limit(before: np.ndarray, context: Context) -> tuple[float, float]:
    ordered = np.sort(before)
    median, limit = _once(ordered, context)
    if ordered[-1] <= limit:
        return median, limit
    return _once(np.minimum(ordered, limit), context)  # earlier spikes cut down to that limit


def _once(ordered: np.ndarray, context: Context) -> tuple[float, float]:
    numbers = context.thresholds
    median = median_of(ordered)
    low, high, p95 = quantiles_of(ordered, 0.25, 0.75, 0.95)
    spread = max(float(high - low) / NORMAL, numbers["least_spread"] * abs(median))
    limit = max(
        median + numbers["spreads"] * spread,
        numbers["p95"] * float(p95),
        median + numbers["rise_of_start"] * context.facts.loss_scale,
    )
    return median, limit


def most_of(high: np.ndarray, width: int) -> int:
    """Return how many of so many losses in a row are high, at most."""
    if len(high) <= width:
        return int(high.sum())
    return int(np.convolve(high.astype(int), np.ones(width, dtype=int), "valid").max())


def is_echo(losses: Samples, onset: int, usual: float, limit: float, numbers: Thresholds) -> bool:
    """Tell whether it was a single batch, and all that came after it is what its step left behind.

    Momentum goes on in the direction of a bad step for a while: the very next loss is near its usual, then
    it rises again, far less than it leapt, and comes down by itself; by Adam slowly, whose second moment
    holds that batch for long. What was high before the highest one was no echo of it.
    """
    near = losses.values[losses.steps >= onset - int(numbers["stretch"])] - usual
    top = int(np.argmax(near))
    behind = near[top + 1 :]
    lone = len(behind) > 0 and behind[0] < numbers["single"] * near[top]
    if not lone or near[:top].max(initial=0.0) > limit - usual:
        return False
    others = float(behind.max(initial=0.0)) / float(near[top])
    lasts = numbers["echo"] * (2 if others < numbers["faint"] else 1)
    return others < numbers["others"] and losses.steps[-1] - onset < lasts


def back_at(context: Context, usual: float, limit: float) -> float:
    """Return the loss at which a run has come back from a stretch: under the limit of it in any case."""
    numbers, scale = context.thresholds, context.facts.loss_scale
    return min(max(numbers["back"] * usual, usual + numbers["back_of_start"] * scale), limit)
