"""Guessing: the loss of a net that knows nothing of its inputs, by which is told what was learned."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..store.schemas import Json
from .facts import BLOCK
from .medians import median_of
from .rule import Context
from .windows import Samples, Window

COMPARABLE = (0.7, 2.0)
"""A first loss within these times that of guessing is a loss of its kind: no sum, no other's."""
NEAR = 0.1
"""A loss that came down to that of guessing, to this share of it, has learned nothing of the inputs."""
SAME = 0.02
"""The loss is the cross-entropy of the outputs as logits, to this share."""
EARLY, OFTEN = 250, 4
"""Labels of so many samples of the head, of the first steps, tell how often each class comes."""


def remembered(window: Window, context: Context) -> dict[str, Json]:
    """Return what a rule keeps to know the loss of guessing: `guess`, and `entropy` of the labels.

    `guess` is that of the first step's probe (ln C, the variance of the targets, ln 2). `entropy`, in
    nats, is the least that a net can have that gives every sample the same answer; kept only where the
    loss is the cross-entropy of outputs and labels. Keys that are not known yet are left out.
    """
    kept: dict[str, Json] = {
        name: value for name, value in context.memory.items() if name in ("guess", "entropy")
    }
    if "guess" not in kept:
        found = window.samples("initialization", "expected_loss").finite.values
        if len(found) and found[0] > 0:
            kept["guess"] = float(found[0])
    if window.last_step("head") >= 0:
        entropies = window.samples("head", "label_entropy")
        ratios = window.samples("head", "as_logits")
        entropy = window.history.once(
            "entropy of labels", (entropies, ratios), lambda: _entropy(entropies, ratios)
        )
        if entropy is not None:
            kept["entropy"] = entropy
    return kept


def _entropy(entropies: Samples, ratios: Samples) -> float | None:
    known = np.isfinite(entropies.values) & np.isfinite(ratios.values)
    if known.any() and (np.abs(ratios.values[known] - 1) < SAME).all():
        return float(f"{entropies.values[known][-1]:.4g}")
    return None


def knows_guessing(context: Context, memory: Mapping[str, Json]) -> bool:
    """Tell whether the first loss is near that of guessing: then the one measures the other."""
    start, guess = context.facts.loss_start, memory.get("guess")
    if not isinstance(guess, (int, float)) or not start > 0:
        return False
    low, high = COMPARABLE
    return low * guess < start < high * guess


def of_guessing(context: Context, memory: Mapping[str, Json]) -> float:
    """Return the first loss, or that of guessing where it is lower and of the same kind.

    Weights as they are drawn begin a little over guessing: what is won by dropping to it is nothing
    that was learned of the inputs.
    """
    start = context.facts.loss_start
    return min(start, float(memory["guess"])) if knows_guessing(context, memory) else start


def has_learned(window: Window, context: Context, memory: Mapping[str, Json], share: float) -> bool:
    """Tell whether the loss (median of 50) fell under a share of the first one, or of guessing."""
    losses = window.samples("train", "loss", count=BLOCK).finite.values
    if not len(losses):
        return False
    now, guess = median_of(losses), memory.get("guess")
    if isinstance(guess, (int, float)) and abs(now - guess) < NEAR * abs(guess):
        return False
    begin = of_guessing(context, memory)
    return now < begin - (1 - share) * abs(begin)


def knows_classes_alone(now: float, memory: Mapping[str, Json], share: float) -> bool:
    """Tell whether a loss is that of naming how often each class comes, to a share of it."""
    entropy = memory.get("entropy")
    return isinstance(entropy, (int, float)) and math.isfinite(now) and now > share * entropy > 0
