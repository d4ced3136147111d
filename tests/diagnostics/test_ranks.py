"""Several ranks in one judgement: silent, late, lost and partial ones, and other numbers of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from otoscope.diagnostics import Daemon, judge, summary
from otoscope.diagnostics.fold import Fold
from otoscope.diagnostics.judging import fold_run
from otoscope.diagnostics.silence import Silence
from otoscope.store import Column, Event, Frame, MemoryHome, Meta, Schema, Store
from otoscope.store.schemas import Json, dumps

from .clock import Clock

RUN = "ranks-01"
TRAIN = Schema(
    "train",
    (
        Column.of("loss", ranks="mean"),
        Column.of("samples", ranks="sum"),
        Column.of("non_finite", ranks="sum"),
    ),
)
SHARDS = Schema("gradients", (Column.of("grad_sq", layer="a", group="weight", ranks="sum"),))


def train(rank: int, steps: range, attempt: int = 1, bad: int = -1) -> list[Frame]:
    return [
        Frame(
            "train",
            rank,
            attempt,
            step,
            1e9 + step,
            TRAIN.hash,
            np.array([1.0 + rank, 8.0, float(step == bad)], dtype=np.float32),
        )
        for step in steps
    ]


def begin(home: MemoryHome, world: int, attempt: int = 1, start: int = 0, **meta: Json) -> None:
    home.write_meta(RUN, {"name": "ranks", "world_size": world, "attempt": attempt, **meta})
    for schema in (TRAIN, SHARDS):
        home.add_schema(RUN, schema)
    body = {"world_size": world, "start_step": start}
    home.append(RUN, [], [Event("started", start, attempt, body=body, id=f"started-{attempt}")])


def finish(home: MemoryHome, step: int, attempt: int = 1) -> None:
    event = Event("finished", step, attempt, body={"reason": "end"}, id="finished")
    home.append(RUN, [], [event], {"ended": {"attempt": attempt, "how": "finished", "t": 1e9}})


def place_of(home: MemoryHome) -> int:
    return home.judgement(RUN).state["place"]["step"]


def events_of(home: MemoryHome, kind: str) -> list[Event]:
    return [event for _, event in home.events(RUN) if event.kind == kind]


def test_a_point_waits_for_the_slowest_rank(home: MemoryHome, daemon: Daemon) -> None:
    begin(home, 2)
    home.append(RUN, train(0, range(1, 41)) + train(1, range(1, 13)))
    daemon.tick()
    assert place_of(home) == 10
    home.append(RUN, train(1, range(13, 41)))
    daemon.tick()
    assert place_of(home) == 40
    assert not events_of(home, "excluded")


def test_silent_ranks_are_waited_for_thirty_seconds_and_not_longer(
    home: MemoryHome, daemon: Daemon, clock: Clock
) -> None:
    begin(home, 4)
    home.append(RUN, train(0, range(1, 41)) + train(1, range(1, 41)))
    home.append(RUN, train(2, range(1, 13)) + train(3, range(1, 26)))
    daemon.tick()
    clock.now += 29
    daemon.tick()
    assert place_of(home) == 10
    clock.now += 2
    daemon.tick()
    assert place_of(home) == 40
    found = {(e.body["rank"], e.body["from_step"]) for e in events_of(home, "excluded")}
    assert found == {(2, 12), (3, 25)}


def test_a_silent_rank_of_an_attempt_is_no_longer_waited_for_once_the_next_one_has_begun(
    home: MemoryHome, daemon: Daemon, clock: Clock
) -> None:
    begin(home, 2)
    home.append(RUN, train(0, range(1, 41)) + train(1, range(1, 13)))
    daemon.tick()
    begin(home, 2, attempt=2, start=40)  # started again, and there is no sample of it yet
    clock.now += 31
    daemon.tick()
    clock.now += 31
    daemon.tick()
    assert not events_of(home, "excluded")
    home.append(RUN, train(0, range(41, 61), attempt=2) + train(1, range(41, 61), attempt=2))
    daemon.tick()
    assert place_of(home) == 60


def test_the_daemon_waits_out_a_silent_rank_although_the_whole_run_fell_silent(
    home: MemoryHome, daemon: Daemon, clock: Clock
) -> None:
    begin(home, 2)
    home.append(RUN, train(0, range(1, 41)) + train(1, range(1, 13)))
    for _ in range(5):  # at the fourth the run as a whole counts as idle
        daemon.tick()
        clock.now += 10
    daemon.tick()
    assert place_of(home) == 40


def test_an_excluded_rank_that_comes_back_is_late_and_not_judged(
    home: MemoryHome, daemon: Daemon, clock: Clock
) -> None:
    begin(home, 2)
    home.append(RUN, train(0, range(1, 41)) + train(1, range(1, 13)))
    daemon.tick()
    clock.now += 31
    daemon.tick()
    home.append(RUN, train(1, range(13, 61), bad=45) + train(0, range(41, 61)))
    daemon.tick()
    assert place_of(home) == 60
    assert home.judgement(RUN).state["late"] >= 48
    assert not home.judgement(RUN).findings


def test_a_fault_of_another_rank_alone_is_found(home: MemoryHome, daemon: Daemon) -> None:
    begin(home, 2)
    home.append(RUN, train(0, range(1, 61)) + train(1, range(1, 61), bad=33))
    daemon.tick()
    assert [finding.rule for finding in home.judgement(RUN).findings] == ["non_finite"]


@pytest.mark.parametrize("other", [range(1, 13), range(0)])
def test_a_run_that_ended_without_a_rank_is_judged_alike_by_replay_and_by_the_daemon(
    home: MemoryHome, daemon: Daemon, clock: Clock, other: range
) -> None:
    begin(home, 2)
    home.append(RUN, train(0, range(1, 46), bad=31) + train(1, other))
    finish(home, 45)
    alone = dumps(judge(Store(home), RUN))
    daemon.tick()
    clock.now += 31
    daemon.tick()
    assert place_of(home) == 45
    assert dumps(summary(Store(home), RUN)) == alone == dumps(judge(Store(home), RUN))
    assert summary(Store(home), RUN)["findings"]


def test_a_run_that_still_trains_is_not_judged_past_its_slowest_rank(home: MemoryHome) -> None:
    begin(home, 2)
    home.append(RUN, train(0, range(1, 46)) + train(1, range(1, 13)))
    assert fold_run(home, RUN).place.step == 10


@pytest.mark.parametrize("world", [1, 3])
def test_a_resumed_run_may_have_another_number_of_ranks(
    home: MemoryHome, daemon: Daemon, world: int
) -> None:
    begin(home, 2)
    home.append(RUN, train(0, range(1, 41)) + train(1, range(1, 31)))
    daemon.tick()
    assert place_of(home) == 30
    begin(home, world, attempt=2, start=20)
    for rank in range(world):
        home.append(RUN, train(rank, range(21, 61), attempt=2))
    daemon.tick()
    assert (
        home.judgement(RUN).state["place"] | {"attempt": 2, "step": 60}
        == (home.judgement(RUN).state["place"])
    )
    assert not events_of(home, "excluded")
    samples = Store(home).read(RUN, "train", ["samples"])
    assert samples.steps.tolist() == list(range(1, 61))
    assert set(samples.values[:20, 0]) == {16.0}
    assert set(samples.values[20:, 0]) == {8.0 * world}


def test_a_part_of_a_sum_over_shards_is_no_sample(home: MemoryHome) -> None:
    begin(home, 2)

    def shard(rank: int, step: int, value: float) -> Frame:
        values = np.array([value], dtype=np.float32)
        return Frame("gradients", rank, 1, step, 1e9, SHARDS.hash, values)

    home.append(RUN, [shard(0, 4, 9.0), shard(0, 8, 3.0), shard(1, 8, 4.0)])
    home.append(RUN, train(0, range(1, 11)) + train(1, range(1, 11)))
    found = fold_run(home, RUN).history.column("gradients", "grad_sq/a", 0, 10)
    assert (found.steps.tolist(), found.values.tolist()) == ([8], [7.0])
    read = Store(home).read(RUN, "gradients", ["grad_sq"])
    np.testing.assert_array_equal(read.values[:, 0], [np.nan, 7.0])


def test_a_rank_that_is_lost_is_told_once_whoever_tells_it(
    home: MemoryHome, clock: Clock, tmp_path: Path
) -> None:
    began = clock.now
    begin(home, 2, began=began, heartbeat={"0": began, "1": began})
    home.append(RUN, train(0, range(1, 41)) + train(1, range(1, 41)))
    for name in ("first", "second"):
        daemon = Daemon(home, clock=clock, token=name, heartbeat=tmp_path / name)
        for _ in range(9):
            daemon.tick()
            clock.now += 10
            home.append(RUN, [], fields={"heartbeat": {"0": clock.now}})
        clock.now += 11  # the first one's lease runs out
    told = events_of(home, "stalled")
    assert [(event.rank, event.body["rank"]) for event in told] == [(1, 1)]
    assert told[0].body["seconds"] > 60
    assert Store(home, clock=clock).run(RUN).lost_ranks == [1]
    assert Store(home, clock=clock).run(RUN).status == "live"
    assert [row.lost_ranks for row in Store(home, clock=clock).runs()] == [[1]]


def test_a_silence_is_told_by_the_length_of_a_step(clock: Clock) -> None:
    meta = Meta(world_size=1, heartbeat={"0": clock.now}, progress={"step": 7, "step_seconds": 30})
    silence = Silence()
    told = []
    for _ in range(40):
        told += [(clock.now - 1e9, event) for event in silence.stalled(meta, clock.now)]
        clock.now += 10
    assert [at for at, _ in told] == [310]
    assert told[0][1].step == 7
    assert not silence.watches(meta)


def test_a_rank_that_ended_as_it_should_is_not_told_as_stalled(clock: Clock) -> None:
    meta = Meta(world_size=2, heartbeat={"0": clock.now, "1": clock.now}, left={"1": clock.now + 1})
    silence = Silence()
    assert not silence.stalled(meta, clock.now)
    events = silence.stalled(meta, clock.now + 100)
    assert [event.rank for event in events] == [0]
    meta.ended = {"attempt": 1, "how": "finished", "t": clock.now}
    assert not Silence().watches(meta)
    assert not Silence().stalled(meta, clock.now + 1000)


def test_no_rank_lags_where_all_have_sent_as_much() -> None:
    fold = Fold(RUN, Meta(world_size=2), {TRAIN.hash: TRAIN})
    fold.push(train(0, range(1, 21)) + train(1, range(1, 21)))
    fold.judge()
    assert fold.lagging() == {}
    fold.push(train(1, range(21, 26)))
    assert fold.lagging() == {0: 20}
