"""Waits: how long each rank waited for the others, without what Otoscope made them wait."""

from __future__ import annotations

import numpy as np

SPENT_SHARE = 0.1
"""A rank on which Otoscope spent so much more of a step than elsewhere comes late by our own doing."""
WAITED_SHARE = 0.1
"""Others wait for a rank where they wait so much more of each step than it does."""


def own_waits(
    steps: np.ndarray, waits: np.ndarray, spent: np.ndarray, seconds: np.ndarray
) -> np.ndarray:
    """Return the waits with NaN where a rank came late because Otoscope measured something there.

    Rank 0 runs the model for the curvature behind some steps; in the step after, the others wait
    for it, and it for nobody: that tells nothing of the ranks.

    Args:
        steps: int64[n], ascending.
        waits: `wait_seconds` of each rank, [n, ranks].
        spent: `overhead_seconds` of each rank, [n, ranks].
        seconds: `step_seconds` of each rank, [n, ranks].

    >>> steps, even = np.arange(3), np.full((3, 2), 0.1)
    >>> spent = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.0]])
    >>> own_waits(steps, even, spent, even)[:, 0].tolist()
    [0.1, 0.1, nan]
    """
    if not len(steps):
        return waits
    usual = np.nanmedian(seconds) if np.isfinite(seconds).any() else np.nan
    known = np.where(np.isfinite(spent), spent, 0.0)
    apart = known.max(axis=1) - known.min(axis=1) > SPENT_SHARE * usual
    late = np.zeros(len(steps), bool)
    late[1:] = apart[:-1] & (np.diff(steps) == 1)
    return np.where(late[:, None], np.nan, waits)


def slowest_rank(waits: np.ndarray, seconds: np.ndarray) -> int | None:
    """Return the place of the rank that the others wait for, None where nobody stands out.

    The slow rank waits least. `waits` and `seconds` are those of a step, of each rank, [ranks].

    >>> slowest_rank(np.array([0.050, 0.002, 0.049]), np.array([0.08, 0.08, 0.08]))
    1
    >>> slowest_rank(np.array([0.003, 0.002]), np.array([0.08, 0.08])) is None
    True
    """
    known = np.isfinite(waits)
    if known.sum() < 2:
        return None
    least = int(np.nanargmin(waits))
    others = np.delete(waits, least)
    gap = float(np.nanmedian(others)) - float(waits[least])
    return least if gap > WAITED_SHARE * float(np.nanmedian(seconds)) else None
