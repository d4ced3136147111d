"""The pace of a sender: how long it gathers samples, and how long it leaves a failing store alone."""

from __future__ import annotations

import os
import random
import time

LINGER_SECONDS = 0.5
"""30 µs of background CPU a frame of 1,200 columns beside other work; 250 ms cost half as much again."""
BATCHES_A_SECOND = 1000
"""What all ranks of a run send together: 45 µs of the server's CPU a batch (benchmarks/sending.py)."""
LONGEST_LINGER = 4.0
LONGEST_PAUSE = 2.0


def linger_of(ranks: int) -> float:
    """Return how long each of so many ranks gathers samples before it writes, in seconds.

    >>> linger_of(8), linger_of(1000), linger_of(100_000)
    (0.5, 1.0, 4.0)
    """
    return min(max(LINGER_SECONDS, ranks / BATCHES_A_SECOND), LONGEST_LINGER)


class Pace:
    """`pause` is how long to leave the store alone after its last error, 0 where it answers."""

    def __init__(self, linger: float) -> None:
        self.pause = 0.0
        self._linger = linger
        self._retry_at = 0.0
        self._random = random.Random(os.urandom(8))  # never the user's generator

    @property
    def linger(self) -> float:
        """Seconds until the next write; spread, for all ranks of a job begin at one moment."""
        return self._linger * self._random.uniform(0.75, 1.25)

    @property
    def may_try(self) -> bool:
        """Whether the pause is over."""
        return time.monotonic() >= self._retry_at

    def failed(self) -> None:
        """Take note of an error: the pause doubles, up to LONGEST_PAUSE."""
        self.pause = min(LONGEST_PAUSE, max(0.05, 2 * self.pause))
        self._retry_at = time.monotonic() + self.pause * self._random.uniform(0.5, 1.0)

    def hurry(self) -> None:
        """End the pause: the training ends."""
        self._retry_at = 0.0
