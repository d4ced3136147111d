"""How much of the gap to the healthy run an advised run closes."""

from __future__ import annotations

import math

MENDED = 0.8
"""Share of the gap in final validation loss that has to be closed."""


def bounded(loss: float, classes: int) -> float:
    """Return a loss, at most that of guessing: ln C.

    A diverged run has no loss worth a number: against its 1e9 (or NaN) every other run would close
    the whole gap, also one that has learned nothing.

    >>> round(bounded(float("nan"), 10), 3), bounded(0.5, 10)
    (2.303, 0.5)
    """
    guessing = math.log(classes)
    return min(loss, guessing) if math.isfinite(loss) else guessing


def gap_closed(before: float, after: float, healthy: float, classes: int) -> float:
    """Return (before − after) / (before − healthy) of final validation losses.

    Losses beyond guessing count as guessing. NaN where there is no gap: the faulty run was as good
    as the healthy one.

    >>> round(gap_closed(before=2.3, after=0.4, healthy=0.3, classes=10), 3)
    0.95
    >>> gap_closed(before=0.2, after=0.1, healthy=0.3, classes=10)
    nan
    """
    start, end, goal = (bounded(loss, classes) for loss in (before, after, healthy))
    return (start - end) / (start - goal) if start > goal else math.nan
