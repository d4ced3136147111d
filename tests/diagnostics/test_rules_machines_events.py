"""Rules about memory, lost samples, outlying batches and runs that stand still."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from otoscope.diagnostics import Daemon, judge, summary
from otoscope.store import Event, MemoryHome, Store
from otoscope.store.schemas import dumps

from .clock import Clock
from .machines import RUN, TRAIN_SCHEMA, USUAL, family_of, finding, frames_of, run_of

# ---- memory --------------------------------------------------------------------------------------

MB = 1e6


def memory(
    at: Any, *, every: int = 20, steps: int = 2400, ranks: int = 1, **meta: Any
) -> dict[str, Any]:
    draw = np.random.default_rng(0)

    def told(rank: int, step: int) -> Mapping[str, float]:
        return {"rss_bytes": at(rank, step) + 2 * MB * draw.normal(), "gpu_memory_bytes": np.nan}

    system = family_of("system", range(1, steps + 1, every), told, ranks)
    return run_of(steps, ranks=ranks, others=[system], **meta)


def test_memory_that_grows_without_end_is_told_with_its_pace() -> None:
    found = finding(memory(lambda rank, step: 800 * MB + 0.2 * MB * step), "memory_growth")
    assert found is not None
    assert found["severity"] == "warning"
    assert "by 20 MB in 100 steps" in found["title"] or "by 19" in found["title"]
    assert found["recommendation"]["parameter"] == "inspect"


def test_of_several_ranks_the_one_whose_memory_grows_is_named() -> None:
    found = finding(
        memory(lambda rank, step: 800 * MB + (0.2 * MB * step if rank == 1 else 0), ranks=2),
        "memory_growth",
    )
    assert found is not None
    assert found["ranks"] == [1]
    assert found["recommendation"]["proposed"] == [1]


@pytest.mark.parametrize(
    "at",
    [
        lambda rank, step: 800 * MB,
        lambda rank, step: 800 * MB + 400 * MB * (1 - np.exp(-step / 300)),  # a cache that fills up
        lambda rank, step: 800 * MB + (500 * MB if step > 700 else 0),  # a buffer that is made once
        lambda rank, step: 800 * MB + 200 * MB * ((step // 150) % 2),  # freed at every epoch's end
        lambda rank, step: 800 * MB + 0.2 * MB * min(step, 500),  # a warm-up, then a plateau
        lambda rank, step: 8000 * MB + 0.2 * MB * step,  # far under one percent
    ],
)
def test_caches_buffers_and_warm_ups_are_no_leak(at: Any) -> None:
    judged = memory(at)
    assert finding(judged, "memory_growth") is None
    assert "memory_growth" in judged["judged"]


def test_too_few_samples_of_the_memory_are_not_judged() -> None:
    sparse = memory(lambda rank, step: 800 * MB + 0.2 * MB * step, every=300)
    assert "fewer than ten windows" in sparse["not_judged"]["memory_growth"]
    assert "memory_growth" in run_of(1500)["not_judged"]


# ---- lost samples --------------------------------------------------------------------------------


def counters(dropped: Any = 0, spooled: Any = 0, sent: float = 100.0) -> dict[str, Any]:
    def told(rank: int, step: int) -> Mapping[str, Any]:
        return {
            "dropped_frames": dropped(step) if callable(dropped) else dropped,
            "spooled_frames": spooled(step) if callable(spooled) else spooled,
            "sent_frames": sent,
        }

    return run_of(600, others=[family_of("system", range(10, 601, 30), told)])


def test_frames_that_were_dropped_are_an_info_and_no_more() -> None:
    found = finding(counters(dropped=lambda step: max(0, step - 300)), "lost_samples")
    assert found is not None
    assert found["severity"] == "info"
    assert found["first_step"] == 310


def test_frames_that_wait_on_disk_are_told_where_there_is_a_server_to_wait_for() -> None:
    assert finding(counters(spooled=lambda step: step), "lost_samples") is not None
    assert finding(counters(spooled=lambda step: step, sent=0), "lost_samples") is None
    assert finding(counters(), "lost_samples") is None


def test_a_gap_is_told_with_its_steps_and_forgotten_behind_the_window() -> None:
    gap = Event("gap", 260, body={"family": "train", "rank": 0, "from": 201, "to": 260})
    frames = [
        frame
        for frame in frames_of(range(1, 2001), lambda r, s: {})
        if not 201 <= frame.step <= 260
    ]
    home = MemoryHome()
    home.write_meta(RUN, {"name": "gap", "progress": {"step": 2000}})
    home.add_schema(RUN, TRAIN_SCHEMA)
    home.append(RUN, frames, [Event("started", body={"world_size": 1, "start_step": 0}), gap])
    found = finding(judge(Store(home), RUN), "lost_samples")
    assert found is not None
    assert found["title"] == "Samples of 60 steps are missing between step 201 and 260"
    assert found["state"] == "resolved"


def test_a_budget_that_leaves_no_look_at_the_layers_is_told_with_one_that_does() -> None:
    note = Event("note", 100, body={"text": "steps are so short", "budget": 0.06})
    found = finding(run_of(1500, events=[note], budget=0.02), "lost_samples")
    assert found is not None
    assert found["recommendation"]["parameter"] == "budget"
    assert found["recommendation"]["proposed"] == 0.06
    assert finding(run_of(1500, budget=0.02), "lost_samples") is None
    looks = family_of("gradients", range(100, 1501, 200), lambda rank, step: {"numel": 1.0})
    assert finding(run_of(1500, events=[note], others=[looks]), "lost_samples") is None


# ---- outlying batches ----------------------------------------------------------------------------


def losses(at: Any, ranks: int = 1, steps: int = 600) -> dict[str, Any]:
    draw = np.random.default_rng(2)

    def told(rank: int, step: int) -> Mapping[str, float]:
        return {"loss": at(rank, step) * draw.lognormal(0, 0.3)}

    return run_of(steps, told, ranks=ranks)


def test_a_rank_whose_loss_leaps_twice_is_named_with_its_steps() -> None:
    def at(rank: int, step: int) -> float:
        return 40.0 if (rank, step) in ((1, 420), (1, 530)) else 1.0

    found = finding(losses(at, ranks=3), "outlier_batch")
    assert found is not None
    assert (found["severity"], found["ranks"]) == ("info", [1])
    assert found["recommendation"]["proposed"] == [420, 530]
    assert [row["step"] for row in found["because"]] in ([420, 530], [530, 420])


@pytest.mark.parametrize(
    "at",
    [
        lambda rank, step: 40.0 if (rank, step) == (1, 420) else 1.0,  # once is no pattern
        lambda rank, step: 40.0 if step in (420, 530) else 1.0,  # all ranks at once: not the batch
        lambda rank, step: (
            1.0 if step < 50 else 1e-4 * (30.0 if step % 40 == rank else 1)
        ),  # near zero
        lambda rank, step: 1.0,
    ],
)
def test_leaps_of_all_ranks_or_once_or_near_zero_are_none(at: Any) -> None:
    judged = losses(at, ranks=3)
    assert finding(judged, "outlier_batch") is None
    assert "outlier_batch" in judged["judged"]


def epochs(spikes: Any, length: int = 120, steps: int = 700) -> dict[str, Any]:
    draw = np.random.default_rng(3)
    told = {s: (30.0 if spikes(s) else 1.0) * draw.lognormal(0, 0.3) for s in range(1, steps + 1)}
    schema, frames = family_of(
        "train",
        range(1, steps + 1),
        lambda rank, step: {**USUAL, "loss": told[step], "epoch": float((step - 1) // length)},
    )
    home = MemoryHome()
    home.write_meta(RUN, {"name": "epochs", "progress": {"step": steps}})
    home.add_schema(RUN, schema)
    home.append(RUN, frames, [Event("started", body={"world_size": 1, "start_step": 0})])
    return judge(Store(home), RUN)


def test_a_leap_once_in_every_epoch_is_a_sample() -> None:
    places = {0: 17, 1: 66, 2: 91, 3: 5, 4: 110, 5: 48}
    found = finding(epochs(lambda s: (s - 1) % 120 == places[(s - 1) // 120]), "outlier_batch")
    assert found is not None
    assert (
        found["recommendation"]["proposed"] == [1 + 120 * e + places[e] for e in (2, 3, 4)]
        or len(found["recommendation"]["proposed"]) == 3
    )


def test_leaps_that_come_in_some_epochs_only_are_chance() -> None:
    judged = epochs(lambda s: s in (150, 390, 395, 630))
    assert finding(judged, "outlier_batch") is None
    assert "outlier_batch" in judged["judged"]


def test_where_epochs_are_not_known_single_batches_are_not_judged() -> None:
    assert "was not recorded" in run_of(400)["not_judged"]["outlier_batch"]


# ---- standing still ------------------------------------------------------------------------------


def begin(home: MemoryHome, clock: Clock, ranks: int, steps: int, **meta: Any) -> None:
    beats = {str(rank): clock.now for rank in range(ranks)}
    told = {
        "name": "still",
        "world_size": ranks,
        "attempt": 1,
        "began": clock.now,
        "heartbeat": beats,
    }
    home.write_meta(RUN, {**told, "progress": {"step": steps, "step_seconds": 0.1}, **meta})
    home.add_schema(RUN, TRAIN_SCHEMA)
    home.append(
        RUN, [], [Event("started", body={"world_size": ranks, "start_step": 0}, id="begun")]
    )
    home.append(RUN, frames_of(range(1, steps + 1), lambda r, s: {}, ranks))


def wait(daemon: Daemon, clock: Clock, seconds: float) -> None:
    end = clock.now + seconds
    while clock.now < end:
        daemon.tick()
        clock.now += max(5, seconds / 40)
    for _ in range(12):  # a run at rest is looked at in every tenth tick
        daemon.tick()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_stands_still_is_critical_until_steps_come_again(
    home: MemoryHome, clock: Clock, daemon: Daemon, ranks: int
) -> None:
    begin(home, clock, ranks, 47)
    wait(daemon, clock, 55)
    assert finding(summary(Store(home), RUN), "stalled") is None
    wait(daemon, clock, 40)
    found = finding(summary(Store(home), RUN), "stalled")
    assert found is not None
    assert (found["state"], found["severity"], found["first_step"]) == ("firing", "critical", 47)
    assert summary(Store(home), RUN)["state"] == "needs_action"
    home.append(RUN, frames_of(range(48, 71), lambda r, s: {}, ranks))
    home.write_meta(RUN, {"heartbeat": {str(rank): clock.now for rank in range(ranks)}})
    for _ in range(12):
        daemon.tick()
    live = home.judgement(RUN)
    assert [f.state for f in live.findings if f.rule == "stalled"] == ["resolved"]
    again = judge(Store(home), RUN)
    assert dumps(again["findings"]) == dumps([f.to_json() for f in live.findings])


def test_the_rank_whose_last_step_is_behind_is_suspected(
    home: MemoryHome, clock: Clock, daemon: Daemon
) -> None:
    begin(home, clock, 2, 40, hosts={"1": "node-7"})
    home.append(RUN, frames_of(range(41, 44), lambda r, s: {}, 1))
    wait(daemon, clock, 100)
    found = finding(summary(Store(home), RUN), "stalled")
    assert found is not None
    assert found["ranks"] == [1]
    assert any("rank 1 on node-7: last step 40" in row["text"] for row in found["because"])
    assert ast.parse(found["recommendation"]["snippet"]).body == [], (
        "what a shell takes is a comment"
    )


def test_a_validation_may_take_long_and_a_run_that_ended_stands_still_by_right(
    home: MemoryHome, clock: Clock, daemon: Daemon
) -> None:
    begin(home, clock, 1, 50)
    home.write_meta(RUN, {"progress": {"step": 50, "step_seconds": 0.1, "pause": 1}})
    wait(daemon, clock, 900)
    assert finding(summary(Store(home), RUN), "stalled") is None
    wait(daemon, clock, 1000)
    assert finding(summary(Store(home), RUN), "stalled", "firing") is not None
    home.append(RUN, [], [Event("finished", 50, body={"reason": "end"}, id="end")])
    home.write_meta(RUN, {"ended": {"attempt": 1, "how": "finished", "t": clock.now}})
    for _ in range(12):
        daemon.tick()
    assert finding(summary(Store(home), RUN), "stalled", "firing") is None


def test_one_rank_that_is_lost_while_the_others_go_on_is_no_standstill(
    home: MemoryHome, clock: Clock, daemon: Daemon
) -> None:
    begin(home, clock, 2, 40)
    for step in range(41, 61):
        home.append(RUN, frames_of(range(step, step + 1), lambda r, s: {}, 1))
        home.write_meta(RUN, {"heartbeat": {"0": clock.now}})
        daemon.tick()
        clock.now += 5
    assert [e.kind for _, e in home.events(RUN) if e.kind == "stalled"] == ["stalled"]
    assert finding(summary(Store(home), RUN), "stalled") is None
