"""The simulated week of benchmarks/week.py holds what a sender leaves in Redis, in small."""

from __future__ import annotations

import numpy as np
import pytest
from otoscope.callbacks.backlog import Batch
from otoscope.callbacks.delivery import Delivery
from otoscope.store import MemoryHome, Store, StreamName
from otoscope.store import memory as memory_module
from otoscope.store import redis_tiers as redis_module
from otoscope.store.buckets import TIERS
from otoscope.store.redis_home import RedisHome
from otoscope.store.retention import Retention

from benchmarks import week

STEPS, CAP, TIER_LENGTH = 9_000, 600, 100
RAW_NODE = 100
"""Redis cuts whole nodes of a stream: of at most a hundred entries."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "TIER_LENGTH", TIER_LENGTH)
    monkeypatch.setattr(redis_module, "TIER_LENGTH", TIER_LENGTH)
    monkeypatch.setattr(week, "LAYERS", 5)
    wide = week.Schema("gradients", week.WIDE.columns[:30])
    monkeypatch.setitem(week.SCHEMAS, "gradients", wide)
    week.block.cache_clear()


def send(home: RedisHome) -> None:
    """Store the run as a sender's delivery does."""
    home.write_meta(week.RUN, {"name": "week", "world_size": 1, "heartbeat": {"0": week.BEGUN}})
    for family, schema in week.SCHEMAS.items():
        delivery = Delivery(week.RUN)
        delivery.retention = Retention(cap=CAP)
        home.add_schema(week.RUN, schema)
        for frames in week.batches(family, STEPS):
            batch = Batch(frames=frames)
            delivery.send(home, batch, attempt=1)
            delivery.tend(home)


@pytest.mark.redis
def test_the_simulated_week_is_what_a_sender_leaves(redis_url: str) -> None:
    simulated, home = MemoryHome(), RedisHome(redis_url)
    week.train(simulated, STEPS, 1.0, CAP)
    try:
        send(home)
        assert home.streams(week.RUN) == simulated.streams(week.RUN)
        for stream in simulated.streams(week.RUN):
            frames, real = simulated.frames(week.RUN, stream), home.frames(week.RUN, stream)
            assert len(frames) <= len(real) <= len(frames) + RAW_NODE
            for frame, other in zip(frames, real[-len(frames) :], strict=True):
                assert (frame.id, frame.time, frame.schema) == (other.id, other.time, other.schema)
                np.testing.assert_array_equal(frame.values, other.values)
            for tier in TIERS:
                buckets = simulated.buckets(week.RUN, stream, tier)
                stored = home.buckets(week.RUN, stream, tier)
                assert len(buckets) <= len(stored) <= len(buckets) + RAW_NODE
                for bucket, other in zip(buckets, stored[-len(buckets) :], strict=True):
                    assert bucket.id == other.id
                    np.testing.assert_array_equal(bucket.values, other.values)
                    np.testing.assert_array_equal(bucket.n, other.n)
    finally:
        home.delete(week.RUN)


@pytest.mark.redis
def test_the_simulated_week_reads_back_as_the_full_data(redis_url: str) -> None:
    simulated, home = MemoryHome(), RedisHome(redis_url)
    week.train(simulated, STEPS, 1.0, CAP)
    try:
        week.copy(simulated, home, ranks=2)
        assert StreamName("train", 1, 1) in home.streams(week.RUN)
        held = week.Held()
        for family, start in (("gradients", 1), ("train", 1), ("train", 8_500), ("system", 1)):
            names = week.SCHEMAS[family].names
            series = Store(home).read(week.RUN, family, names, start=start, points=20)
            held.hold(series, family, STEPS, 2)
        assert held.rows > 80
        assert held.worst < 1e-6
        series.values[:, 0] += 1.0  # and what does not is told
        with pytest.raises(AssertionError):
            held.hold(series, "system", STEPS, 2)
    finally:
        home.delete(week.RUN)
