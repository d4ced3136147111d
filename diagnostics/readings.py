"""Readings of an obstacle: what they come to as JSON, and whether they rise or fall."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..store.schemas import Json

RECENT = 5
"""Readings behind a value: single scans run wild (MEASURES: judged by medians over five)."""


def not_measured(sentence: str = "not yet measured", samples: int = 0) -> dict[str, Json]:
    """Return an obstacle of which nothing is known, with the reason."""
    return {
        "value": None,
        "low": None,
        "high": None,
        "trend": None,
        "sentence": sentence,
        "levers": [],
        "measured": False,
        "step": None,
        "samples": samples,
    }


def measured(
    value: float,
    values: np.ndarray,
    steps: np.ndarray,
    sentence: str,
    levers: Sequence[str],
) -> dict[str, Json]:
    """Return an obstacle's JSON from its readings: `value` with the range of the recent ones."""
    recent = values[-RECENT:]
    return {
        "value": value,
        "low": float(recent.min()),
        "high": float(recent.max()),
        "trend": trend(values),
        "sentence": sentence,
        "levers": list(levers),
        "measured": True,
        "step": int(steps[-1]),
        "samples": len(values),
    }


def trend(values: np.ndarray) -> str | None:
    """Return `rising`, `falling` or `steady`: the last third of the readings against the first.

    >>> trend(np.array([1.0, 1, 1, 2, 2, 2])), trend(np.array([1.0, 2.0]))
    ('rising', None)
    """
    if len(values) < 6:
        return None
    third = len(values) // 3
    old, new = np.median(values[:third]), np.median(values[-third:])
    if old <= 0 or not math.isfinite(new / old):
        return None
    return "rising" if new > 1.25 * old else "falling" if new < 0.8 * old else "steady"
