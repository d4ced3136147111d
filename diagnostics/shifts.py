"""Shifts: inputs that leave those of the first batches, by their mean or by their deviation."""

from __future__ import annotations

import math

import numpy as np

from ..store import Evidence, Recommendation
from .medians import median_of
from .rule import Case, Context
from .words import number

RECENT = 3
"""Samples in a row that lie apart from the first ones."""
FEW = 2
"""First samples that are enough for a shift of so many deviations of the inputs."""
FAR_BEHIND = 50
"""Steps behind the first samples from which on one that lies apart is no more of their kind."""


def shift_of(context: Context) -> tuple[float, str, int, float, float] | None:
    """Return strength, quantity, step, value before and value now of the larger shift; None unknown.

    All of the last samples lie on one side of all of the first ones, which may differ by as much among
    themselves, as bright and dark pictures do; batches of fewer than `rows` tell nothing. Of `memory` of
    the rule: `first` and `last`, rows of step, mean and deviation; `rows` of a batch.
    """
    first, last, numbers = context.memory["first"], context.memory["last"], context.thresholds
    if 0 < context.memory["rows"] < numbers["rows"]:
        return None
    if len(first) < FEW or len(last) < RECENT:
        return None
    if last[-1][0] - last[0][0] < numbers["shift_steps"]:
        return None
    base, now = np.array(first, dtype=float), np.array(last, dtype=float)
    spread = max(median_of(base[:, 2]), 1e-12)
    found = []
    middle = median_of(base[:, 1])
    noise = max(1.4826 * median_of(np.abs(base[:, 1] - middle)), numbers["least"] * spread)
    moved = _beyond(base[:, 1], now[:, 1])
    strength = min(moved / (numbers["z"] * noise), moved / (numbers["shift_std"] * spread))
    found.append((strength, "mean", int(last[0][0]), middle, median_of(now[:, 1])))
    # in logarithms: a deviation is so many times another one
    stds = (np.log(np.maximum(rows[:, 2], 1e-12)) for rows in (base, now))
    change = math.exp(min(_beyond(*stds), 50.0))
    found.append((change / numbers["times"], "std", int(last[0][0]), spread, median_of(now[:, 2])))
    strength, *told = max(found)
    if len(first) < numbers.min_samples:  # what they differ by among themselves is hardly known
        strength *= found[0][0] > 1 and moved > FEW * spread
    return strength, *told


def is_apart(row: list[float], first: list[list[float]]) -> bool:
    """Tell whether a batch (step, mean, deviation, …) is none of those that a run began with.

    Where the budget paid for few of the first ones, a shift must not be taken for one of them.
    """
    if len(first) < FEW or row[0] - first[-1][0] < FAR_BEHIND:
        return False
    base, now = np.array(first, dtype=float), np.array([row], dtype=float)
    spread = max(median_of(base[:, 2]), 1e-12)
    return _beyond(base[:, 1], now[:, 1]) > FEW * spread


def _beyond(before: np.ndarray, now: np.ndarray) -> float:
    """Return by how much all of the values now lie over, or all under, every value before."""
    return max(float(now.min() - before.max()), float(before.min() - now.max()), 0.0)


def shifted(context: Context, shift: tuple[float, str, int, float, float]) -> Case:
    """Return the case of a shift that `shift_of` told."""
    _, what, step, before, now = shift
    word = "mean" if what == "mean" else "deviation"
    return Case(
        title=f"The inputs have changed: {word} {number(before)} to {number(now)}",
        why="What was learned holds for other inputs than those that come now.",
        because=(
            Evidence(
                f"{word} of the inputs {number(now)} since step {step:,}, {number(before)} in the "
                "first batches",
                "inputs",
                what,
                step,
                now,
                before,
            ),
        ),
        recommendation=Recommendation(
            parameter="inspect",
            current=None,
            proposed=[int(step)],
            basis="from your run",
            formula="first sampled step whose batch is of the other kind",
            snippet="# compare batches from before and from behind this step: another file, another "
            "decoding, a normalization left out",
            effect="the inputs stay what the net was trained on",
            verify=f"{word} of the inputs near {number(before)} again",
            risk="none",
        ),
        may_be_normal="Data that change on purpose: a curriculum, another domain, larger pictures.",
        onset=int(step),
    )
