"""Out of scale: inputs far larger or smaller than a net is drawn for, and whether that does harm.

The numbers, and what is kept of the first batches, are those of input_problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .facts import BLOCK, learned
from .medians import median_of
from .rule import Context
from .windows import Window


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean, deviation and largest magnitude of the first batches, and how far they are off."""

    mean: float
    std: float
    largest: float
    excess: float


def scale_of(window: Window, context: Context) -> Scale | None:
    """Return the scale of the first batches, None while more of them may come."""
    kept, numbers = context.memory, context.thresholds
    if not kept["first"]:
        return None
    scale, excess = window.history.once(
        "input_problem.scale", (kept, numbers), lambda: _measured(context)
    )
    # where the budget paid for one batch alone its numbers are many: then what is far off is seen in it
    young = window.step - context.start <= numbers["settle"]
    if young and len(kept["first"]) < numbers.min_samples and excess < numbers["far"]:
        return None
    return scale


def _measured(context: Context) -> tuple[Scale, float]:
    """Return the scale of the first batches, and how far it is off, also where the model scales itself."""
    numbers = context.thresholds
    _, means, stds, lows, highs = np.array(context.memory["first"], dtype=float).T
    mean, std = median_of(means), median_of(stds)
    largest = float(max(abs(lows.min()), abs(highs.max())))
    excess = max(abs(mean), std) / numbers.fire
    # sparse features and one-hot rows have a small deviation, too, but a largest value that counts
    if largest < numbers["faint"] and std < numbers["narrow"]:
        excess = max(excess, numbers["narrow"] / max(std, 1e-12))
    entered, size = context.memory["entered"], math.hypot(mean, std)
    own = entered is not None and size > 0 and not 1 / 3 < entered / size < 3
    return Scale(mean, std, largest, 0.0 if own else excess), excess


def does_harm(window: Window, context: Context, scale: Scale) -> bool:
    """Tell whether the scale does harm: far off it does; else it is seen in the loss."""
    numbers = context.thresholds
    if learned(window, context.facts, numbers["learned"]) and _beats_guessing(window, context):
        return False
    return scale.excess >= numbers["far"] or stands(window, context)


def stands(window: Window, context: Context) -> bool:
    """Tell whether the loss has not fallen although it has had the steps to, or not by learning."""
    numbers = context.thresholds
    if window.step - context.start <= numbers["settle"]:
        return False
    fell = learned(window, context.facts, numbers["flat"])
    return not (fell and _beats_guessing(window, context))


def _beats_guessing(window: Window, context: Context) -> bool:
    """Tell whether the loss is under that of guessing, or that is not known.

    Inputs out of scale throw the outputs as far off: a loss that comes down from there to that of a net
    that knows nothing of its inputs has undone what they did, and learned nothing, from however high.
    """
    guess = context.memory.get("guess")
    if not isinstance(guess, (int, float)):
        return True
    losses = window.samples("train", "loss", count=BLOCK).finite.values
    return median_of(losses) <= guess
