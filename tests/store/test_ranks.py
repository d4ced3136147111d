"""The state of each rank of a run, and whose slowness the waits tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from otoscope.store import MemoryHome, Meta, Store
from otoscope.store.ranks import lost_ranks, rank_states
from otoscope.store.redis_home import RedisHome
from otoscope.store.waits import own_waits, slowest_rank

NOW = 10_000.0


def meta(*ages: float | None, world: int = 0, **fields: Any) -> Meta:
    """A run that began 1,000 s ago, with ranks that were heard of so many seconds ago."""
    beats = {str(rank): NOW - age for rank, age in enumerate(ages) if age is not None}
    told = {"began": NOW - 1000, "progress": {"step_seconds": 0.1}, **fields}
    return Meta(world_size=world or len(ages), heartbeat=beats, **told)


def test_a_rank_is_live_then_stale_then_lost() -> None:
    states = rank_states(meta(1.0, 14.9, 15.1, 59.9, 60.1), NOW)
    assert list(states.values()) == ["live", "live", "stale", "stale", "lost"]


def test_long_steps_are_no_silence() -> None:
    slow: Any = {"progress": {"step_seconds": 30.0}}
    assert set(rank_states(meta(1.0, 89.0, **slow), NOW).values()) == {"live"}
    assert rank_states(meta(1.0, 299.0, **slow), NOW)[1] == "stale"
    assert rank_states(meta(1.0, 301.0, **slow), NOW)[1] == "lost"


def test_a_rank_that_never_told_anything_is_unheard_and_not_lost() -> None:
    found = meta(1.0, None)
    assert rank_states(found, NOW)[1] == "unheard"
    assert lost_ranks(found, NOW) == []


def test_what_a_rank_told_in_an_earlier_attempt_counts_no_more() -> None:
    found = meta(1.0, 1500.0, 1.0, 1004.0, left={"2": NOW - 1200})
    # the last one began a moment before rank 0, and was killed at once
    assert list(rank_states(found, NOW).values()) == ["live", "unheard", "live", "lost"]


@pytest.mark.parametrize("how", ["finished", "failed"])
def test_a_rank_that_had_not_left_when_its_run_ended_is_lost_however_short_its_silence(
    how: str,
) -> None:
    ended = {"attempt": 1, "how": how, "t": NOW - 20}
    found = meta(20.0, 21.0, 22.0, ended=ended, left={"0": NOW - 20, "1": NOW - 20.5})
    assert list(rank_states(found, NOW).values()) == ["left", "left", "lost"]
    assert lost_ranks(found, NOW) == [2]
    assert lost_ranks(found, NOW - 6) == []  # it may be about to say so


def test_a_run_that_fell_silent_as_a_whole_lost_no_single_rank() -> None:
    assert lost_ranks(meta(100.0, 101.0), NOW) == []
    assert lost_ranks(meta(1.0, 101.0), NOW) == [1]


def test_ranks_that_a_smaller_world_no_longer_has_are_not_missed() -> None:
    assert rank_states(meta(1.0, 500.0, 500.0, world=2), NOW) == {0: "live", 1: "lost"}
    assert rank_states(meta(1.0, 500.0, world=1), NOW) == {}
    assert rank_states(meta(1.0, 500.0, began=0.0), NOW) == {}  # recorded before ranks told of it


@pytest.mark.parametrize("kind", ["memory", pytest.param("redis", marks=pytest.mark.redis)])
def test_the_list_of_runs_names_lost_ranks(kind: str, request: pytest.FixtureRequest) -> None:
    home = MemoryHome() if kind == "memory" else RedisHome(request.getfixturevalue("redis_url"))
    run = f"lost-ranks-{kind}"
    home.begin_attempt(run)
    found = meta(1.0, 100.0, 1.0)
    for rank, beat in found.heartbeat.items():  # each rank tells for itself
        home.write_meta(run, {"heartbeat": {rank: beat}})
    home.write_meta(run, {"name": "lost", "world_size": 3, "began": found.began})
    home.write_meta(run, {"left": {"2": NOW - 1}})
    store = Store(home, clock=lambda: NOW)
    assert store.run(run).lost_ranks == [1]
    assert [row.lost_ranks for row in store.runs() if row.id == run] == [[1]]
    assert store.meta(run).left == {"2": NOW - 1}
    home.delete(run)
    home.close()


def test_the_step_behind_a_long_measurement_tells_nothing_of_the_ranks() -> None:
    steps = np.array([1, 2, 3, 4, 8, 9])
    waits = np.array([[0.02, 0.001]] * 6)
    waits[2] = [0.0, 0.03]  # rank 0 came late: it had run the model for the curvature
    spent = np.full((6, 2), 1e-4)
    spent[1, 0] = 0.05
    spent[3, 0] = 0.05  # what followed it was not recorded
    found = own_waits(steps, waits, spent, np.full((6, 2), 0.025))
    assert np.flatnonzero(np.isnan(found[:, 0])).tolist() == [2]
    assert slowest_rank(np.nanmedian(found, axis=0), np.array([0.025, 0.025])) == 1
    assert own_waits(steps[:0], waits[:0], spent[:0], spent[:0]).shape == (0, 2)


def test_nobody_is_slow_where_waits_are_alike_or_unknown() -> None:
    seconds = np.full(3, 0.1)
    assert slowest_rank(np.array([0.010, 0.011, 0.012]), seconds) is None
    assert slowest_rank(np.array([np.nan, 0.011, np.nan]), seconds) is None
    assert slowest_rank(np.array([np.nan, 0.001, 0.05]), seconds) == 1
