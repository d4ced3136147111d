"""Noise: what of a step is noise, from the squared gradient norms at two batch sizes."""

from __future__ import annotations

import numpy as np

from ..store import Meta
from ..store.schemas import Json
from .windows import History

COLUMNS = ("small_sq", "big_sq", "small", "big")


def noise_rows(history: History, after: int, upto: int) -> np.ndarray:
    """Return the samples with after < step <= upto, float64[n, 5]: step and the four columns."""
    found = [history.column("noise", name, after, upto) for name in COLUMNS]
    if not len(found[0]):
        return np.empty((0, 5))
    table = np.column_stack([found[0].steps, *(samples.values for samples in found)])
    return table[np.isfinite(table).all(axis=1)]


def said_of_noise(rows: np.ndarray, batch: float | None, meta: Meta) -> dict[str, Json] | None:
    """Return the obstacle's JSON; None where nothing was sampled."""
    return None
