"""Reading from tiers against numpy on the full data, which no store has any more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from otoscope.store import (
    Column,
    Frame,
    Home,
    MemoryHome,
    Schema,
    Series,
    Store,
    StreamName,
    connect,
)
from otoscope.store.buckets import TIERS, bucket_steps
from otoscope.store.identity import new_run_id
from otoscope.store.recording_sink import RecordingSink
from otoscope.store.redis_home import RedisHome
from otoscope.store.retention import Retention
from otoscope.store.rollups import Rollups
from otoscope.store.tiers import Extent, Span, choose_levels, pieces

SCHEMA = Schema(
    "train",
    (
        Column.of("loss", ranks="mean"),
        Column.of("samples", ranks="sum"),
        Column.of("grad_sq"),
        Column.of("wait_seconds", ranks="each"),
    ),
)
CAP = 2000


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        return MemoryHome()
    return RedisHome(request.getfixturevalue("redis_url"))


@dataclass
class Truth:
    """All that a run ever recorded of one rank and attempt: steps int64[n], rows float32[n, c]."""

    steps: np.ndarray
    rows: np.ndarray

    def of(self, first: int, last: int) -> np.ndarray:
        return self.rows[(self.steps >= first) & (self.steps <= last)].astype(np.float64)


def record(
    home: Home, run: str, steps: range, *, rank: int = 0, attempt: int = 1, ended: bool = False
) -> Truth:
    """Store a stream as a sender does, with small caps: most of its raw is gone afterwards."""
    rng = np.random.default_rng([rank, attempt, len(steps)])
    rows = np.exp(rng.normal(size=(len(steps), len(SCHEMA.columns)))).astype(np.float32)
    rollups, retention = Rollups(), Retention(cap=CAP)
    frames = [
        Frame("train", rank, attempt, step, 1e9 + step, SCHEMA.hash, row)
        for step, row in zip(steps, rows, strict=True)
    ]
    home.write_meta(run, {"name": run})
    home.add_schema(run, SCHEMA)
    for first in range(0, len(frames), 250):
        part = frames[first : first + 250]
        assert home.append(run, part, buckets=rollups.take(part)) == 0
        retention.note(part)
        retention.enforce(home, run)
    if ended:
        home.append(run, [], buckets=rollups.open())
    return Truth(np.array(steps), rows)


def check(series: Series, truth: Truth, start: int, stop: int, column: str = "loss") -> None:
    """Every row is the mean and the extremes of the samples up to the next row."""
    place = SCHEMA.names.index(column)
    j = series.columns.index(column)
    assert (np.diff(series.steps) > 0).all()
    ends = [*(series.steps[1:] - 1), max(stop, int(series.steps[-1]))]
    for i, (first, last) in enumerate(zip(series.steps, ends, strict=True)):
        lasts = {int(last)}
        if i == len(ends) - 1:  # cut inside of a bucket of which nothing finer is left: it is whole
            lasts |= {int(last) | (bucket_steps(tier) - 1) for tier in TIERS}
        parts = [truth.of(first, end)[:, place] for end in sorted(lasts)]
        found = (float(series.values[i, j]), series.low[i, j], series.high[i, j])
        expected = [
            (part.mean(), part.min().astype(np.float32), part.max().astype(np.float32))
            for part in parts
        ]
        assert any(
            found[0] == pytest.approx(mean, rel=2e-6) and found[1:] == (low, high)
            for mean, low, high in expected
        ), (first, last, found, expected)
        assert series.times[i] == 1e9 + first


def test_any_range_of_a_long_run_reads_as_numpy_has_it(home: Home) -> None:
    run, store = new_run_id("long"), Store(home)
    truth = record(home, run, range(1, 40_001))
    assert home.frames(run, home.streams(run)[0], count=1)[0].step > 30_000
    rng = np.random.default_rng(3)
    ranges = [(1, 40_000), (39_999, 40_000), (38_500, 39_100), (4_096, 8_191), (1, 4_095)]
    ranges += [tuple(sorted(rng.integers(1, 40_000, 2).tolist())) for _ in range(40)]
    for start, stop in ranges:
        series = store.read(run, "train", ["loss"], start=start, stop=stop, points=128)
        assert len(series) >= 1
        check(series, truth, start, stop)
        assert start - 4096 < series.steps[0] <= max(start, 1)
        if stop - start >= 36_000:
            assert 128 <= len(series) <= 1024


def test_raw_answers_where_it_is_still_there_and_many_points_are_asked_for(home: Home) -> None:
    run, store = new_run_id("long"), Store(home)
    truth = record(home, run, range(1, 12_001))
    series = store.read(run, "train", ["loss"], start=10_500, points=1400)
    assert series.steps.tolist() == list(range(10_500, 12_001))
    np.testing.assert_array_equal(series.values[:, 0], truth.of(10_500, 12_000)[:, 0])
    assert series.low is series.values
    rolled = store.read(run, "train", ["loss"], start=10_500, points=100)
    assert 100 <= len(rolled) < 250
    check(rolled, truth, 10_500, 12_000)


def test_a_live_run_shows_its_newest_step(home: Home) -> None:
    run = new_run_id("live")
    for last in (5001, 5007, 5008, 5119, 5120):
        run = new_run_id("live")
        truth = record(home, run, range(1, last + 1))
        series = Store(home).read(run, "train", ["loss"], points=128)
        check(series, truth, 1, last)
        size = len(truth.of(int(series.steps[-1]), last))
        assert truth.steps[-1] == last
        assert size <= 64  # the open end is no longer than a bucket


def test_a_later_attempt_cuts_an_earlier_one_inside_of_a_bucket(home: Home) -> None:
    run, store = new_run_id("resumed"), Store(home)
    first = record(home, run, range(1, 9_001), ended=True)
    second = record(home, run, range(8_603, 16_001), attempt=2)
    rows = np.concatenate([first.rows[:8_602], second.rows])
    whole = Truth(np.arange(1, 16_001), rows)
    check(store.read(run, "train", ["loss"], points=200), whole, 1, 16_000)
    check(store.read(run, "train", ["loss"], start=8_000, stop=9_500), whole, 8_000, 9_500)
    # the cut lies before all raw and all buckets of 8 steps of the first attempt
    third = record(home, run, range(103, 200), attempt=3)
    series = store.read(run, "train", ["loss"], points=128)
    assert series.steps[-1] == 199
    assert (np.diff(series.steps) > 0).all()
    there = series.steps >= 103
    np.testing.assert_array_equal(series.values[there, 0], third.rows[:, 0])
    before = store.read(run, "train", ["loss"], attempt=1, points=128)
    check(before, first, 1, 9_000)


def test_ranks_are_combined_from_their_buckets(home: Home) -> None:
    run, store = new_run_id("ranks"), Store(home)
    truths = [record(home, run, range(1, 12_001), rank=rank) for rank in (0, 1)]
    both = np.stack([truth.rows for truth in truths]).astype(np.float64)
    series = store.read(run, "train", points=128)
    assert series.columns[-3:] == ["wait_seconds@0", "wait_seconds@1", "grad_norm"]
    ends = [*(series.steps[1:] - 1), 12_000]
    for i, (a, b) in enumerate(zip(series.steps, ends, strict=True)):
        part = both[:, a - 1 : b]
        row = dict(
            zip(
                series.columns,
                zip(series.values[i], series.low[i], series.high[i], strict=True),
                strict=True,
            )
        )
        assert row["loss"][0] == pytest.approx(part[:, :, 0].mean(), rel=1e-5)
        assert row["samples"][0] == pytest.approx(part[:, :, 1].sum(0).mean(), rel=1e-5)
        sums = part[:, :, 1].sum(0)
        assert row["samples"][1] <= sums.min() * (1 + 1e-6)  # bounds of what no rank knows alone
        assert row["samples"][2] >= sums.max() * (1 - 1e-6)
        assert row["wait_seconds@1"][2] == part[1, :, 3].max().astype(np.float32)
        norm = math.sqrt(part[0, :, 2].mean())
        assert row["grad_norm"][0] == pytest.approx(norm, rel=1e-5)
        assert row["grad_norm"][1] == pytest.approx(math.sqrt(part[0, :, 2].min()), rel=1e-6)
        assert row["grad_norm"][2] == pytest.approx(math.sqrt(part[0, :, 2].max()), rel=1e-6)
    (one,) = [store.read(run, "train", ["wait_seconds"], rank=1, points=128)]
    check(one, truths[1], 1, 12_000, "wait_seconds")


@pytest.mark.parametrize("ranks", [1, 2])
def test_means_of_what_is_measured_rarely_weigh_what_was_measured(home: Home, ranks: int) -> None:
    run, store = new_run_id("sampled"), Store(home)
    home.write_meta(run, {"name": run})
    home.add_schema(run, SCHEMA)
    values = np.random.default_rng(0).random((5_007, 4)).astype(np.float32)
    values[np.arange(len(values)) % 7 != 0, 2] = math.nan
    for rank in range(ranks):
        rollups = Rollups()
        frames = [
            Frame("train", rank, 1, step, 0.0, SCHEMA.hash, row)
            for step, row in enumerate(values, 1)
        ]
        home.append(run, frames, buckets=rollups.take(frames))
    series = store.read(run, "train", ["grad_sq"], points=20)
    assert 20 <= len(series) < 40
    ends = [*(series.steps[1:] - 1), 5_007]
    for value, first, last in zip(series.values[:, 0], series.steps, ends, strict=True):
        assert value == pytest.approx(np.nanmean(values[first - 1 : last, 2]), rel=1e-5)


def test_a_spike_of_one_step_and_what_broke_off_are_never_hidden(home: Home) -> None:
    run = new_run_id("spike")
    home.write_meta(run, {"name": run})
    home.add_schema(run, SCHEMA)
    rollups, retention = Rollups(), Retention(cap=CAP)
    rows = np.ones((30_000, 4), np.float32)
    rows[7_000, 0], rows[9_000, 0], rows[11_000, 0] = 50.0, math.inf, -math.inf
    rows[5_000:20_000, 2] = math.nan  # not measured
    for first in range(0, len(rows), 500):
        part = [
            Frame("train", 0, 1, first + i + 1, 0.0, SCHEMA.hash, row)
            for i, row in enumerate(rows[first : first + 500])
        ]
        home.append(run, part, buckets=rollups.take(part))
        retention.note(part)
        retention.enforce(home, run)
    series = Store(home).read(run, "train", ["loss", "grad_norm"], points=128)
    assert 128 <= len(series) <= 1024
    loss, low, high = series.values[:, 0], series.low[:, 0], series.high[:, 0]
    assert np.isfinite(loss).all()
    assert (high == 50).sum() == np.isposinf(high).sum() == np.isneginf(low).sum() == 1
    np.testing.assert_array_equal(loss[np.isinf(high) | np.isinf(low)], 1.0)
    norm = series.values[:, 1]
    assert 0.4 < np.isnan(norm).mean() < 0.6
    assert (norm[~np.isnan(norm)] == 1).all()


def test_a_family_that_is_sampled_rarely_keeps_its_own_steps(home: Home) -> None:
    run = new_run_id("rare")
    truth = record(home, run, range(500, 1_000_000, 500))
    series = Store(home).read(run, "train", ["loss"], points=1000)
    assert len(series) >= 1000
    assert set(series.steps.tolist()) <= set(truth.steps.tolist())
    check(series, truth, 500, 1_000_000)


def extents(*levels: tuple[int, int, int] | None) -> tuple[Extent | None, ...]:
    made = [Extent(*level) if level else None for level in levels]
    raw = made[0]
    made[0] = Extent(raw.begin, raw.first, raw.last, raw.last - raw.first + 1) if raw else None
    return (*made, *([None] * (5 - len(made))))


LONG = extents(
    (991_809, 991_809, 1_000_000),
    (991_808, 991_808, 999_999),
    (934_464, 934_464, 999_999),
    (475_648, 475_648, 999_935),
    (0, 1, 999_423),
)


@pytest.mark.parametrize(
    ("start", "stop", "points", "level"),
    [
        (1, 1_000_000, 128, 4),
        (1, 1_000_000, 1000, 4),
        (500_000, 900_000, 128, 3),
        (500_000, 1_000_000, 1000, 3),
        (940_000, 990_000, 128, 2),
        (992_000, 1_000_000, 128, 1),
        (992_000, 1_000_000, 900, 1),
        (998_500, 1_000_000, 900, 0),  # 188 buckets are too few, and raw is not all too many
        (998_500, 1_000_000, 128, 1),
        (995_000, 1_000_000, 900, 1),
        (995_000, 1_000_000, 5000, 0),
        (999_000, 1_000_000, 128, 0),
        (3_000, 4_000, 128, 4),  # nothing finer is left
    ],
)
def test_the_level_is_the_finest_that_covers_the_range_in_about_a_thousand_rows(
    start: int, stop: int, points: int, level: int
) -> None:
    assert choose_levels({1: {0: Span(LONG, start, stop)}}, points) == {1: level}


def test_many_ranks_are_read_at_a_coarser_level() -> None:
    def level(ranks: int, points: int = 1_000) -> int:
        spans = {rank: Span(LONG, 998_500, 1_000_000) for rank in range(ranks)}
        return choose_levels({1: spans}, points)[1]

    assert [level(ranks) for ranks in (1, 8, 64, 256)] == [0, 0, 0, 1]
    assert level(10_000) == 1  # 188 rows of each: no fewer than 128
    assert level(10_000, points=100_000) == 0  # an export


def test_pieces_go_from_fine_to_coarse_and_back_without_overlap() -> None:
    found = pieces(Span(LONG, 991_900, 1_000_000), 3)
    told = [(piece.level, piece.start, piece.stop) for piece in found]
    assert told == [
        (0, 991_900, 991_903),
        (1, 991_904, 991_935),
        (2, 991_936, 992_255),
        (3, 992_256, 999_935),
        (2, 999_936, 999_999),
        (0, 1_000_000, 1_000_000),
    ]
    old = pieces(Span(LONG, 5_000, 13_000), 4)
    assert [(piece.level, piece.start, piece.stop) for piece in old] == [(4, 4_096, 16_383)]


def test_a_long_recording_on_disk_is_read_by_its_tiers(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path / "long-01", "long-01")
    sink.add_schema("long-01", SCHEMA)
    values = np.ones((6_000, 4), np.float32)
    values[3_210, 0] = 9.0
    sink.append(
        "long-01",
        [Frame("train", 0, 1, s, 0.0, SCHEMA.hash, row) for s, row in enumerate(values, 1)],
    )
    sink.close()
    store = connect(tmp_path / "long-01")
    series = store.read("long-01", "train", ["loss"], points=200)
    assert 200 <= len(series) < 400
    assert (series.high[:, 0] == 9).sum() == 1
    assert len(store.home.buckets("long-01", StreamName("train", 0, 1), 1)) == 750


def test_a_bucket_whose_samples_all_lie_behind_the_range_is_no_part_of_it(home: Home) -> None:
    run, store = new_run_id("rare"), Store(home)
    truth = record(home, run, range(100, 400_000, 100))
    assert home.frames(run, home.streams(run)[0], count=1)[0].step > 150_000
    series = store.read(run, "train", ["loss"], stop=4_098)  # the next sample is that of step 4,100
    assert 3_500 < series.steps[-1] <= 4_098
    check(series, truth, 100, 4_098)


def test_parts_of_a_bucket_are_rows_of_their_own_and_count_once(home: Home) -> None:
    run = new_run_id("parts")
    home.write_meta(run, {"name": run})
    home.add_schema(run, SCHEMA)
    rollups, retention = Rollups(), Retention(cap=CAP)
    rows = np.random.default_rng(1).random((30_000, 4)).astype(np.float32)
    frames = [
        Frame("train", 0, 1, step, 1e9 + step, SCHEMA.hash, row) for step, row in enumerate(rows, 1)
    ]
    for first, last in ((0, 10_003), (10_003, 10_007), (10_007, 30_000)):
        for begin in range(first, last, 500):
            part = frames[begin : min(begin + 500, last)]
            home.append(run, part, buckets=rollups.take(part))
            retention.note(part)
            retention.enforce(home, run)
        home.append(run, [], buckets=rollups.open())  # as if the attempt had ended each time
    truth = Truth(np.arange(1, 30_001), rows)
    series = Store(home).read(run, "train", ["loss"], points=30)
    check(series, truth, 1, 30_000)
    for start, stop in ((9_000, 11_000), (10_002, 10_500), (9_990, 10_005), (10_005, 30_000)):
        part = Store(home).read(run, "train", ["loss"], start=start, stop=stop, points=128)
        check(part, truth, start, stop)
