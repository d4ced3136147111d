"""Arrays as JSON numbers: few digits, NaN as null, infinities as the strings of `store.plain`."""

from __future__ import annotations

from typing import Any

import numpy as np


def rounded(values: np.ndarray, digits: int) -> np.ndarray:
    """Return float64 values with so many significant digits; what is not finite stays as it is.

    A float32 written with all its digits takes 18 characters of JSON, with six of them 7.

    >>> rounded(np.array([0.123456789, 1234.5678, 0.0]), 3).tolist()
    [0.123, 1230.0, 0.0]
    """
    wide = np.asarray(values, dtype=np.float64)
    usable = np.isfinite(wide) & (wide != 0)
    places = digits - 1 - np.floor(np.log10(np.abs(wide, where=usable, out=np.ones_like(wide))))
    # two factors: a single power of ten overflows nothing here, but 1e-300 times it would
    scale = 10.0 ** np.clip(places, -300, 300)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(usable, np.round(wide * scale) / scale, wide)


def as_json(values: np.ndarray, digits: int) -> list[Any]:
    """Return nested lists of numbers, None for NaN and strings for infinities.

    >>> as_json(np.array([0.5, np.nan, -np.inf]), 3)
    [0.5, None, '-Infinity']
    """
    short = rounded(values, digits)
    if np.isfinite(short).all():
        return short.tolist()
    mixed = short.astype(object)
    mixed[np.isnan(short)] = None
    mixed[np.isposinf(short)] = "Infinity"
    mixed[np.isneginf(short)] = "-Infinity"
    return mixed.tolist()
