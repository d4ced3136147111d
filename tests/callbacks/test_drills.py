"""Drills on a real server: what was emitted and what is stored, compared as sets by a second client.

No figure of the sender itself is believed here. Everywhere the longest `emit` shows that no step
waited: it is held against the seconds for which the server was away, not against a small time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.callbacks.drills import Training, assert_whole, stored, training, until
from tests.callbacks.proxy import Proxy
from tests.conftest import RedisProcess, find_free_port

pytestmark = pytest.mark.redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    folder = tmp_path / "redis"
    folder.mkdir()
    process = RedisProcess(folder).start()
    yield process
    process.stop()


@pytest.fixture
def proxy(server: RedisProcess) -> Iterator[Proxy]:
    between = Proxy(server.port)
    yield between
    between.close()


def finish(drill: Training) -> None:
    assert drill.sender.flush(20)
    assert drill.sender.close()


def test_a_server_that_refuses_at_first_gets_everything_once_it_is_there(tmp_path: Path) -> None:
    process = RedisProcess(tmp_path, port=find_free_port())
    drill = training(process.url, tmp_path)
    begun = time.monotonic()
    drill.steps(300)
    until(lambda: drill.sender.spooled_frames == len(drill.emitted), "everything on disk")
    drill.steps(50, pace=0.002)
    away = time.monotonic() - begun
    process.start()
    try:
        drill.steps(50)
        finish(drill)
        assert_whole(drill, process.url)
        assert drill.longest < away / 2
        assert not (tmp_path / drill.sender.run).exists()
    finally:
        process.stop()


def test_a_stalled_server_holds_up_no_step_and_gets_everything(
    server: RedisProcess, tmp_path: Path
) -> None:
    drill = training(server.url, tmp_path, timeout=0.4)
    drill.steps(100)
    assert drill.sender.flush(20)
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        drill.steps(200, pace=0.005)
        until(lambda: drill.sender.last_error is not None, "a call that timed out")
    finally:
        server.process.send_signal(signal.SIGCONT)
    away = time.monotonic() - stopped
    drill.steps(50)
    finish(drill)
    assert_whole(drill, server.url)
    assert away > 0.8 and drill.longest < away / 2


def test_what_was_executed_before_its_reply_was_lost_is_stored_once(
    server: RedisProcess, proxy: Proxy, tmp_path: Path
) -> None:
    drill = training(proxy.url, tmp_path)
    for times in range(1, 6):
        drill.steps(60)
        proxy.swallow()
        drill.steps(40, pace=0.001)
        until(lambda count=times: proxy.swallowed == count, "a lost reply")
    finish(drill)
    assert_whole(drill, server.url)


def test_connections_cut_at_any_moment_lose_nothing(
    server: RedisProcess, proxy: Proxy, tmp_path: Path
) -> None:
    drill = training(proxy.url, tmp_path)
    for _ in range(10):
        drill.steps(40, pace=0.001)
        proxy.cut()
    finish(drill)
    assert_whole(drill, server.url)


def test_a_server_killed_with_its_last_second_unwritten_gets_that_second_again(
    tmp_path: Path,
) -> None:
    options = ("--appendonly", "yes", "--appendfsync", "everysec")
    process = RedisProcess(tmp_path, *options, port=find_free_port()).start()
    drill = training(process.url, tmp_path)
    drill.steps(200)
    assert drill.sender.flush(20)
    shrunk = cut_log(tmp_path, process)
    drill.steps(100)
    assert process.process is None
    process.start()
    try:
        drill.steps(50)
        finish(drill)
        assert shrunk > 0
        assert_whole(drill, process.url)
    finally:
        process.stop()


def cut_log(folder: Path, process: RedisProcess) -> int:
    """Kill a server and take the end off its log, as a power cut does; returns the bytes taken."""
    process.kill()
    (log,) = folder.glob("appendonlydir/*.incr.aof")
    size = log.stat().st_size
    os.truncate(log, size * 2 // 3)  # in the middle of a command: what a torn write leaves
    return size - log.stat().st_size


def test_a_server_out_of_memory_gets_everything_once_there_is_room(
    server: RedisProcess, tmp_path: Path
) -> None:
    drill = training(server.url, tmp_path)
    drill.steps(100)
    assert drill.sender.flush(20)
    admin = redis.Redis.from_url(server.url)
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("maxmemory", 1_000_000)
    begun = time.monotonic()
    drill.steps(1000, pace=0.0005)
    until(lambda: "memory is full" in (drill.sender.last_error or ""), "a full memory")
    until(lambda: drill.sender.spooled_frames > 0, "the spool")
    assert 0 < len(stored(server.url).ids) < len(drill.emitted)
    away = time.monotonic() - begun
    admin.config_set("maxmemory", 0)
    admin.close()
    drill.steps(50)
    finish(drill)
    assert_whole(drill, server.url)
    assert drill.longest < away / 2
