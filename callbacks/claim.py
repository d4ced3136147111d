"""The claim: what one probe may spend of the budget, and when it samples next."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median

DEAR_STEPS = 60.0
"""Guess, in steps, of what a dear probe's sample costs before one was taken."""

WARM = 0.3
"""What a dear probe's later samples may cost of its first, which loads code and may look twice."""

ONCE = 1_000_000_000
"""Fewest steps between two samples of a probe that is asked once."""


@dataclass(slots=True, eq=False)
class Claim:
    """What one probe may spend: its weight in the budget, and what its samples have cost."""

    name: str
    weight: float = 1.0
    dear: bool = False
    first: int = 1
    every: int | None = None
    least: int = 1
    aligned: bool = False
    guess: float = DEAR_STEPS
    """What a first sample is thought to cost, in steps; of a dear probe."""
    hastened: bool = False
    """Whether its next sample may be taken before it is earned."""
    eager: bool = False
    """Whether it looks at once where something happened, although it is cheap."""
    hurried: int = 0
    """Samples that may be taken on credit, since something happened, or since they were promised."""
    promised: list[tuple[int, int]] = field(default_factory=list)
    """(step, samples) that it shall take then, in debt or not, where they are cheap."""
    next_step: int = 1
    samples: int = 0
    seconds: float = 0.0
    cost: float = math.nan
    """Seconds of one sample, the median of the last (of a dear probe the least); the first, a warm-up,
    soon leaves it."""
    off: str | None = None
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=7))

    def paid(self, seconds: float) -> None:
        """Enter the cost of a sample."""
        self.samples += 1
        self.seconds += seconds
        self._recent.append(seconds)
        self.cost = self.usual
        if self.dear:  # the account holds what they took in truth; this tells when to ask again
            self.cost = min(self._recent) * (WARM if self.samples == 1 else 1.0)

    @property
    def usual(self) -> float:
        """Seconds of one sample, the median of the last; nan before the first."""
        return median(self._recent) if self._recent else math.nan

    @property
    def cheapest(self) -> float:
        """Seconds of the cheapest of the last samples: the first ones load code; nan before the first."""
        return min(self._recent, default=math.nan)

    @property
    def once(self) -> bool:
        """Whether it samples at the start alone."""
        return self.least >= ONCE

    @property
    def open(self) -> bool:
        return self.off is None


def aligned(step: int, wait: int) -> int:
    """Return the first step behind a wait that is a multiple of the power of two around the wait.

    >>> aligned(10, 3), aligned(13, 3), aligned(1, 1)
    (16, 16, 2)
    """
    grid = 1 << (max(1, wait) - 1).bit_length()
    return -(-(step + wait) // grid) * grid
