"""Lone spikes: losses, or other values, that leave their neighbours for a step or two and come back."""

from __future__ import annotations

import math

import numpy as np

from .medians import median_of
from .thresholds import Thresholds

AROUND = 5
"""Losses before and behind a lone one that it is held against."""


def bursts(losses: np.ndarray, numbers: Thresholds, floor: float) -> np.ndarray:
    """Return where single batches throw the loss up: several lone spikes, or one beyond doubt."""
    if not _may_leave(losses, min(numbers["spike"], numbers["lone_spike"]), floor):
        return np.empty(0, dtype=np.int64)
    around, least = _around(losses), math.exp(numbers["tail"] * _log_spread(losses))
    several = _lone(losses, around, max(numbers["spike"], least), floor)
    if len(several) >= numbers["spikes"]:
        return several
    return _lone(losses, around, max(numbers["lone_spike"], least), floor)


def single_spikes(losses: np.ndarray, numbers: Thresholds, floor: float) -> np.ndarray:
    """Return where a single batch throws the loss up, be it the only one, and no more than that."""
    if not _may_leave(losses, numbers["spike"], floor):
        return np.empty(0, dtype=np.int64)
    least = math.exp(numbers["tail"] * _log_spread(losses))
    return _lone(losses, _around(losses), max(numbers["spike"], least), floor)


def _may_leave(losses: np.ndarray, times: float, floor: float) -> bool:
    """Tell whether any loss can be so many times its neighbours': no median of them is under the least."""
    if not len(losses):
        return False
    highest, least = losses.max(), losses.min()
    return bool(highest > floor and not (least > 0 and highest <= times * least))


def _log_spread(losses: np.ndarray) -> float:
    """Return the deviation of the losses' logarithms around their course; 0 of losses under zero.

    Batches of a few samples have losses many times over the usual one by themselves.
    """
    if len(losses) < 3 or not losses.min() > 0:
        return 0.0
    return 1.4826 / math.sqrt(2) * median_of(np.abs(np.diff(np.log(losses))))


def lone_spikes(values: np.ndarray, times: float, floor: float = 0.0) -> np.ndarray:
    """Return where values leave their neighbours for a step or two and come back at once.

    `times`: over so many times the medians of the five values before and behind. Spikes nearer
    than five steps count once.

    >>> lone_spikes(np.array([1.0, 1.0, 30.0, 1.0, 1.0, 1.0]), 8).tolist()
    [2]
    """
    return _lone(values, _around(values), times, floor)


def _around(values: np.ndarray) -> np.ndarray:
    """Return the larger of the medians of the five values before and behind each."""
    if len(values) < 5:
        return np.full(len(values), np.inf)
    edge = np.full(5, median_of(values))
    padded = np.concatenate([edge, values, edge])
    a, b, c, d, e = (padded[i : len(padded) - 4 + i] for i in range(5))
    # a median of five is that of three: the larger of the small ones, the smaller of the large ones
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    around = np.maximum(np.minimum(e, low), np.minimum(np.maximum(e, low), high))
    return np.maximum(around[: len(values)], around[6 : 6 + len(values)])


def _lone(values: np.ndarray, around: np.ndarray, times: float, floor: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        rise = values - around  # of losses under zero, too
        high = np.flatnonzero((values > floor) & (rise > (times - 1) * np.abs(around)))
    if not len(high):
        return high
    apart = np.ones(len(high), dtype=bool)
    apart[1:] = high[1:] - high[:-1] >= 5
    return high[apart]
