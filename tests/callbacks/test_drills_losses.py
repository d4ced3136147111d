"""Drills in which the store loses what it had acknowledged: what ring and disk hold is sent again.

The rest is a `gap` event that names exactly what is missing; checked by a second client.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from otoscope.callbacks.ring import Ring
from otoscope.diagnostics import Daemon
from otoscope.store import connect
from otoscope.store.keys import PREFIX
from otoscope.store.redis_home import RedisHome

from tests.callbacks.drills import RUN, Id, Training, assert_whole, stored, training, until
from tests.callbacks.proxy import Proxy
from tests.conftest import RedisProcess

pytestmark = pytest.mark.redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    folder = tmp_path / "redis"
    folder.mkdir()
    process = RedisProcess(folder, "--repl-diskless-sync-delay", "0").start()
    yield process
    process.stop()


def finish(drill: Training) -> None:
    assert drill.sender.flush(20)
    assert drill.sender.close()


def flush_all(server: RedisProcess) -> None:
    client = redis.Redis.from_url(server.url)
    client.flushall()
    client.close()


def missing_by_family(drill: Training, url: str) -> dict[str, set[int]]:
    lost: set[Id] = set(drill.emitted) - set(stored(url).ids)
    return {name: {s for f, s, _ in lost if f == name} for name in ("train", "gradients")}


def assert_gaps_name(drill: Training, url: str) -> None:
    """Every missing sample lies in a gap of its family, and no stored one does."""
    found = stored(url)
    for family, lost in missing_by_family(drill, url).items():
        there = {step for name, step, _ in found.ids if name == family}
        gaps = [gap for gap in found.gaps if gap["family"] == family]
        assert {gap["rank"] for gap in gaps} <= {0}
        ranges = [range(int(gap["from"]), int(gap["to"]) + 1) for gap in gaps]
        named = {step for steps in ranges for step in steps}
        assert lost <= named and not named & there
        # from the step behind the last stored one to the last that is missing
        assert not lost or int(gaps[-1]["to"]) == max(lost)


def test_a_flushed_server_is_made_whole_from_the_ring(server: RedisProcess, tmp_path: Path) -> None:
    drill = training(server.url, tmp_path)
    drill.steps(500)
    assert drill.sender.flush(20)
    flush_all(server)
    drill.steps(100, pace=0.001)
    finish(drill)
    assert_whole(drill, server.url)
    store = connect(server.url)
    assert store.meta(RUN).name == "a drill" and store.meta(RUN).attempt == 1
    assert {schema.family for schema in store.home.schemas(RUN).values()} == {"train", "gradients"}
    assert [stream.family for stream in store.home.streams(RUN)] == ["gradients", "train"]
    assert [run.id for run in store.runs()] == [RUN]
    assert list(store.read(RUN, "train", points=1000).steps) == list(range(1, 601))
    buckets = store.home.buckets(RUN, store.home.streams(RUN)[1], 1)
    assert [bucket.step for bucket in buckets] == list(range(0, 601, 8))
    store.close()


def test_what_the_ring_no_longer_holds_is_a_gap_that_names_exactly_what_is_missing(
    server: RedisProcess, tmp_path: Path
) -> None:
    drill = training(server.url, tmp_path)
    drill.sender.delivery.ring = Ring(frames=120)
    drill.steps(500)
    assert drill.sender.flush(20)
    flush_all(server)
    drill.steps(100, pace=0.001)
    finish(drill)
    found = stored(server.url)
    assert set(found.ids) < set(drill.emitted) and found.twice == []
    assert missing_by_family(drill, server.url)["train"] == set(range(1, 401))
    assert_gaps_name(drill, server.url)
    assert found.events == drill.events


def test_a_flush_while_the_server_is_refused_is_mended_too(
    server: RedisProcess, tmp_path: Path
) -> None:
    proxy = Proxy(server.port)
    drill = training(proxy.url, tmp_path)
    drill.steps(100)
    assert drill.sender.flush(20)
    proxy.target = 1  # nobody
    proxy.cut()
    drill.steps(300)
    until(lambda: drill.sender.spooled_frames > 0, "the spool")
    flush_all(server)
    proxy.target = server.port
    drill.steps(50)
    finish(drill)
    proxy.close()
    assert_whole(drill, server.url)


def test_a_flush_right_behind_another_error_keeps_what_is_rolled_up(
    server: RedisProcess, tmp_path: Path
) -> None:
    proxy = Proxy(server.port)
    drill = training(proxy.url, tmp_path)
    drill.steps(100)
    assert drill.sender.flush(20)
    proxy.cut()
    drill.steps(2)  # they complete no bucket: no tier is written to since the error
    assert drill.sender.flush(20)
    flush_all(server)
    drill.steps(100)
    finish(drill)
    proxy.close()
    assert_whole(drill, server.url)


def test_a_flush_again_and_again_is_mended_every_time(server: RedisProcess, tmp_path: Path) -> None:
    drill = training(server.url, tmp_path)
    for _ in range(10):
        drill.steps(60, pace=0.0005)
        flush_all(server)
    drill.steps(10)
    finish(drill)
    assert_whole(drill, server.url)


@pytest.mark.parametrize("quiet", [False, True], ids=["while it trains", "while nothing is sent"])
@pytest.mark.parametrize("ring", [2048, 120])
def test_a_stale_replica_gets_what_it_missed(
    server: RedisProcess, tmp_path: Path, ring: int, quiet: bool
) -> None:
    (tmp_path / "replica").mkdir()
    replica = RedisProcess(tmp_path / "replica").start()
    proxy = Proxy(server.port)
    try:
        second = redis.Redis.from_url(replica.url)
        second.replicaof("127.0.0.1", str(server.port))
        drill = training(proxy.url, tmp_path)
        drill.sender.delivery.ring = Ring(frames=ring)
        drill.steps(100)
        assert drill.sender.flush(20)
        until(lambda: set(stored(replica.url).ids) == set(drill.emitted), "the replication")
        second.replicaof("NO", "ONE")
        second.close()
        behind = len(drill.emitted)
        drill.steps(300)
        assert drill.sender.flush(20)
        if not quiet:
            drill.steps(20)
        proxy.target = replica.port
        proxy.cut()
        drill.steps(100, pace=0.001)
        finish(drill)
        if ring == 2048:
            assert_whole(drill, replica.url)
        else:
            found = stored(replica.url)
            assert set(found.ids) < set(drill.emitted) and found.twice == []
            assert set(drill.emitted[:behind]) < set(found.ids)
            assert min(missing_by_family(drill, replica.url)["train"]) > 100
            assert_gaps_name(drill, replica.url)
    finally:
        proxy.close()
        replica.stop()


@pytest.mark.parametrize("ring", [2048, 120])
def test_the_daemon_goes_on_with_a_run_whose_cursor_vanished(
    server: RedisProcess, tmp_path: Path, ring: int
) -> None:
    drill = training(server.url, tmp_path)
    drill.sender.delivery.ring = Ring(frames=ring)
    daemon = Daemon(RedisHome(server.url), heartbeat=tmp_path / "beat")
    drill.steps(300)
    assert drill.sender.flush(20)
    daemon.tick()
    flush_all(server)
    drill.steps(100)
    assert drill.sender.flush(20)
    until(lambda: bool(daemon.tick()), "a judgement after the loss")
    daemon.tick()
    found = json.loads(redis.Redis.from_url(server.url).get(f"{PREFIX}{{{RUN}}}:state") or "{}")
    assert found["state"]["place"]["step"] == 400
    finish(drill)


def test_a_gap_is_told_once_although_the_server_goes_away_in_the_middle_of_it(
    server: RedisProcess, tmp_path: Path
) -> None:
    proxy = Proxy(server.port)
    drill = training(proxy.url, tmp_path)
    drill.sender.delivery.ring = Ring(frames=120)
    drill.steps(500)
    assert drill.sender.flush(20)
    flush_all(server)
    for _ in range(4):
        drill.sender.last_error = None
        proxy.swallow()
        drill.steps(10, pace=0.002)
        until(lambda: drill.sender.last_error is not None, "the loss of a reply")
    finish(drill)
    proxy.close()
    assert len(stored(server.url).gaps) == 2
    assert_gaps_name(drill, server.url)
