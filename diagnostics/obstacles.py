"""The three obstacles: non-linearity, conditioning and noise, as far as they were measured."""

from __future__ import annotations

import math

import numpy as np

from ..store.schemas import Json
from .windows import History, Window
from .words import number

NOT_MEASURED: dict[str, Json] = {
    "value": None,
    "low": None,
    "high": None,
    "trend": None,
    "sentence": "not yet measured",
    "levers": [],
    "measured": False,
}


def obstacles(history: History, step: int) -> dict[str, Json]:
    """Return the panel's JSON: each obstacle with value, trend, a sentence and its levers."""
    window = Window(history, step)
    gain = window.samples("curvature", "newton_gain").finite
    if not len(gain):
        gain = window.samples("curvature", "preconditioned_newton_gain").finite
    horizon = window.samples("landscape", "horizon").finite
    return {
        "non_linearity": _horizon(horizon.values),
        "conditioning": _conditioning(gain.values),
        "noise": dict(NOT_MEASURED),
    }


def _conditioning(values: np.ndarray) -> dict[str, Json]:
    if not len(values):
        return dict(NOT_MEASURED)
    value = float(np.median(values[-3:]))
    return {
        "value": value,
        "low": float(values[-3:].min()),
        "high": float(values[-3:].max()),
        "trend": _trend(values),
        "sentence": f"one curvature-aware step is worth {number(value)} of these",
        "levers": ["Adam or AdamW", "normalization layers", "standardized inputs"],
        "measured": True,
    }


def _horizon(values: np.ndarray) -> dict[str, Json]:
    if not len(values):
        return dict(NOT_MEASURED)
    value = float(np.median(values[-5:]))
    held = "breaks within one step" if value < 1 else f"holds for {number(value)} steps ahead"
    return {
        "value": value,
        "low": float(values[-5:].min()),
        "high": float(values[-5:].max()),
        "trend": _trend(values),
        "sentence": f"the local picture {held}",
        "levers": ["a smaller learning rate", "warm-up", "gradient clipping"],
        "measured": True,
    }


def _trend(values: np.ndarray) -> str | None:
    if len(values) < 6:
        return None
    third = len(values) // 3
    old, new = np.median(values[:third]), np.median(values[-third:])
    if old <= 0 or not math.isfinite(new / old):
        return None
    return "rising" if new > 1.25 * old else "falling" if new < 0.8 * old else "steady"
