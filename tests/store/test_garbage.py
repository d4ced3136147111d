"""What somebody else wrote into the server: one odd value must not hide a run, nor all of them."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
import redis
from otoscope.dashboard.delta import delta
from otoscope.diagnostics.daemon import Daemon
from otoscope.store import Column, Event, Frame, Schema, Store, keys
from otoscope.store.identity import new_run_id
from otoscope.store.redis_home import RedisHome
from otoscope.store.rollups import Rollups

pytestmark = pytest.mark.redis

SCHEMA = Schema("train", (Column.of("loss"), Column.of("non_finite")))
SOUND = 60


@pytest.fixture
def run(redis_url: str) -> str:
    home, run = RedisHome(redis_url), new_run_id("odd")
    home.begin_attempt(run)
    home.write_meta(run, {"name": "odd", "heartbeat": {"0": 1e9}, "progress": {"step": SOUND}})
    home.add_schema(run, SCHEMA)
    frames = [
        Frame("train", 0, 1, step, 1e9 + step, SCHEMA.hash, np.array([1.0, 0.0], np.float32))
        for step in range(1, SOUND + 1)
    ]
    home.append(run, frames, [Event("started", 0, body={"world_size": 1, "start_step": 0})])
    home.close()
    return run


@pytest.fixture
def raw(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


def spoil(raw: redis.Redis, run: str) -> None:
    stream = keys.raw(run, next(iter(keys_of(run))))
    time, good = struct.pack("<d", 1e9), bytes.fromhex(SCHEMA.hash)
    odd = [
        {"x": "y"},
        {"h": good, "t": time, "v": b"abc"},
        {"h": good, "t": b"soon", "v": b"\0" * 8},
        {"h": good, "t": time, "v": b"\0" * 12},
        {"h": good, "t": time, "v": b""},
        {"h": b"unknown!", "t": time, "v": b"\0" * 8},
        {"h": b"", "t": time, "v": b"\0" * 8},
    ]
    for number, entry in enumerate(odd):
        raw.xadd(stream, entry, id=f"{SOUND + 1 + number}-1")
    for text in (b"{", b"[]", b"null", b"\xff", json.dumps({"step": 3}), json.dumps({"kind": 5})):
        raw.xadd(keys.events(run), {"e": text})
    raw.xadd(keys.events(run), {"x": "y"})
    told = {"kind": "lr", "step": "five", "attempt": None, "t": "now", "body": [], "id": 7}
    raw.xadd(keys.events(run), {"e": json.dumps(told)})
    raw.hset(keys.schema(run), mapping={"00": "{", "ffff": "[]", "\x00": '{"family": 3}'})
    raw.sadd(keys.streams(run), "train", "train:x:1", b"\xff:0:1")


def keys_of(run: str) -> list:
    return [Frame("train", 0, 1, 1, 0.0, SCHEMA.hash, np.zeros(2)).stream]


META = [
    {
        **{"ended": '{"attempt": 1, "how": "finished", "t": "soon"}', "heartbeat:1": "1e9"},
        **{"world_size": "2", "began": "1e9"},
    },
    {"heartbeat:0": '"now"'},
    {"heartbeat:0": "null", "heartbeat:x": "[]"},
    {"progress": '"far"'},
    {"progress": '{"step": "far", "loss": {}, "step_seconds": []}'},
    {"started": '"Infinity"', "max_steps": '"many"', "attempt": '"one"'},
    {"ended": "[1]", "tags": "{}", "name": "{", "world_size": "null"},
    {"optimizers": "[1]", "parameters": '["x"]', "batch_size": '"all"', "budget": "[]"},
    {"task": "7", "overhead": "3", "precision": "null", "classes": "[]"},
]


@pytest.mark.parametrize("fields", META, ids=lambda fields: ",".join(fields))
def test_odd_meta_leaves_the_run_on_the_page_and_in_the_list(
    fields: dict[Any, Any], run: str, raw: redis.Redis, redis_url: str
) -> None:
    raw.hset(keys.meta(run), mapping=dict(fields))
    store = Store(RedisHome(redis_url))
    assert run in [info.id for info in store.runs()]
    json.dumps(delta(store, run), allow_nan=False)
    Daemon(store.home).tick()
    assert "fold" not in json.dumps(store.judgement(run).state.get("verdict", ""))
    assert store.judgement(run).cursor is not None


@pytest.mark.parametrize("odd", ["5", '"old"', "{}", "[1, null]"])
def test_odd_labels_leave_the_run_in_the_list(
    run: str, redis_url: str, raw: redis.Redis, odd: str
) -> None:
    raw.hset(keys.labels(run), mapping={"tags": odd, "notes": odd, "name": odd})
    tags = {row.id: row.tags for row in Store(RedisHome(redis_url)).runs()}
    assert all(isinstance(tag, str) for tag in tags[run])


def test_odd_entries_leave_the_sound_ones_readable_and_judged(
    run: str, raw: redis.Redis, redis_url: str
) -> None:
    spoil(raw, run)
    store = Store(RedisHome(redis_url))
    series = store.read(run, "train")
    assert list(series.steps) == list(range(1, SOUND + 1))
    assert len(delta(store, run)["series"]["train"]["steps"]) == SOUND
    Daemon(store.home).tick()
    assert store.judgement(run).state["place"]["step"] >= SOUND


def test_an_id_that_is_none_does_not_hide_the_list_of_runs(
    run: str, raw: redis.Redis, redis_url: str
) -> None:
    odd: dict[Any, Any] = {"../etc": 1e12, b"\xff": 1e12, "": 5}
    raw.zadd(keys.runs(), odd)
    try:
        assert run in [info.id for info in Store(RedisHome(redis_url)).runs()]
        Daemon(RedisHome(redis_url)).tick()
    finally:
        raw.zrem(keys.runs(), *odd)


def test_a_key_of_another_type_costs_its_own_run_alone(
    run: str, raw: redis.Redis, redis_url: str
) -> None:
    home = RedisHome(redis_url)
    spoilt = {}
    for part in (keys.meta, keys.labels, keys.findings, keys.obstacles, keys.state, keys.events):
        other = new_run_id("spoilt")
        home.write_meta(other, {"name": "spoilt"})
        raw.delete(part(other))
        raw.rpush(part(other), "a list")
        spoilt[other] = part
    raw.zadd(keys.runs(), dict.fromkeys(spoilt, 2e12))
    try:
        store = Store(home)
        assert run in [info.id for info in store.runs()]
        daemon = Daemon(home)
        daemon.tick()
        assert store.judgement(run).state["place"]["step"] >= SOUND
        for other, part in spoilt.items():
            raw.delete(part(other))
            home.write_meta(other, {"name": "mended"})
        daemon.tick()
    finally:
        for other, part in spoilt.items():
            raw.delete(part(other))
            home.delete(other)


def test_a_daemon_begins_anew_where_its_state_cannot_be_read(
    run: str, raw: redis.Redis, redis_url: str
) -> None:
    home = RedisHome(redis_url)
    Daemon(home, token="first").tick()
    judged = home.judgement(run).state["place"]
    raw.delete(keys.lease(run))
    for odd in ("{", "[]", '{"state": {"version": 1}, "findings": []}', '{"state": 3}'):
        raw.set(keys.state(run), odd)
        raw.set(keys.cursor(run), "nonsense")
        raw.delete(keys.lease(run))
        Daemon(home, token=odd).tick()
        assert home.judgement(run).state["place"] == judged, odd


def test_a_run_of_nothing_but_nan_is_judged(redis_url: str) -> None:
    home, run = RedisHome(redis_url), new_run_id("nan")
    home.begin_attempt(run)
    home.write_meta(run, {"name": "nan", "progress": {"step": 200}})
    home.add_schema(run, SCHEMA)
    vector = np.array([math.nan, math.nan], np.float32)
    home.append(
        run, [Frame("train", 0, 1, step, math.nan, SCHEMA.hash, vector) for step in range(1, 201)]
    )
    Daemon(home).tick()
    store = Store(home)
    assert home.judgement(run).state["place"]["step"] >= 190
    json.dumps(delta(store, run), allow_nan=False)


def test_odd_entries_among_the_buckets_are_left_out(redis_url: str, raw: redis.Redis) -> None:
    home, run = RedisHome(redis_url), new_run_id("odd-tiers")
    home.write_meta(run, {"name": "odd"})
    home.add_schema(run, SCHEMA)
    rollups, rows = Rollups(), np.arange(8_000, dtype=np.float32).reshape(4_000, 2)
    frames = [Frame("train", 0, 1, s, 1e9 + s, SCHEMA.hash, v) for s, v in enumerate(rows, 1)]
    home.append(run, frames, buckets=rollups.take(frames))
    key, stream = keys.tier(run, frames[0].stream, 1), frames[0].stream
    before = len(home.buckets(run, stream, 1))
    head = bytes(40)
    bodies = [(b"", b""), (head, b"abc"), (head, b"\0" * 24)]
    odd: list[dict[Any, Any]] = [{"x": "y"}, *({"b": b, "v": v} for b, v in bodies)]
    for number, entry in enumerate(odd):
        raw.xadd(key, entry, id=f"{5_000 + number}-1")
    assert len(home.buckets(run, stream, 1)) == before
    # the last entry is none: what lies behind the level's end comes from raw
    after = Store(home).read(run, "train", points=100)
    assert after.steps[-1] >= 3_900
    ends = [*(after.steps[1:] - 1), 4_000]
    means = [rows[a - 1 : b, 0].mean() for a, b in zip(after.steps, ends, strict=True)]
    np.testing.assert_allclose(after.values[:, 0], means)
