"""A Redis Cluster of three nodes: runs lie on different ones, each whole on one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from otoscope.diagnostics import Daemon
from otoscope.store import (
    ClusterError,
    Column,
    ConfigError,
    Event,
    Frame,
    LoginRefusedError,
    Schema,
    StoreUnavailableError,
    connect,
)
from otoscope.store.redis_home import RedisHome
from otoscope.store.replaying import replay
from otoscope.store.rights import RIGHTS, acl_rule, missing_rights

from tests.cli.conftest import record
from tests.conftest import RedisProcess
from tests.store.servers import ClusterServer

pytestmark = pytest.mark.redis
SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))
CLUSTER_RIGHTS = ["+cluster|slots", "+command"]  # what docs/operations.md adds on a cluster
RUNS = [f"clustered-{i}" for i in range(6)]
SCHEMA = Schema("train", (Column.of("loss"),))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ClusterServer]]:
    """Three nodes that know each other, with the documented users."""
    started = [ClusterServer(tmp_path_factory.mktemp("node"), slots=0).start() for _ in SLOTS]
    admins: list[Any] = [redis.Redis.from_url(node.url) for node in started]
    try:
        for admin, (first, last) in zip(admins, SLOTS, strict=True):
            admin.execute_command("CLUSTER", "ADDSLOTS", *range(first, last + 1))
            for part in RIGHTS:
                rules = [*acl_rule(part).split(), *CLUSTER_RIGHTS]
                admin.execute_command("ACL", "SETUSER", part, "on", ">secret", *rules)
        for node in started[1:]:
            admins[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        deadline = time.monotonic() + 30
        while any(admin.cluster("info")["cluster_state"] != "ok" for admin in admins):
            assert time.monotonic() < deadline, "the cluster never was whole"
            time.sleep(0.05)
        yield started
    finally:
        for node in started:
            node.stop()


def url_of(nodes: list[ClusterServer], part: str) -> str:
    return nodes[0].url.replace("redis://", f"redis+cluster://{part}:secret@")


def frame(step: int) -> Frame:
    return Frame("train", 0, 1, step, 1e9, SCHEMA.hash, np.ones(1, np.float32))


def test_runs_are_recorded_judged_read_and_deleted_on_whichever_node_they_lie(
    nodes: list[ClusterServer], tmp_path: Path
) -> None:
    tools = connect(url_of(nodes, "tools"))
    for run in RUNS:
        assert (
            replay(record(tmp_path / run, run, steps=100, bad_from=50), tools.home).samples == 100
        )
    sizes = [redis.Redis.from_url(node.url).dbsize() for node in nodes]
    daemon = Daemon(RedisHome(url_of(nodes, "daemon")), heartbeat=tmp_path / "beat")
    while daemon.tick():
        pass
    page = connect(url_of(nodes, "page"))

    assert all(sizes)
    assert sorted(info.id for info in page.runs()) == RUNS
    for run in RUNS:
        assert len(page.read(run, "train")) == 100
        assert [finding.rule for finding in page.findings(run)] == ["non_finite"]
        assert (tools.home.size(run) or 0) > 1000
        tools.home.delete(run)
    assert page.runs() == []
    assert [key for node in nodes for key in redis.Redis.from_url(node.url).keys("*")] == []


def test_a_sender_writes_batches_and_finds_its_last_id(nodes: list[ClusterServer]) -> None:
    callback = RedisHome(url_of(nodes, "callback"), faithful=True)
    for run in RUNS:
        assert callback.begin_attempt(run) == 1
        callback.add_schema(run, SCHEMA)
        assert callback.append(run, [frame(1), frame(2)], [Event("started")]) == 0
        assert callback.append(run, [frame(2), frame(3)], [Event("lr")], resent=True) == 1
        assert callback.last_id(run, frame(1).stream) == (3, 1)
        assert len(callback.events(run)) == 2
    assert missing_rights(callback)["callback"] == []
    assert callback.server["mode"] == "cluster"


def test_one_node_of_several_says_how_to_write_it(nodes: list[ClusterServer]) -> None:
    home, refused = RedisHome(nodes[0].url), []
    for run in RUNS:
        try:
            home.write_meta(run, {"name": "x"})
        except ClusterError as error:
            refused.append(str(error))
    assert refused and all("write redis+cluster://" in said for said in refused)


def test_what_is_wrong_with_a_cluster_is_told_apart(
    nodes: list[ClusterServer], redis_server: RedisProcess, free_port: int
) -> None:
    for url, kind, said in (
        (f"redis+cluster://127.0.0.1:{free_port}", StoreUnavailableError, "connection refused"),
        (url_of(nodes, "page").replace("secret", "wrong"), LoginRefusedError, "the password"),
        (redis_server.url.replace("redis:", "redis+cluster:"), ClusterError, "is no cluster"),
        (url_of(nodes, "page").removesuffix("/0") + "/1", ConfigError, "database 0 alone"),
    ):
        with pytest.raises(kind, match=said) as caught:
            connect(url)
        assert type(caught.value) is kind
        assert "secret" not in str(caught.value)


def test_a_node_that_is_gone_costs_its_own_runs_alone(nodes: list[ClusterServer]) -> None:
    callback = RedisHome(url_of(nodes, "callback"), timeout=1.0)
    for run in RUNS:
        callback.append(run, [frame(10)])
    for node in nodes[1:]:
        admin: Any = redis.Redis.from_url(node.url)
        admin.config_set("cluster-require-full-coverage", "no")
    nodes[0].kill()
    failed: list[str] = []
    for run in RUNS:
        try:
            callback.append(run, [frame(11)])
        except StoreUnavailableError:
            failed.append(run)
    assert 0 < len(failed) < len(RUNS)
