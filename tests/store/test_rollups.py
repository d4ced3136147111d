"""Rollups against numpy on the full data, however the frames were cut into batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from otoscope.store import Frame, Home, MemoryHome, StreamName
from otoscope.store.buckets import (
    TIER_LENGTH,
    TIERS,
    Bucket,
    bucket_steps,
    decode_bucket,
    encode_bucket,
)
from otoscope.store.identity import new_run_id
from otoscope.store.redis_home import RedisHome
from otoscope.store.rollups import Rollups

STREAM = StreamName("train", 0, 1)
ONE, OTHER = "11" * 8, "22" * 8


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        return MemoryHome()
    return RedisHome(request.getfixturevalue("redis_url"))


@pytest.fixture
def run(home: Home) -> str:
    run = new_run_id("rollups")
    home.write_meta(run, {"name": "rollups"})
    return run


def frames(steps: list[int], columns: int = 3, seed: int = 0, schema: str = ONE) -> list[Frame]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(len(steps), columns)).astype(np.float32)
    return [
        Frame("train", 0, 1, step, 1e9 + step, schema, row)
        for step, row in zip(steps, rows, strict=True)
    ]


def with_faults(rows: list[Frame]) -> list[Frame]:
    """Column 0: not measured at most steps. Column 1: infinities. Column 2: whole."""
    for i, frame in enumerate(rows):
        if i % 5:
            frame.values[0] = math.nan
        if i % 7 == 3:
            frame.values[1] = math.inf if i % 2 else -math.inf
    return rows


def in_batches(rollups: Rollups, rows: list[Frame], size: int) -> list[Bucket]:
    done: list[Bucket] = []
    for first in range(0, len(rows), size):
        done += rollups.take(rows[first : first + size])
    return done


def check(buckets: list[Bucket], rows: list[Frame]) -> None:
    """Hold buckets against numpy: each of the frames that it says it covers."""
    for bucket in buckets:
        span = bucket_steps(bucket.tier)
        assert bucket.step % span == 0
        there = [f for f in rows if f.step <= bucket.last and f.step // span * span == bucket.step]
        part = there[-bucket.frames :]
        ends = [part[0].time, part[0].step, part[-1].step]
        assert [bucket.time, bucket.first, bucket.last] == ends
        values = np.stack([f.values for f in part]).astype(np.float64)
        finite = np.isfinite(values)
        columns = values.shape[1]
        np.testing.assert_array_equal(np.broadcast_to(bucket.n, columns), finite.sum(0))
        np.testing.assert_array_equal(np.broadcast_to(bucket.bad, columns), np.isinf(values).sum(0))
        np.testing.assert_array_equal(bucket.lo, np.fmin.reduce(values).astype(np.float32))
        np.testing.assert_array_equal(bucket.hi, np.fmax.reduce(values).astype(np.float32))
        for j in range(columns):
            if finite[:, j].any():
                mean = values[finite[:, j], j].mean()
                assert bucket.mean[j] == pytest.approx(mean, rel=1e-6, abs=1e-7)
            else:
                assert not math.isfinite(bucket.mean[j])


@pytest.mark.parametrize("size", [1, 7, 64, 5000])
@pytest.mark.parametrize("faults", [False, True])
def test_buckets_are_what_numpy_makes_of_their_frames(size: int, faults: bool) -> None:
    rows = frames(list(range(1, 4500)))
    rows = with_faults(rows) if faults else rows
    rollups = Rollups()
    done = in_batches(rollups, rows, size)
    counts = [sum(bucket.tier == tier for bucket in done) for tier in TIERS]
    assert counts == [562, 70, 8, 1]
    rest = rollups.open()
    assert [bucket.tier for bucket in rest] == list(TIERS)
    check(done + rest, rows)
    for tier in TIERS:
        whole = [bucket for bucket in done + rest if bucket.tier == tier]
        assert sum(bucket.frames for bucket in whole) == len(rows)
        assert [bucket.step for bucket in whole] == sorted({bucket.step for bucket in whole})


def test_a_bucket_is_given_out_with_the_frame_that_completes_it() -> None:
    rollups = Rollups()
    assert rollups.take(frames([*range(1, 7)])) == []
    assert [(b.tier, b.step, b.last) for b in rollups.take(frames([7]))] == [(1, 0, 7)]
    assert rollups.take(frames([*range(8, 15)])) == []


def test_a_family_that_is_sampled_rarely_has_buckets_of_single_frames() -> None:
    rows = frames(list(range(100, 20_000, 500)))
    rollups = Rollups()
    done = rollups.take(rows) + rollups.open()
    check(done, rows)
    finest = [bucket for bucket in done if bucket.tier == 1]
    assert len(finest) == len(rows)
    assert {bucket.values.shape for bucket in finest} == {(1, 3)}  # no larger than the frame


def test_ranks_and_families_do_not_mix() -> None:
    rows = frames([*range(8)])
    others = [Frame("noise", 3, 2, f.step, f.time, ONE, f.values * 2) for f in rows]
    mixed = [frame for pair in zip(rows, others, strict=True) for frame in pair]
    first, second = Rollups().take(mixed)
    assert [first.stream, second.stream] == [STREAM, StreamName("noise", 3, 2)]
    np.testing.assert_array_equal(second.hi, 2 * first.hi)


@pytest.mark.parametrize("size", [1, 50])
def test_a_changed_schema_ends_the_buckets_and_begins_parts_of_them(size: int) -> None:
    rows = frames([*range(1, 6)]) + frames([*range(6, 20)], columns=5, schema=OTHER)
    rollups = Rollups()
    done = in_batches(rollups, rows, size) + rollups.open()
    finest = [(b.step, b.seq, b.last, b.schema == OTHER) for b in done if b.tier == 1]
    assert finest == [(0, 1, 5, False), (0, 2, 7, True), (8, 1, 15, True), (16, 1, 19, True)]
    coarsest = [(b.step, b.seq, b.frames) for b in done if b.tier == 4]
    assert coarsest == [(0, 1, 5), (0, 2, 14)]
    check(done, rows)


@pytest.mark.parametrize("values", [(1, 1, 1), (1, 2, 3), (300, 2, 3), (70_000, 0, 0)])
def test_a_bucket_comes_back_from_its_bytes(values: tuple[int, ...]) -> None:
    matrix = np.array([[math.nan, -math.inf, 0.5], [1, 2, 3], [4, math.inf, 6]], np.float32)
    counts = np.array(values, np.int64)
    bucket = Bucket("train", 0, 1, 2, 128, ONE, 1e9, 130, 191, 64, matrix, counts, counts[::-1])
    back = decode_bucket(STREAM, 2, 128, 1, *encode_bucket(bucket))
    assert (back.id, back.first, back.last, back.frames, back.time, back.schema) == (
        (128, 1), 130, 191, 64, 1e9, ONE,
    )  # fmt: skip
    np.testing.assert_array_equal(back.values, matrix)
    np.testing.assert_array_equal(np.broadcast_to(back.n, 3), values)
    np.testing.assert_array_equal(np.broadcast_to(back.bad, 3), values[::-1])


def test_a_home_keeps_buckets_once_and_gives_them_back_by_place(home: Home, run: str) -> None:
    rows = with_faults(frames([*range(1, 200)]))
    done = Rollups().take(rows)
    assert home.append(run, rows, buckets=done) == 0
    assert home.append(run, rows, buckets=done) == len(rows)  # frames refused, buckets not counted
    back = home.buckets(run, STREAM, 1)
    check(back, rows)
    assert [bucket.step for bucket in back] == list(range(0, 193, 8))
    assert [b.step for b in home.buckets(run, STREAM, 1, start=9, stop=40)] == [16, 24, 32, 40]
    assert [b.step for b in home.buckets(run, STREAM, 1, start=9, count=2)] == [16, 24]
    assert [b.step for b in home.buckets(run, STREAM, 1, count=2, latest=True)] == [184, 192]
    assert home.buckets(run, StreamName("noise", 0, 1), 1) == []
    home.delete(run)
    home.write_meta(run, {"name": "again"})
    assert home.buckets(run, STREAM, 1) == []


def test_the_finer_tiers_keep_their_last_buckets_and_the_coarsest_all(home: Home, run: str) -> None:
    one = np.zeros((3, 1), np.float32)

    def bucket(tier: int, step: int) -> Bucket:
        return Bucket("train", 0, 1, tier, step, ONE, 0.0, step, step, 2, one, 2)

    many = TIER_LENGTH + 300
    for tier in TIERS:
        span = bucket_steps(tier)
        home.append(run, [], buckets=[bucket(tier, i * span) for i in range(many)])
    counts = [len(home.buckets(run, STREAM, tier)) for tier in TIERS]
    assert counts[3] == many
    # Redis cuts whole nodes of a stream, at most 100 entries
    assert all(TIER_LENGTH <= count <= TIER_LENGTH + 100 for count in counts[:3])


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("stop", [5, 8, 63, 70, 513, 700, 1023])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_restored_in_the_middle_of_a_bucket_nothing_is_missing_or_counted_twice(
    home: Home, run: str, stop: int, every: int, ended: bool
) -> None:
    rows = with_faults(frames(list(range(1, 1500, every))))
    before = [f for f in rows if f.step <= stop]
    rollups = Rollups()
    home.append(run, before, buckets=rollups.take(before))
    if ended:  # the attempt seemed to be over, and its last frames came later
        home.append(run, [], buckets=rollups.open())
    rollups.take(rows[len(before) :][:20])  # what the store has never seen

    rollups.restore(home, run, STREAM)
    for first in range(len(before), len(rows), 40):
        part = rows[first : first + 40]
        home.append(run, part, buckets=rollups.take(part))
    home.append(run, [], buckets=rollups.open())

    for tier in TIERS:
        back = home.buckets(run, STREAM, tier)
        assert sum(bucket.frames for bucket in back) == len(rows)
        check(back, rows)


def test_restoring_a_stream_that_is_not_there_begins_anew(home: Home, run: str) -> None:
    rollups = Rollups()
    rollups.take(frames([1, 2, 3]))
    rollups.restore(home, run, STREAM)
    (bucket,) = rollups.take(frames([4, 5, 6, 7]))
    assert (bucket.step, bucket.frames) == (0, 4)
