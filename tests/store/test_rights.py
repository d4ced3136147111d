"""The least rights that docs/operations.md names are enough, and are the least."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from otoscope.store import Column, Event, Finding, Frame, Judgement, Schema, Store, StoreError
from otoscope.store.errors import AccessDeniedError, LoginRefusedError
from otoscope.store.identity import new_run_id
from otoscope.store.redis_home import RedisHome
from otoscope.store.replaying import replay
from otoscope.store.rights import RIGHTS, acl_rule, missing_rights
from otoscope.store.rollups import Rollups

from tests.cli.conftest import record
from tests.conftest import RedisProcess

pytestmark = pytest.mark.redis
DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
SCHEMA = Schema("train", (Column.of("loss"),))
NEEDED_ELSEWHERE = {
    "select",  # for a database other than 0
    "ping",  # `connect` asks it, and not every home below is connected
    "unwatch",  # where a judgement is not committed
}


def documented() -> dict[str, str]:
    found = re.findall(r"^ +ACL SETUSER otoscope-(\S+) on >… (.+)$", DOCUMENT.read_text(), re.M)
    return dict(found)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RedisProcess]:
    (tmp_path / "redis").mkdir()
    server = RedisProcess(tmp_path / "redis").start()
    admin: Any = redis.Redis.from_url(server.url)
    admin.execute_command("ACL", "SETUSER", "admin", "on", ">admin", "~*", "+@all")
    for part, rights in documented().items():
        admin.execute_command(
            "ACL", "SETUSER", f"otoscope-{part}", "on", ">secret", *rights.split()
        )
    admin.execute_command("ACL", "SETUSER", "default", "off")
    yield server
    server.stop()


def home(server: RedisProcess, part: str, password: str = "secret") -> RedisHome:
    return RedisHome(f"redis://otoscope-{part}:{password}@127.0.0.1:{server.port}/0")


def frame(step: int) -> Frame:
    return Frame("train", 0, 1, step, float(step), SCHEMA.hash, np.ones(1, np.float32))


def as_callback(callback: RedisHome, run: str) -> None:
    callback.ping()
    callback.tell_job("job", f"{run} 1")
    assert callback.job("job") == f"{run} 1"
    assert callback.begin_attempt(run) == 1
    callback.write_meta(run, {"name": "rights", "started": 1.0, "heartbeat": {"0": 1.0}})
    callback.add_schema(run, SCHEMA)
    rollups, frames = Rollups(), [frame(step) for step in range(1, 30)]
    callback.append(run, frames, [Event("started")], buckets=rollups.take(frames))
    callback.append(run, frames[-1:], [Event("lr")], {"progress": {"step": 29}}, resent=True)
    assert callback.last_id(run, frames[0].stream) == (29, 1)
    assert callback.judged_to(run) is None
    callback.trim(run, frames[0].stream, 5)
    assert len(Store(callback).read(run, "train")) > 20  # for the verdict


def as_daemon(daemon: RedisHome, run: str) -> None:
    assert [name for name, _ in daemon.run_ids()] == [run]
    assert daemon.acquire(run, "me", 5000)
    assert len(Store(daemon).read(run, "train"))
    assert len(daemon.events(run)) == 2
    finding = Finding("f", run, 1, "plateau", "info", "firing", "run", 1, 2, "t")
    judgement = Judgement("1:29:0-0", findings=[finding])
    assert daemon.commit(run, "me", 5000, None, judgement, [Event("excluded")])
    assert not daemon.commit(run, "me", 5000, None, Judgement("1:9:0-0"))
    daemon.trim(run, frame(1).stream, 6)
    assert daemon.server_info()["maxmemory_policy"]
    assert [info.id for info in Store(daemon).runs()] == [run]
    daemon.release(run, "me")
    assert daemon.memory() is not None and daemon.size(run)
    daemon.set_settings({"janitor": {"why": "age"}})
    daemon.delete("rights-old")


def as_page(page: RedisHome, run: str) -> None:
    store = Store(page)
    assert [info.id for info in store.runs()] == [run]
    assert store.run(run).name == "rights"
    assert len(store.read(run, "train"))
    page.add_event(run, Event("acknowledged"))
    page.set_labels(run, {"notes": "x", "name": None})
    assert store.judgement(run).cursor == "1:29:0-0"
    assert page.server_info()["used_memory"]
    page.delete(run)
    assert store.runs() == []


def as_tools(tools: RedisHome, folder: Path) -> None:
    folder = record(folder, "rights-replayed", steps=40)
    assert replay(folder, tools).samples == 40
    store = Store(tools)
    assert store.resolve("rights-rep") == store.runs()[0].id == "rights-replayed"
    assert store.judgement("rights-replayed").cursor is None
    assert len(store.read("rights-replayed", "train"))
    assert (tools.size("rights-replayed") or 0) > 1000
    assert tools.server_info()["redis_version"]
    tools.trim("rights-replayed", frame(1).stream, 2)
    tools.delete("rights-replayed")


def test_each_part_does_all_it_has_to_with_its_rights_and_uses_every_one_of_them(
    guarded: RedisProcess, tmp_path: Path
) -> None:
    admin: Any = redis.Redis.from_url(guarded.url.replace("//", "//admin:admin@"))
    run = new_run_id("rights")
    parts: dict[str, Callable[[RedisHome], None]] = {
        "callback": lambda home: as_callback(home, run),
        "daemon": lambda home: as_daemon(home, run),
        "page": lambda home: as_page(home, run),
        "tools": lambda home: as_tools(home, tmp_path / "recording"),
    }
    for part, act in parts.items():
        admin.config_resetstat()
        act(home(guarded, part))
        stats = admin.info("commandstats")
        used = {name.removeprefix("cmdstat_").partition("|")[0] for name in stats}
        granted = {right.partition("|")[0] for right in RIGHTS[part]}
        assert granted - used - NEEDED_ELSEWHERE == set(), part
    assert set(parts) == set(RIGHTS)


def test_the_documented_rights_are_those_that_the_doctor_asks_for() -> None:
    assert documented() == {part: acl_rule(part) for part in RIGHTS}


def test_what_a_user_may_not_do_is_told_by_part_and_nothing_is_done(guarded: RedisProcess) -> None:
    assert missing_rights(home(guarded, "callback"))["callback"] == []
    assert missing_rights(home(guarded, "page")) == {
        "callback": ["set", "hincrby", "sadd", "zadd", "xtrim"],
        "daemon": ["watch", "unwatch", "memory|usage", "set", "xtrim"],
        "page": [],
        "tools": ["memory|usage", "sadd", "zadd", "xtrim"],
    }
    admin: Any = redis.Redis.from_url(guarded.url.replace("//", "//admin:admin@"))
    assert admin.dbsize() == 0
    admin.execute_command("ACL", "SETUSER", "nobody", "on", ">pw", "~*", "-@all", "+hset")
    nobody = RedisHome(guarded.url.replace("//", "//nobody:pw@"))
    assert missing_rights(nobody) == {part: ["multi"] for part in RIGHTS}
    assert admin.dbsize() == 0


def test_rights_to_other_keys_are_not_enough(guarded: RedisProcess) -> None:
    admin: Any = redis.Redis.from_url(guarded.url.replace("//", "//admin:admin@"))
    admin.execute_command("ACL", "SETUSER", "other", "on", ">pw", "~other:*", "+@all")
    other = RedisHome(guarded.url.replace("//", "//other:pw@"))
    assert "xadd" in missing_rights(other)["callback"]
    with pytest.raises(AccessDeniedError, match="lacks a permission"):
        other.begin_attempt("x")


def test_a_user_without_a_right_is_told_where_they_are_listed(guarded: RedisProcess) -> None:
    callback = home(guarded, "callback")
    with pytest.raises(StoreError, match=r"lacks a permission.*docs/operations\.md"):
        callback.delete("x")


def test_a_wrong_password_is_named_without_showing_it(guarded: RedisProcess) -> None:
    with pytest.raises(LoginRefusedError, match="refuses the user or the password") as caught:
        home(guarded, "page", "hunter2").ping()
    assert "hunter2" not in str(caught.value)
