"""AutoTrainer's detectors (Zhang et al., ICSE 2021), from its own file and default numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from .alert import Alert
from .trace import Trace

CHECK_EVERY = 3
"""Epochs between two checks."""
FROM = 0.3
"""Share of the planned epochs before which losses and accuracies are not judged."""


@dataclass(frozen=True)
class Numbers:
    """The defaults of its reproduce.py."""

    first_to_last: float = 1e-3
    first: float = 1e-4
    exploding: float = 70.0
    dead: float = 0.7
    unstable: float = 0.03
    unstable_share: float = 0.2
    slow: float = 0.01
    satisfied: float = 0.6


@dataclass
class _Features:
    """What its monitor has seen so far: nothing is taken back."""

    seen: set[str] = field(default_factory=set)


def autotrainer(trace: Trace, numbers: Numbers | None = None) -> list[Alert]:
    """Every third epoch: vanishing, exploding, dying, unstable or slow, or not finite.

    The gradients are those of the step at which it looks; accuracies are an epoch's mean and the
    last validation. Without accuracies (regression) it knows only what is not finite. It names
    one problem and stops looking, since it then repairs. Source: shiningrain/AUTOTRAINER,
    utils/monitor.py and reproduce.py; overfitting is computed there and commented out.
    """
    numbers = numbers or Numbers()
    epochs = trace.steps // trace.epoch_steps
    features = _Features()
    for epoch in range(CHECK_EVERY, epochs + 1, CHECK_EVERY):
        end = epoch * trace.epoch_steps
        _gradients(trace, end - 1, numbers, features.seen)
        _curves(trace, epoch, epochs, numbers, features.seen)
        problem = _problem(features.seen)
        if problem:
            kind, name = problem
            severity = "critical" if kind == "exploding" else "warning"
            return [Alert(kind, name, end, end, severity)]
    return []


def _gradients(trace: Trace, place: int, numbers: Numbers, seen: set[str]) -> None:
    norms = trace.weight("grad_norm")[place]
    if not len(norms):
        return
    if not np.isfinite(norms[~np.isnan(norms)]).all() or not math.isfinite(
        trace.get("grad_norm")[place]
    ):
        seen.add("nan")
        return
    first, last = norms[0], norms[-1]
    with np.errstate(all="ignore"):
        ratio = first / last
    if ratio < numbers.first_to_last and first < numbers.first:
        seen.add("vanish")
    if ratio > numbers.exploding:
        seen.add("explode")
    if np.nanmean(trace.weight("grad_zeros")[place]) >= numbers.dead:
        seen.add("dead")


def _curves(trace: Trace, epoch: int, epochs: int, numbers: Numbers, seen: set[str]) -> None:
    length = trace.epoch_steps
    ends = [number * length for number in range(1, epoch + 1)]
    loss = [float(np.mean(trace.get("loss")[end - length : end])) for end in ends]
    test_loss = _last_known(trace.get("val_loss"), ends)
    if not all(map(math.isfinite, loss)) or math.inf in test_loss or test_loss[-1] >= 1e5:
        seen.add("nan")
        return
    train = [float(np.mean(trace.get("train_accuracy")[end - length : end])) for end in ends]
    test = _last_known(trace.get("val_accuracy"), ends)
    known = [value for value in test if not math.isnan(value)]
    if epoch < FROM * epochs or math.isnan(train[-1]) or not known:
        return
    if swings(train, numbers.unstable) >= numbers.unstable_share * len(train):
        seen.add("unstable")
    if max(known) < numbers.satisfied or max(train) < numbers.satisfied:
        seen.add("not converged")
    if _largest_gain(known) < numbers.slow and _largest_gain(train) < numbers.slow:
        seen.add("slow")


def _last_known(values: np.ndarray, ends: Sequence[int]) -> list[float]:
    told = []
    for end in ends:
        known = values[:end][~np.isnan(values[:end])]
        told.append(float(known[-1]) if len(known) else math.nan)
    return told


def swings(values: Sequence[float], threshold: float) -> int:
    """Return how many local maxima stand that far over the local minimum of the same number.

    >>> swings([0.1, 0.5, 0.2, 0.6, 0.3, 0.7], 0.03)
    2
    """
    inner = range(1, len(values) - 1)
    high = [values[i] for i in inner if values[i] >= values[i - 1] and values[i] >= values[i + 1]]
    low = [values[i] for i in inner if values[i] <= values[i - 1] and values[i] <= values[i + 1]]
    return sum(top - bottom >= threshold for top, bottom in zip(high, low, strict=False))


def _largest_gain(values: Sequence[float]) -> float:
    return max([0.0, *(after - before for before, after in pairwise(values))])


def _problem(seen: set[str]) -> tuple[str, str] | None:
    if "nan" in seen:
        return "not finite", "explode (NaN)"
    if seen & {"not converged", "slow"}:
        if "dead" in seen:
            return "dead units", "dying ReLU"
        if "explode" in seen:
            return "exploding", "exploding gradient"
        if "vanish" in seen:
            return "vanishing", "vanishing gradient"
        if "slow" in seen:
            return "not learning", "slow convergence"
        return None
    return ("oscillating", "oscillating loss") if "unstable" in seen else None
