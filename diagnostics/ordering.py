"""Ordering: whether values of a net's layers rise along it, and which layer stands out of that order."""

from __future__ import annotations

import math

import numpy as np

ORDERED = 0.95
"""Rank correlation of layers that are in order, beside one that is not."""


def in_order(layers: list[str], rms: np.ndarray, least: int) -> tuple[list[str], np.ndarray]:
    """Return the layers without the one that is out of order, where the others are in order without it.

    Parameters of the model itself come first, and a head may be defined before what it stands on.
    """
    if len(layers) <= least:
        return layers, rms
    order = rank_correlation(rms)
    if order > ORDERED or order < _least_of_all(len(layers)):
        return layers, rms
    orders = _without_each(ranks_of(rms))
    out = int(np.argmax(orders))
    if orders[out] <= ORDERED:
        return layers, rms
    return layers[:out] + layers[out + 1 :], np.delete(rms, out)


def rank_correlation(values: np.ndarray) -> float:
    """Return Spearman's correlation of values with their place, for distinct values.

    >>> float(rank_correlation(np.array([1.0, 2.0, 5.0, 9.0])))
    1.0
    """
    apart = ranks_of(values) - np.arange(len(values))
    return float(_spearman(apart, len(values)))


def ranks_of(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value, from 0; the first one of equal ones is lower."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


def _spearman(apart: np.ndarray, count: int) -> np.ndarray:
    return 1 - 6 * (apart**2).sum(axis=-1) / (count * (count**2 - 1))


def _least_of_all(count: int) -> float:
    """Return the rank correlation under which leaving out one value brings none over ORDERED.

    One value more adds (count - 1)² at most to the sum of squares, and moves all others by one.
    """
    left = count - 1
    squares = (1 - ORDERED) * left * (left**2 - 1) / 6
    squares += 2 * math.sqrt(left * squares) + left + left**2
    return 1 - 6 * squares / (count * (count**2 - 1))


def _without_each(ranks: np.ndarray) -> np.ndarray:
    """Return, of each value, the rank correlation of all others."""
    places = np.arange(len(ranks))
    lower, before = ranks > ranks[:, None], places > places[:, None]
    apart = (ranks - lower) - (places - before)
    np.fill_diagonal(apart, 0)
    return _spearman(apart, len(ranks) - 1)
