"""One contract for both homes: what holds in memory holds in Redis."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from otoscope.store import (
    Column,
    ConfigError,
    Event,
    Evidence,
    Finding,
    Frame,
    Home,
    Judgement,
    MemoryHome,
    Recommendation,
    Schema,
    Store,
    StoreFullError,
    StoreUnavailableError,
    StreamName,
    UnknownRunError,
)
from otoscope.store.identity import new_run_id
from otoscope.store.redis_home import RedisHome

from tests.conftest import RedisProcess, find_free_port

SCHEMA = Schema("train", (Column.of("loss"), Column.of("grad_sq", ranks="sum")))


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        return MemoryHome()
    return RedisHome(request.getfixturevalue("redis_url"))


@pytest.fixture
def run(home: Home) -> str:
    run = new_run_id("contract")
    home.write_meta(run, {"name": "contract", "model": "Net"})
    home.add_schema(run, SCHEMA)
    return run


def frame(step: int, *values: float, rank: int = 0, attempt: int = 1, seq: int = 1) -> Frame:
    vector = np.array(values or (float(step), 1.0), np.float32)
    return Frame("train", rank, attempt, step, 1e9 + step, SCHEMA.hash, vector, seq)


TRAIN = StreamName("train", 0, 1)


def test_frames_come_back_as_they_went_in_with_nan_and_infinity(home: Home, run: str) -> None:
    home.append(run, [frame(1, math.nan, math.inf), frame(2, -math.inf, 0.1)])
    back = home.frames(run, TRAIN)
    assert [item.id for item in back] == [(1, 1), (2, 1)]
    assert back[0].time == 1e9 + 1
    assert back[0].schema == SCHEMA.hash
    np.testing.assert_array_equal(
        [item.values for item in back],
        np.array([[math.nan, math.inf], [-math.inf, 0.1]], np.float32),
    )
    assert home.schemas(run) == {SCHEMA.hash: SCHEMA}
    assert home.streams(run) == [TRAIN]


def test_a_frame_that_is_sent_again_is_refused_and_stored_once(home: Home, run: str) -> None:
    assert home.append(run, [frame(1), frame(2)]) == 0
    assert home.append(run, [frame(1), frame(2), frame(3)]) == 2
    assert [item.step for item in home.frames(run, TRAIN)] == [1, 2, 3]
    assert home.last_id(run, TRAIN) == (3, 1)
    assert home.last_id(run, StreamName("noise", 0, 1)) is None


def test_a_new_attempt_may_begin_at_an_earlier_step(home: Home, run: str) -> None:
    assert home.begin_attempt(run) == 1
    home.append(run, [frame(10)])
    assert home.begin_attempt(run) == 2
    assert home.append(run, [frame(5, attempt=2)]) == 0
    assert home.meta(run).attempt == 2


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ({}, [1, 2, 3, 5, 8]),
        ({"start": 2}, [2, 3, 5, 8]),
        ({"stop": 5}, [1, 2, 3, 5]),
        ({"start": 3, "stop": 4}, [3]),
        ({"after": (3, 1)}, [5, 8]),
        ({"after": (3, 0)}, [3, 5, 8]),
        ({"after": (3, 1), "start": 1}, [5, 8]),
        ({"after": (1, 1), "start": 5}, [5, 8]),
        ({"after": (1, 1), "count": 2}, [2, 3]),
        ({"stop": -1}, []),
    ],
)
def test_frames_can_be_asked_by_place(home: Home, run: str, asked: dict, steps: list[int]) -> None:
    home.append(run, [frame(step) for step in (1, 2, 3, 5, 8)])
    assert [item.step for item in home.frames(run, TRAIN, **asked)] == steps


def test_the_latest_frames_come_in_order(home: Home, run: str) -> None:
    home.append(run, [frame(step) for step in (1, 2, 3)])
    assert [item.step for item in home.latest(run, TRAIN, 2)] == [2, 3]
    assert home.latest(run, StreamName("noise", 0, 1)) == []
    assert home.latest(run, TRAIN, 0) == []


def test_an_event_that_is_sent_again_is_stored_once(home: Home, run: str) -> None:
    started, lr = Event("started", body={"world_size": 1}), Event("lr", step=5)
    home.append(run, [], [started])
    home.append(run, [], [started, lr], resent=True)
    rows = home.events(run)
    assert [event.kind for _, event in rows] == ["started", "lr"]
    assert rows[0][1] == started
    assert [event.kind for _, event in home.events(run, after=rows[0][0])] == ["lr"]
    assert [event.kind for _, event in home.events(run, count=1)] == ["started"]


def test_meta_is_merged_rank_by_rank(home: Home, run: str) -> None:
    home.write_meta(run, {"heartbeat": {"0": 1.5}, "max_steps": 100})
    home.append(run, [frame(1)], fields={"heartbeat": {"1": 2.5}, "clock_offset": {"1": 0.1}})
    meta = home.meta(run)
    assert meta.heartbeat == {"0": 1.5, "1": 2.5}
    assert meta.clock_offset == {"1": 0.1}
    assert (meta.name, meta.model, meta.max_steps) == ("contract", "Net", 100)


def test_labels_can_be_set_and_taken_away(home: Home, run: str) -> None:
    assert home.labels(run) == {}
    home.set_labels(run, {"name": "baseline", "tags": ["a"], "closed": True})
    home.set_labels(run, {"closed": None})
    assert home.labels(run) == {"name": "baseline", "tags": ["a"]}


def test_a_deleted_run_is_gone_wholly(home: Home, run: str) -> None:
    home.append(run, [frame(1)], [Event("started")])
    assert run in [name for name, _ in home.run_ids()]
    home.delete(run)
    assert run not in [name for name, _ in home.run_ids()]
    with pytest.raises(UnknownRunError, match="otoscope runs"):
        home.meta(run)
    home.write_meta(run, {"name": "again"})
    assert home.streams(run) == []
    assert home.append(run, [frame(1)]) == 0
    assert home.streams(run) == [TRAIN]


def finding(name: str) -> Finding:
    return Finding(
        id=name,
        run="r",
        attempt=1,
        rule="plateau",
        severity="warning",
        state="firing",
        scope="run",
        first_step=10,
        last_step=20,
        title="Stuck",
        because=[Evidence("loss is flat", "train", "loss", 20, 1.0, 0.5)],
        recommendation=Recommendation("lr", 0.1, 0.03, [0.02, 0.04], "derived"),
    )


def test_a_judgement_is_committed_by_who_holds_the_lease_from_the_cursor_it_read(
    home: Home, run: str
) -> None:
    mine = Judgement("c1", {"n": 1}, [finding("b"), finding("a")], {"noise": {"measured": False}})
    assert not home.commit(run, "me", 5000, None, mine)  # no lease yet
    assert home.acquire(run, "me", 5000)
    assert home.acquire(run, "me", 5000)  # keeps it
    assert not home.acquire(run, "other", 5000)
    assert home.commit(run, "me", 5000, None, mine, [Event("excluded", step=3)])
    assert home.judgement(run) == mine
    assert [event.kind for _, event in home.events(run)] == ["excluded"]
    assert not home.commit(run, "me", 5000, None, Judgement("c9"))  # another cursor by now
    assert not home.commit(run, "other", 5000, "c1", Judgement("c9"))
    assert home.commit(run, "me", 5000, "c1", Judgement("c2", {}, [finding("a")]))
    assert [item.id for item in home.judgement(run).findings] == ["a"]


def test_a_lease_that_is_released_can_be_taken_by_another(home: Home, run: str) -> None:
    assert home.acquire(run, "me", 60_000)
    home.release(run, "other")
    assert not home.acquire(run, "other", 1000)
    home.release(run, "me")
    assert home.acquire(run, "other", 1000)


def test_a_lease_runs_out(home: Home, run: str) -> None:
    assert home.acquire(run, "me", 1)
    for _ in range(1000):
        if home.acquire(run, "other", 5000):
            break
    assert home.acquire(run, "other", 5000)
    assert not home.commit(run, "me", 1000, None, Judgement("c1"))


@pytest.mark.parametrize("run", ["", "UPPER", "a:b", "a" * 81, "../x", "{x}", "-a", "a\n"])
def test_a_run_id_that_could_reach_other_keys_is_refused(home: Home, run: str) -> None:
    with pytest.raises(ConfigError, match="run id must match"):
        home.write_meta(run, {"name": "x"})


@pytest.mark.redis
def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    home = RedisHome(f"redis://me:secret@127.0.0.1:{find_free_port()}/0", timeout=0.5)
    with pytest.raises(StoreUnavailableError) as caught:
        home.ping()
    assert "secret" not in str(caught.value)
    assert "me:***@127.0.0.1" in str(caught.value)
    assert "otoscope up" in str(caught.value)


@pytest.mark.redis
def test_a_full_server_refuses_a_batch_whole(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    server.start()
    try:
        home = RedisHome(server.url)
        run = new_run_id("full")
        home.write_meta(run, {"name": "full"})
        wide = np.zeros(1000, np.float32)
        stored = 0
        with pytest.raises(StoreFullError, match="memory is full"):
            for step in range(1, 5000, 2):
                pair = [Frame("train", 0, 1, step + i, 0.0, SCHEMA.hash, wide) for i in (0, 1)]
                home.append(run, pair)
                stored += 2
        assert len(home.frames(run, TRAIN)) == stored
    finally:
        server.stop()


def test_the_list_of_runs_shows_what_each_run_shows_alone(home: Home) -> None:
    runs = [new_run_id("card") for _ in range(3)]
    for i, run in enumerate(runs):
        home.write_meta(run, {"name": f"run {i}", "heartbeat": {"0": 1000.0 + i}})
        home.write_meta(run, {"progress": {"step": i, "loss": None}, "parameters": [{"name": "w"}]})
        home.set_labels(run, {"notes": str(i)})
        home.acquire(run, "me", 5000)
        home.commit(run, "me", 5000, None, Judgement("c", {}, [finding("a")]))
    store = Store(home, clock=lambda: 1001.0)
    rows = [info for info in store.runs() if info.id in runs]
    alone = [store.run(run).to_json() for run in runs]
    assert sorted((row.to_json() for row in rows), key=lambda row: row["name"]) == alone
    assert {row.id: (row.notes, row.step, row.open["warning"]) for row in rows} == {
        run: (str(i), i, 1) for i, run in enumerate(runs)
    }
