"""What is read of the noise family: the estimate at each step, wherever the question begins."""

from __future__ import annotations

import numpy as np
import pytest
from otoscope.store import (
    Column,
    Frame,
    MemoryHome,
    NoiseScaleEstimator,
    Schema,
    Series,
    Store,
    StreamName,
)
from otoscope.store.exporting import select_export
from otoscope.store.identity import new_run_id
from otoscope.store.rollups import Rollups

from .test_noise import SCALE, squares

SCHEMA = Schema(
    "noise",
    (
        Column.of("small_sq", ranks="mean"),
        Column.of("big_sq"),
        Column.of("small"),
        Column.of("big"),
    ),
)
STEPS = 3000


def record(
    home: MemoryHome, tables: dict[int, np.ndarray], *, every: int = 1, cap: int | None = None
) -> str:
    """Store rows float[n, 4] of each rank, every so many steps, as a sender does."""
    run = new_run_id("noise")
    home.write_meta(run, {"name": run})
    home.add_schema(run, SCHEMA)
    for rank, table in tables.items():
        rollups = Rollups()
        rows = enumerate(np.asarray(table, np.float32))
        frames = [Frame("noise", rank, 1, 1 + i * every, 1e9, SCHEMA.hash, row) for i, row in rows]
        for first in range(0, len(frames), 256):
            part = frames[first : first + 256]
            assert home.append(run, part, buckets=rollups.take(part)) == 0
        if cap is not None:
            home.trim(run, StreamName("noise", rank, 1), frames[-cap].step)
    return run


def regression(steps: int, big: int = 32, groups: int = 2, seed: int = 4) -> np.ndarray:
    """Return recorded rows of a linear regression whose noise scale is SCALE."""
    found = squares(seed, steps, big, groups)
    sizes = np.full((2, steps), [[big / groups], [big]])
    return np.column_stack([*found, *sizes]).astype(np.float32)


def by_hand(rows: np.ndarray) -> np.ndarray:
    """Return the five estimates by the end of rows."""
    estimator = NoiseScaleEstimator()
    for row in rows.tolist():
        estimator.update(*row)
    return np.array(estimator.estimate())


ESTIMATES = ["noise_scale", "low", "high", "gradient_sq", "trace"]


def row_at(series: Series, step: int) -> np.ndarray:
    place = int(np.searchsorted(series.steps, step, side="right")) - 1
    return np.array([series.column(name)[place] for name in ESTIMATES])


def test_reading_gives_the_estimate_at_each_step_beside_what_was_recorded() -> None:
    home, rows = MemoryHome(), regression(600)
    series = Store(home).read(record(home, {0: rows}), "noise")
    assert series.columns == [*SCHEMA.names, *ESTIMATES]
    np.testing.assert_array_equal(series.values[:, :4], rows)
    for step in (1, 4, 5, 60, 600):
        np.testing.assert_allclose(row_at(series, step), by_hand(rows[:step]), rtol=1e-5)
    assert row_at(series, 600)[1] < SCALE < row_at(series, 600)[2]


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("points", [20, 1000])
def test_the_estimate_at_a_step_does_not_depend_on_where_the_question_begins(
    every: int, points: int
) -> None:
    home, rows = MemoryHome(), regression(1400)
    store, run = Store(home), record(home, {0: rows}, every=every)
    last = 1 + 1399 * every
    truth = by_hand(rows)
    for start in (None, 1, last // 2, last - 5 * every, last):
        series = store.read(run, "noise", ESTIMATES, start=start, points=points)
        assert series.columns == ESTIMATES
        np.testing.assert_allclose(row_at(series, last), truth, rtol=2e-4)


def test_what_is_asked_decides_what_is_read() -> None:
    home = MemoryHome()
    run = record(home, {0: regression(50)})
    assert Store(home).read(run, "noise", ["big_sq"]).columns == ["big_sq"]
    assert Store(home).read(run, "noise", ["trace", "small"]).columns == ["trace", "small"]


def test_a_reduced_row_holds_the_last_estimate_between_the_extremes() -> None:
    home, rows = MemoryHome(), regression(600)
    store, run = Store(home), record(home, {0: rows})
    every, series = store.read(run, "noise"), store.read(run, "noise", points=60)
    place = series.columns.index("noise_scale")
    scales = every.column("noise_scale").reshape(60, 10)
    np.testing.assert_array_equal(series.values[:, place], scales[:, -1])
    np.testing.assert_array_equal(series.low[:, place], np.fmin.reduce(scales, axis=1))
    np.testing.assert_array_equal(series.high[:, place], np.fmax.reduce(scales, axis=1))


def test_ranks_small_squares_are_averaged_and_a_step_that_one_lacks_is_left_out() -> None:
    home, both = MemoryHome(), regression(400)
    apart = np.random.default_rng(2).normal(size=400)
    first, second = both.copy(), both.copy()
    first[:, 0] += apart
    second[:, 0] -= apart
    second[:, 1] = np.nan  # the averaged gradient is recorded once
    run = record(home, {0: first, 1: second})
    np.testing.assert_allclose(
        row_at(Store(home).read(run, "noise"), 400), by_hand(both), rtol=1e-4
    )
    second[100:200, 0] = np.nan
    run = record(home, {0: first, 1: second})
    kept = np.concatenate([both[:100], both[200:]])
    np.testing.assert_allclose(
        row_at(Store(home).read(run, "noise"), 400), by_hand(kept), rtol=1e-4
    )


def test_rolled_up_history_tells_the_same_scale_and_covers_it() -> None:
    covered, scales = [], []
    for seed in range(8):
        home = MemoryHome()
        run = record(home, {0: regression(12_000, 8, seed=seed)}, cap=500)
        series = Store(home).read(run, "noise")
        assert len(series) < 2000
        for step in (4000, 8000, 11_000):
            scale, low, high, *_ = row_at(series, step)
            scales.append(scale)
            covered.append(low <= SCALE <= high)
    assert np.median(scales) == pytest.approx(SCALE, rel=0.1)
    assert sum(covered) >= 20  # 22.8 of 24 are expected


def test_another_familys_columns_of_that_name_are_let_be() -> None:
    home = MemoryHome()
    run = record(home, {})
    other = Schema("noise", (Column.of("x"),))
    home.add_schema(run, other)
    home.append(run, [Frame("noise", 0, 1, 1, 0.0, other.hash, np.ones(1, np.float32))])
    assert "noise_scale" not in Store(home).read(run, "noise", ["x"]).columns


def test_an_export_has_the_estimates() -> None:
    home = MemoryHome()
    export = select_export(Store(home), record(home, {0: regression(60)}), "noise")
    assert set(ESTIMATES) <= set(export.columns)
