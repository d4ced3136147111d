"""The gradient noise scale, from squared gradient norms at two batch sizes.

McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", appendix A. With |g_b|² the squared
norm of a gradient over b samples and |g_B|² over B > b of them, |G|² = (B|g_B|² - b|g_b|²)/(B - b) and
tr Σ = (|g_b|² - |g_B|²)/(1/b - 1/B) are free of bias, and the simple noise scale is tr Σ / |G|²: the
batch at which noise and signal are equal. Both are averaged apart and divided last: the mean of the
ratios is 40 to 50 % off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .errors import ConfigError

DECAY = 0.99
"""How much a sample still counts when the next one has come: about the last 200 make the answer."""

LEAST_SAMPLES = 5
"""Fewer tell too little of their own spread for an interval."""

LEAST_DECAY = 0.9
"""Rows that stand for hundreds of samples are remembered for some twenty rows, so that their spread tells
how sure the answer is."""


class NoiseScale(NamedTuple):
    """One sample's answer: squared norm of the true gradient, trace of the noise, their ratio.

    Numbers, or arrays of one shape. `scale` is nan where `gradient_sq` is not above zero.
    """

    gradient_sq: Any
    trace: Any
    scale: Any


class NoiseEstimate(NamedTuple):
    """What many samples say: the noise scale in samples with its 95 % interval, and its two parts.

    `scale`, `low` and `high` are nan where `gradient_sq` is not above zero with confidence: then
    the noise scale is undetermined. All are nan before the first sample.
    """

    scale: float
    low: float
    high: float
    gradient_sq: float
    trace: float


class NoiseSeries(NamedTuple):
    """What is known at each row of a series, by it and those before: float64[n] each."""

    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    gradient_sq: np.ndarray
    trace: np.ndarray


def noise_scale(
    small_sq: ArrayLike, big_sq: ArrayLike, small: ArrayLike, big: ArrayLike
) -> NoiseScale:
    """Return |G|², tr Σ and the noise scale of single samples.

    Args:
        small_sq: squared norm of the gradient over `small` samples (mean over such groups).
        big_sq: squared norm of the gradient over `big` samples.
        small: samples in a group, above 0.
        big: samples in the batch, above `small`.

    Scalars give floats, arrays are broadcast. One sample says little: average `gradient_sq` and
    `trace` apart and divide last, as `NoiseScaleEstimator` does. What cannot be used (a NaN, sizes
    that are not 0 < small < big) gives nan. Source: McCandlish et al. 2018, appendix A.

    >>> noise_scale(small_sq=4.0, big_sq=2.5, small=8, big=32)
    NoiseScale(gradient_sq=2.0, trace=16.0, scale=8.0)
    """
    s, g, b, n = np.broadcast_arrays(
        *(np.asarray(x, np.float64) for x in (small_sq, big_sq, small, big))
    )
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        usable = np.isfinite(s) & np.isfinite(g) & (b > 0) & (n > b) & np.isfinite(n)
        gradient = np.where(usable, (n * g - b * s) / (n - b), np.nan)
        trace = np.where(usable, (s - g) / (1 / b - 1 / n), np.nan)
        scale = np.where(gradient > 0, trace / gradient, np.nan)
    if gradient.ndim == 0:
        return NoiseScale(float(gradient), float(trace), float(scale))
    return NoiseScale(gradient, trace, scale)


class NoiseScaleEstimator:
    """The noise scale over many samples, which may be of different batch sizes.

    Means of |G|² and tr Σ in which each sample weighs as much as its batch, and `decay` times as
    much when the next one has come (1.0 forgets nothing). The interval is Fieller's, from the
    samples' own spread and the covariance of both parts, with Student's t for the samples that count.
    It takes samples as independent; where the run is changing it is wider than that, as the change
    counts as spread. In a linear regression with a known answer it covers the truth in 93 to 96 % of
    1,000 seeds (tests/store/test_noise.py).

    >>> estimator = NoiseScaleEstimator()
    >>> for small_sq in (3.9, 4.1, 4.0, 4.2, 3.8, 4.0):
    ...     estimator.update(small_sq, 2.5, small=8, big=32)
    >>> estimate = estimator.estimate()
    >>> round(estimate.scale, 1), estimate.low < 8 < estimate.high
    (8.0, True)

    Raises ConfigError where `decay` is not in (0, 1].
    """

    def __init__(self, decay: float = DECAY) -> None:
        if not 0 < decay <= 1:
            raise ConfigError(
                f"decay must be in (0, 1], got {decay!r}; 0.99 remembers about the last 200 samples"
            )
        self.decay = float(decay)
        self._samples = 0
        self._sums = np.zeros(10)
        self._found: NoiseEstimate | None = None

    @property
    def samples(self) -> int:
        """Samples that counted so far."""
        return self._samples

    def state(self) -> list[float]:
        """Return what the estimator holds, as numbers that `restored` goes on from."""
        return [self.decay, float(self._samples), *self._sums.tolist()]

    @classmethod
    def restored(cls, state: Sequence[float]) -> NoiseScaleEstimator:
        """Return the estimator that `state` was asked of."""
        made = cls(state[0])
        made._samples = int(state[1])
        made._sums = np.array(state[2:], np.float64)
        return made

    def update(
        self,
        small_sq: float,
        big_sq: float,
        small: float,
        big: float,
        *,
        count: float = 1.0,
        decay: float | None = None,
    ) -> None:
        """Take one sample, or the mean of `count` of them; what cannot be used is left out."""
        one = noise_scale(small_sq, big_sq, small, big)
        if math.isfinite(one.trace) and math.isfinite(one.gradient_sq) and count > 0:
            self._add(one.gradient_sq, one.trace, float(big) * count, decay or self.decay)

    def _add(self, gradient: float, trace: float, weight: float, decay: float) -> None:
        self._samples += 1
        moments = _moments(*(np.array([x]) for x in (gradient, trace, weight)))[:, 0]
        self._sums = self._sums * decay**POWERS + moments
        self._found = None

    def estimate(self) -> NoiseEstimate:
        """Return what the samples say by now."""
        if self._found is None:  # asked several times between two samples
            found = _estimates(self._sums[:, None], np.array([self._samples]))
            self._found = NoiseEstimate(*found[:, 0].tolist())
        return self._found

    def at_least(self) -> float:
        """Return the lower end of the 95 % interval, also where there is no upper one.

        Where |G|² is not above zero with confidence, the noise scale may be anything above this.
        nan before the fifth sample, and where nothing is known.

        >>> estimator = NoiseScaleEstimator()
        >>> for big_sq in (1.2, 0.8, 1.1, 0.9, 1.0, 1.0):
        ...     estimator.update(4.0, big_sq, small=8, big=32)
        >>> estimator.estimate().scale, round(estimator.at_least())
        (nan, 157)
        """
        low = self.estimate().low
        return low if math.isfinite(low) else _lower_end(self._sums, self._samples)


POWERS = np.array([1, 1, 1, 2, 2, 2, 2, 2, 2, 4])
"""Power of the weights, and so of the decay, in each of the sums below."""


def _moments(g: np.ndarray, s: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return what samples add to the sums, float64[10, n].

    Squared weights: a mean's variance is the sum of w²(x - mean)², however weights and spreads
    differ (White 1980); their squares tell how many samples that spread is of.
    """
    one = np.ones_like(g)
    v = w * w
    return np.stack([w, w * g, w * s, *(v * x for x in (one, g, s, g * g, s * s, g * s)), v * v])


