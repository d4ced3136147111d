"""What the page is told of the ranks of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from otoscope.dashboard.delta import delta
from otoscope.dashboard.ranks import rank_rows
from otoscope.store import Column, Frame, MemoryHome, Schema, Store, StreamName

RUN = "two-ranks"
NOW = 1e9
NAMES = ("wait_seconds", "overhead_seconds", "step_seconds")
TRAIN = Schema("train", tuple(Column.of(name, unit="s", ranks="each") for name in NAMES))


def recorded(world: int, steps: int = 41) -> Store:
    """A run in which rank 1 is slow, and rank 0 measured something behind every second step."""
    home = MemoryHome()
    home.begin_attempt(RUN)
    home.add_schema(RUN, TRAIN)
    for rank in range(world):
        frames = []
        for step in range(1, steps + 1):
            probed, late = step % 2 == 0, step % 2 == 1
            waits = (0.0 if late else 0.020) if rank != 1 else 0.030 if late else 0.001
            values = [waits, 0.05 if probed and rank == 0 else 0.0001, 0.025]
            frames.append(
                Frame("train", rank, 1, step, NOW, TRAIN.hash, np.array(values, np.float32))
            )
        home.append(RUN, frames)
    home.write_meta(
        RUN,
        {
            "name": "two",
            "world_size": world,
            "began": NOW - 500,
            "heartbeat": {
                str(rank): NOW - (100 if rank == world - 1 else 1) for rank in range(world)
            },
        },
    )
    return Store(home, clock=lambda: NOW)


def test_each_rank_is_told_with_its_state_and_its_pace() -> None:
    rows = delta(recorded(3), RUN, clock=lambda: NOW)["run"]["ranks"]
    assert [(row["rank"], row["state"]) for row in rows] == [(2, "lost"), (0, "live"), (1, "live")]
    assert [row["age_seconds"] for row in rows] == [100, 1, 1]
    assert {row["step"] for row in rows} == {41}
    paces = {row["rank"]: (row["wait_seconds"], row["slowest"]) for row in rows}
    # without the steps in which the others waited for rank 0's measurement
    assert paces == {0: (0.02, False), 1: (0.001, True), 2: (0.02, False)}


def test_of_many_ranks_those_that_do_not_train_come_first_and_no_pace_is_read() -> None:
    rows = delta(recorded(100, steps=2), RUN, clock=lambda: NOW)["run"]["ranks"]
    assert len(rows) == 64
    assert (rows[0]["rank"], rows[0]["state"]) == (99, "lost")
    assert "wait_seconds" not in rows[1]


def test_the_last_steps_of_all_ranks_are_asked_in_one_round_trip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = recorded(100, steps=2)
    asked: list[int] = []
    extents = store.home.extents

    def counted(run: str, streams: Sequence[StreamName], *, tiers: bool = True) -> Any:
        asked.append(len(streams))
        return extents(run, streams, tiers=tiers)

    monkeypatch.setattr(store.home, "extents", counted)
    monkeypatch.setattr(store.home, "last_id", None)  # one a rank would be too many
    streams = store.home.streams(RUN)
    rows = rank_rows(store, store.run(RUN), store.meta(RUN), streams, NOW)
    assert asked == [64] and {row["step"] for row in rows} == {2}


def test_a_run_of_one_process_has_no_ranks_to_show() -> None:
    store = recorded(1)
    answer = delta(store, RUN, clock=lambda: NOW)
    assert answer["run"]["ranks"] == []
    assert answer["run"]["lost_ranks"] == []


def test_a_number_that_ranks_have_apart_is_shown_of_the_lowest() -> None:
    part = delta(recorded(2), RUN, clock=lambda: NOW)["series"]["train"]
    place = part["columns"].index("wait_seconds")
    assert part["values"][1][place] == 0.02
