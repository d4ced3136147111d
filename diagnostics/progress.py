"""Progress: how the loss went over a window, and what of the schedule and the steps explains it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .medians import median_of, nan_median
from .ratios import layer_ratios
from .rule import Context
from .windows import Samples, Window

WARMING = 1.02
"""A rate that rose by more than this over the window is warming up."""
DECAYING = 0.98
WARMS_UP = "the learning rate is still warming up"


@dataclass(frozen=True, slots=True)
class Trend:
    """The course of the loss over a window: relative improvement and its standard errors."""

    improvement: float
    z: float
    now: float
    first_step: int


def course(steps: np.ndarray, losses: np.ndarray, block: int) -> Trend:
    """Return how a loss went: medians of blocks, the later half against the earlier one.

    >>> course(np.arange(200), np.linspace(2.0, 1.0, 200), 20).improvement > 0.3
    True
    """
    whole = len(losses) // block
    medians = nan_median(losses[-whole * block :].reshape(whole, block), axis=1)
    half = whole // 2
    old, new = medians[:half], medians[-half:]
    change = median_of(old) - median_of(new)
    error = math.sqrt(float(old.var(ddof=1)) / half + float(new.var(ddof=1)) / half)
    base = abs(median_of(old))
    z = change / error if error > 0 else math.copysign(math.inf, change) if change else 0.0
    # the halves lie half a window apart: the whole window's change is twice the halves'
    improvement = 2 * change / base if base > 0 else 0.0
    return Trend(improvement, z, median_of(new), int(steps[0]))


def scheduled(window: Window, context: Context, count: int, span: int, decay: float) -> str | None:
    """Return why the schedule makes a flat loss mean nothing, None where it does not.

    `decay`: a falling rate under this share of its peak is in its final decay.
    """
    rates = window.samples("train", "lr", count=count, span=span).finite.values
    if len(rates) < 2:
        return None
    if rates[-1] > WARMING * rates[0]:
        return WARMS_UP
    falling = rates[-1] < DECAYING * rates[0]
    if rates[-1] <= 0 or (falling and rates[-1] < decay * context.facts.lr_peak):
        return "the learning rate is in its final decay"
    return None


def patience_of(context: Context) -> float:
    """Return the steps for which a run may stand at its start: a share of its length, where it is known.

    Many a sound run stands at first and learns then; what that costs is told by what is left of it. The
    rule's numbers are `patience` and `longest`.
    """
    share, most = context.thresholds["patience"], context.thresholds["longest"]
    return min(share * max(context.meta.max_steps or 0, 0), most)


def steady_losses(window: Window, context: Context) -> tuple[Samples, str]:
    """Return the losses of a rule's window, and why a flat course of them would mean nothing, or "".

    Its numbers are `window`, `span`, `min_samples` and `decay`.
    """
    numbers = context.thresholds
    losses = window.samples("train", "loss", count=numbers.window, span=numbers.span).finite
    if len(losses) < numbers.min_samples:
        return losses, f"fewer than {numbers.min_samples} finite losses since the windows began"
    why = scheduled(window, context, numbers.window, numbers.span, numbers["decay"])
    return losses, why or ""


def largest_ratio(window: Window) -> float:
    """Return how far the layer moves that moves most, NaN where no layer was measured.

    The median over layers is small, too, where gradients vanish or units are dead: no learning
    rate helps there.
    """
    _, ratios = layer_ratios(window.history, window.since, window.step, 10)
    known = ratios[np.isfinite(ratios).any(axis=1)]
    return median_of(np.fmax.reduce(known, axis=1)) if len(known) else math.nan
