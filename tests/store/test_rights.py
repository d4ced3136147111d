"""The least rights that docs/operations.md names are enough, and are the least."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from otoscope.store import Column, Event, Frame, Judgement, Schema, Store, StoreError
from otoscope.store.identity import new_run_id
from otoscope.store.redis_home import RedisHome
from otoscope.store.rollups import Rollups

from tests.conftest import RedisProcess

pytestmark = pytest.mark.redis
DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
SCHEMA = Schema("train", (Column.of("loss"),))


def documented() -> dict[str, list[str]]:
    lines = re.findall(r"^ +ACL SETUSER (\S+) (.+)$", DOCUMENT.read_text(), re.MULTILINE)
    return {name: rights.replace(">…", ">secret").split() for name, rights in lines}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path).start()
    admin = redis.Redis.from_url(server.url)
    for name, rights in documented().items():
        admin.execute_command("ACL", "SETUSER", name, *rights)
    admin.execute_command("ACL", "SETUSER", "default", "off")
    admin.close()
    yield server
    server.stop()


def home(server: RedisProcess, user: str, password: str = "secret") -> RedisHome:
    return RedisHome(f"redis://{user}:{password}@127.0.0.1:{server.port}/0")


def test_three_users_with_the_documented_rights_do_all_there_is_to_do(
    guarded: RedisProcess,
) -> None:
    run = new_run_id("rights")
    callback = home(guarded, "otoscope-callback")
    callback.ping()
    assert callback.begin_attempt(run) == 1
    callback.write_meta(run, {"name": "rights", "heartbeat": {"0": 1.0}})
    callback.add_schema(run, SCHEMA)
    frame = Frame("train", 0, 1, 1, 1.0, SCHEMA.hash, np.ones(1, np.float32))
    callback.append(run, [frame], [Event("started")])
    callback.append(run, [frame], [Event("lr")], {"progress": {"step": 1}}, resent=True)
    assert callback.last_id(run, frame.stream) == (1, 1)
    rollups = Rollups()
    rollups.take([frame])
    callback.append(run, [], buckets=rollups.open())
    Rollups().restore(callback, run, frame.stream)
    callback.trim(run, frame.stream, 1)
    assert callback.judged_to(run) is None

    daemon = home(guarded, "otoscope-daemon")
    assert [name for name, _ in daemon.run_ids()] == [run]
    assert daemon.acquire(run, "me", 5000)
    assert len(Store(daemon).read(run, "train")) == 1
    assert len(daemon.events(run)) == 2
    assert daemon.commit(run, "me", 5000, None, Judgement("c"), [Event("excluded")])
    daemon.trim(run, frame.stream, 1)
    daemon.release(run, "me")

    page = home(guarded, "otoscope-page")
    store = Store(page)
    assert [info.id for info in store.runs()] == [run]
    assert store.run(run).name == "rights"
    assert len(store.read(run, "train")) == 1
    page.add_event(run, Event("acknowledged"))
    page.set_labels(run, {"notes": "x", "name": None})
    assert store.judgement(run).cursor == "c"
    page.delete(run)
    assert store.runs() == []


def test_a_user_without_a_right_is_told_where_they_are_listed(guarded: RedisProcess) -> None:
    callback = home(guarded, "otoscope-callback")
    with pytest.raises(StoreError, match=r"lacks a permission.*docs/operations\.md"):
        callback.delete("x")


def test_a_wrong_password_is_named_without_showing_it(guarded: RedisProcess) -> None:
    with pytest.raises(StoreError, match="refuses the user or the password") as caught:
        home(guarded, "otoscope-page", "hunter2").ping()
    assert "hunter2" not in str(caught.value)