def _spread(sums: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return both means, their variances and covariance, what is left of the spread, the freedom."""
    total, wg, ws, w2, w2g, w2s, w2gg, w2ss, w2gs, w4 = sums
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        gradient, trace = wg / total, ws / total
        left = 1 - w2 / total**2  # what the mean has taken out of the spread about it
        freedom = w2 * w2 / w4 - 1
        # 1e-12: rounding of samples that are all alike
        of_g = np.maximum(w2gg - 2 * gradient * w2g + gradient**2 * w2, 1e-12 * w2gg)
        of_s = np.maximum(w2ss - 2 * trace * w2s + trace**2 * w2, 1e-12 * w2ss)
        both = w2gs - gradient * w2s - trace * w2g + gradient * trace * w2
        of_g, of_s, both = (x / (total**2 * left) for x in (of_g, of_s, both))
    return gradient, trace, of_g, of_s, both, left, freedom


def _lower_end(sums: np.ndarray, samples: int) -> float:
    """Return where the confidence set of the noise scale begins that has no upper end.

    With a denominator that may be zero, Fieller's limits solve the same equation, but the set lies
    outside of them: its part above zero begins at the larger one.
    """
    gradient, trace, of_g, of_s, both, left, freedom = (float(x[0]) for x in _spread(sums[:, None]))
    if samples < LEAST_SAMPLES or not left > 0 or not freedom >= 1:
        return math.nan
    t = float(student(freedom))
    first = gradient**2 - t * t * of_g
    root = (trace * gradient - t * t * both) ** 2 - first * (trace**2 - t * t * of_s)
    if not first < 0 or not root > 0 or not trace**2 > t * t * of_s or not trace > 0:
        return math.nan
    return ((trace * gradient - t * t * both) - math.sqrt(root)) / first


def _estimates(sums: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Return the five numbers of NoiseEstimate, float64[5, n], of sums float64[10, n]."""
    gradient, trace, of_g, of_s, both, left, freedom = _spread(sums)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        low, high = fieller(trace, gradient, of_s, of_g, both, student(np.maximum(freedom, 1.0)))
        enough = (samples >= LEAST_SAMPLES) & (left > 0) & (freedom >= 1) & (gradient > 0)
        known = enough & np.isfinite(low)
        found = np.stack([trace / gradient, low, high])
    return np.concatenate([np.where(known, found, np.nan), [gradient, trace]])


def noise_series(
    small_sq: ArrayLike,
    big_sq: ArrayLike,
    small: ArrayLike,
    big: ArrayLike,
    *,
    counts: ArrayLike = 1,
    decay: float = DECAY,
) -> NoiseSeries:
    """Return the estimate at each row of a series from it and the rows before.

    `counts` is how many samples each row is the mean of: such a row weighs as much and makes older
    ones fade as much, but is one observation of the spread. It is remembered for some twenty rows
    at least.

    >>> series = noise_series([4.0] * 9, [2.5] * 9, 8, 32)
    >>> series.scale.round(2)
    array([nan, nan, nan, nan,  8.,  8.,  8.,  8.,  8.])
    """
    s, g, b, n, count = np.broadcast_arrays(
        *(np.asarray(x, np.float64) for x in (small_sq, big_sq, small, big, counts))
    )
    one = noise_scale(s, g, b, n)
    usable = np.isfinite(one.gradient_sq) & np.isfinite(one.trace) & (count > 0)
    found = np.full((5, len(s) + 1), np.nan)  # the last is for rows before the first usable one
    if usable.any():
        count = count[usable]
        fading = np.where(count > 1, np.maximum(decay**count, LEAST_DECAY), decay)
        moments = _moments(one.gradient_sq[usable], one.trace[usable], n[usable] * count)
        places = np.arange(1, len(count) + 1)
        found[:, : len(count)] = _estimates(_faded(moments, fading), places)
    return NoiseSeries(*found[:, np.cumsum(usable) - 1])


def _faded(moments: np.ndarray, fading: np.ndarray) -> np.ndarray:
    """Return running sums float64[10, n], in which a row's older ones fade by `fading` [n]."""
    sums = np.empty_like(moments)
    carry = np.zeros(len(moments))
    for begin in range(0, len(fading), BLOCK):  # 0.9 to the 4 · 256 is 1e-47: within float64
        rows = slice(begin, begin + BLOCK)
        kept = np.exp(np.cumsum(np.log(fading[rows]))[None, :] * POWERS[:, None])
        sums[:, rows] = kept * (carry[:, None] + np.cumsum(moments[:, rows] / kept, axis=1))
        carry = sums[:, rows][:, -1]
    return sums


BLOCK = 256


def fieller(
    top: ArrayLike,
    bottom: ArrayLike,
    top_variance: ArrayLike,
    bottom_variance: ArrayLike,
    both: ArrayLike,
    t: ArrayLike,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence limits of a ratio of two means, after Fieller 1954.

    `both` is the covariance of the means, `t` the quantile. nan where the denominator is not
    different from zero at that confidence, so that the ratio has no limits.

    >>> low, high = fieller(8.0, 2.0, 0.0, 0.0, 0.0, 1.96)
    >>> float(low), float(high)
    (4.0, 4.0)
    """
    x, y, vx, vy, c, q = (
        np.asarray(v, np.float64) for v in (top, bottom, top_variance, bottom_variance, both, t)
    )
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        first = y * y - q * q * vy
        first = np.where(first > 0, first, np.nan)
        middle = x * y - q * q * c
        root = np.sqrt(np.maximum(middle**2 - first * (x * x - q * q * vx), 0.0))
        return (middle - root) / first, (middle + root) / first


def student(freedom: ArrayLike) -> np.ndarray:
    """Return the 97.5 % quantile of Student's t, by its series around the normal one's.

    Within 0.1 % from 4 degrees of freedom on (Abramowitz and Stegun 26.7.5).

    >>> student([4, 20, 1e9]).round(3)
    array([2.776, 2.086, 1.96 ])
    """
    z, v = 1.959963985, np.asarray(freedom, np.float64)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return np.sum([term / v**power for power, term in enumerate(terms)], axis=0)
