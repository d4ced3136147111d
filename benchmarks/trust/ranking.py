"""How far a prediction holds: rank correlation, bias, and spread over nets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

DRAWS = 2000


@dataclass(frozen=True)
class Ranking:
    """Spearman's rank correlation over `count` nets, with its 90 % bootstrap interval."""

    rho: float
    low: float
    high: float
    count: int


NOT_RANKED = Ranking(math.nan, math.nan, math.nan, 0)


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlation of the ranks along the last axis; nan where one does not vary.

    >>> spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 30.0, 20.0, 40.0])).round(3)
    0.8
    """
    middle = (a.shape[-1] + 1) / 2
    x, y = rankdata(a, axis=-1) - middle, rankdata(b, axis=-1) - middle
    norm = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.divide((x * y).sum(-1), norm, out=np.full_like(norm, math.nan), where=norm > 0)


def ranking(predicted: Sequence[float], found: Sequence[float]) -> Ranking:
    """Return the rank correlation of the pairs that are known on both sides."""
    pairs = np.array([predicted, found], dtype=float)
    a, b = pairs[:, np.isfinite(pairs).all(axis=0)]
    if len(a) < 3:
        return Ranking(math.nan, math.nan, math.nan, len(a))
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(a), (DRAWS, len(a)))
    low, high = np.nanpercentile(spearman(a[drawn], b[drawn]), (5, 95))
    return Ranking(float(spearman(a, b)), float(low), float(high), len(a))


@dataclass(frozen=True)
class Spread:
    """The ratios found / predicted: their geometric mean, and the range that holds 90 % of them.

    `within_two`: the share within a factor of two; `within_two_calibrated`: of the ratios over
    their geometric mean, that is once the prediction's constant bias is taken out.
    """

    mean: float
    low: float
    high: float
    within_two: float
    within_two_calibrated: float
    count: int


def spread(predicted: Sequence[float], found: Sequence[float]) -> Spread:
    """Return how the ratios found / predicted are spread.

    >>> spread([1.0, 1.0, 1.0], [1.0, 2.0, 4.0]).mean
    2.0
    """
    ratios = np.array(found, dtype=float) / np.array(predicted, dtype=float)
    logs = np.log2(ratios[np.isfinite(ratios) & (ratios > 0)])
    if not len(logs):
        return Spread(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(logs.mean())
    low, high = np.percentile(logs, (5, 95))
    return Spread(
        2.0**mean,
        float(2.0**low),
        float(2.0**high),
        float(np.mean(np.abs(logs) <= 1)),
        float(np.mean(np.abs(logs - mean) <= 1)),
        len(logs),
    )
