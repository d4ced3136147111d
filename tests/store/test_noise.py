"""The noise scale and its interval, against a linear regression whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from otoscope.store import ConfigError, NoiseScaleEstimator, noise_scale, noise_series
from otoscope.store.noise import fieller, student

DIMENSIONS, GRADIENT_SQ, TRACE = 20, 1.643, 54.5
SCALE = TRACE / GRADIENT_SQ
SEEDS = 200


def squares(
    seed: int, steps: int, big: int, groups: int = 2, dimensions: int = DIMENSIONS
) -> tuple[np.ndarray, np.ndarray]:
    """Return squared norms (groups' mean, batch) of y = xw + noise at fixed weights.

    x is standard normal, so the gradient's mean is w's error and its covariance has the trace
    (d + 1)|error|² + d s²: for d = 20 it is TRACE where the error's square is GRADIENT_SQ.
    """
    rng = np.random.default_rng(seed)
    error = np.full(dimensions, math.sqrt(GRADIENT_SQ / dimensions))
    spread = math.sqrt((TRACE - (DIMENSIONS + 1) * GRADIENT_SQ) / DIMENSIONS)
    x = rng.standard_normal((steps, big, dimensions))
    rows = x * (x @ error + spread * rng.standard_normal((steps, big)))[..., None]
    parts = rows.reshape(steps, groups, big // groups, dimensions).mean(2)
    return (parts**2).sum(-1).mean(1), (parts.mean(1) ** 2).sum(-1)


def estimates(big: int, steps: int, groups: int = 2, decay: float = 1.0) -> np.ndarray:
    found = []
    for seed in range(SEEDS):
        series = noise_series(*squares(seed, steps, big, groups), big / groups, big, decay=decay)
        found.append([column[-1] for column in series])
    return np.array(found)


@pytest.mark.parametrize(("big", "steps"), [(8, 500), (32, 70), (128, 20)])
def test_two_hundred_seeds_give_the_known_answer_and_the_interval_covers_it(
    big: int, steps: int
) -> None:
    scale, low, high, gradient_sq, trace = estimates(big, steps).T
    assert gradient_sq.mean() == pytest.approx(GRADIENT_SQ, rel=0.03)
    assert trace.mean() == pytest.approx(TRACE, rel=0.03)
    assert np.median(np.abs(scale / SCALE - 1)) < 0.1
    assert 0.90 <= np.mean((low <= SCALE) & (high >= SCALE)) <= 0.98


def test_the_interval_covers_the_truth_where_samples_are_forgotten() -> None:
    _, low, high, *_ = estimates(32, 400, groups=4, decay=0.98).T
    assert 0.90 <= np.mean((low <= SCALE) & (high >= SCALE)) <= 0.98


def test_samples_of_different_batch_sizes_are_weighed_rightly() -> None:
    found = []
    for seed in range(SEEDS):
        estimator = NoiseScaleEstimator(1.0)
        for big, groups, steps in ((32, 2, 40), (8, 2, 12), (24, 3, 12), (2, 2, 12)):
            for pair in zip(*squares(seed * 7 + big, steps, big, groups), strict=True):
                estimator.update(*pair, big / groups, big)
        found.append(estimator.estimate())
    _, low, high, gradient_sq, trace = np.array(found).T
    assert gradient_sq.mean() == pytest.approx(GRADIENT_SQ, rel=0.03)
    assert trace.mean() == pytest.approx(TRACE, rel=0.03)
    assert 0.90 <= np.mean((low <= SCALE) & (high >= SCALE)) <= 0.98


def test_where_the_gradient_drowns_in_noise_the_answer_is_undetermined_and_never_clamped() -> None:
    estimator = NoiseScaleEstimator()
    for small_sq, big_sq in zip(*squares(1, 10, 2), strict=True):
        estimator.update(small_sq * 100, big_sq * 100 - 49 * small_sq, 1, 2)
    found = estimator.estimate()
    assert math.isnan(found.scale) and math.isnan(found.low) and math.isnan(found.high)
    assert math.isfinite(found.gradient_sq) and found.trace > 0


def test_no_sample_and_few_samples_say_nothing() -> None:
    estimator = NoiseScaleEstimator()
    assert all(math.isnan(number) for number in estimator.estimate())
    for _ in range(4):
        estimator.update(4.0, 2.5, 8, 32)
        assert math.isnan(estimator.estimate().scale)
    estimator.update(4.0, 2.5, 8, 32)
    assert estimator.estimate() == pytest.approx((8, 8, 8, 2, 16), rel=1e-4)


@pytest.mark.parametrize(
    "bad",
    [
        (math.nan, 2.5, 8, 32),
        (4.0, math.inf, 8, 32),
        (4.0, 2.5, 32, 32),
        (4.0, 2.5, 33, 32),
        (4.0, 2.5, 0, 32),
        (4.0, 2.5, -8, 32),
        (4.0, 2.5, 8, math.nan),
        (4.0, 2.5, 8, math.inf),
    ],
)
def test_what_cannot_be_used_is_left_out(bad: tuple[float, float, float, float]) -> None:
    assert all(math.isnan(number) for number in noise_scale(*bad))
    estimator = NoiseScaleEstimator()
    for _ in range(5):
        estimator.update(4.0, 2.5, 8, 32)
    before = estimator.estimate()
    estimator.update(*bad)
    assert estimator.estimate() == before
    assert estimator.samples == 5


def test_one_sample_whose_gradient_is_not_above_zero_has_no_scale() -> None:
    found = noise_scale([4.0, 4.0], [2.5, 0.5], 8, 32)
    assert found.gradient_sq.tolist() == pytest.approx([2.0, -2 / 3])
    assert found.scale[0] == 8.0
    assert math.isnan(found.scale[1])


def test_a_series_says_at_each_row_what_the_estimator_says_by_then() -> None:
    small_sq, big_sq = squares(3, 600, 32)
    small_sq[[0, 20]] = math.nan
    series = noise_series(small_sq, big_sq, 16, 32, decay=0.95)
    estimator = NoiseScaleEstimator(0.95)
    for row, pair in enumerate(zip(small_sq, big_sq, strict=True)):
        estimator.update(*pair, 16, 32)
        found = [column[row] for column in series]
        np.testing.assert_allclose(found, estimator.estimate(), rtol=1e-9)


def test_an_estimator_goes_on_from_its_state() -> None:
    first, whole = NoiseScaleEstimator(0.95), NoiseScaleEstimator(0.95)
    pairs = list(zip(*squares(5, 40, 32), strict=True))
    for pair in pairs[:20]:
        first.update(*pair, 16, 32)
    second = NoiseScaleEstimator.restored(first.state())
    for place, pair in enumerate(pairs):
        whole.update(*pair, 16, 32)
        if place >= 20:
            second.update(*pair, 16, 32)
    assert second.estimate() == whole.estimate()
    assert second.samples == 40


def test_rows_that_are_means_of_many_samples_tell_about_the_same() -> None:
    covered, scales = [], []
    for seed in range(SEEDS):
        small_sq, big_sq = (x.reshape(-1, 8).mean(1) for x in squares(seed, 240, 32))
        series = noise_series(small_sq, big_sq, 16, 32, counts=8)
        scales.append(series.scale[-1])
        covered.append(series.low[-1] <= SCALE <= series.high[-1])
    assert np.median(scales) == pytest.approx(SCALE, rel=0.03)
    assert 0.90 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize("decay", [0.0, -0.1, 1.1, math.nan])
def test_a_decay_that_means_nothing_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match=r"decay must be in \(0, 1\]"):
        NoiseScaleEstimator(decay)


def test_limits_of_a_ratio_follow_the_covariance() -> None:
    # with tiny spreads Fieller's limits are those of the first-order expansion
    low, high = fieller(6.0, 3.0, 4e-6, 1e-6, 1.9e-6, 2.0)
    spread = math.sqrt(4e-6 / 36 + 1e-6 / 9 - 2 * 1.9e-6 / 18) * 2.0
    assert (high - low) / 2 == pytest.approx(2 * spread, rel=1e-3)
    assert np.isnan(fieller(6.0, 1.0, 1.0, 0.3, 0.0, 2.0)).all()


@pytest.mark.parametrize(("freedom", "quantile"), [(4, 2.77645), (9, 2.26216), (40, 2.02108)])
def test_students_quantile_is_that_of_the_tables(freedom: float, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, rel=1e-3)
