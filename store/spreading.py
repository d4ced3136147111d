"""Spreading: which steps stand for a stream that is too long to be read whole."""

from __future__ import annotations


def spread_steps(first: int, last: int, count: int) -> range:
    """Return at most about `count` steps from `first` to `last`: the multiples of a power of two.

    Streams of about the same length (the ranks of a run) are read at the same steps.

    >>> list(spread_steps(1, 100, 8))
    [0, 16, 32, 48, 64, 80, 96]
    """
    every = 1
    while (last - first + 1) > every * count:
        every *= 2
    return range(first // every * every, last + 1, every)
