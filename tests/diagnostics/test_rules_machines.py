"""Rules about the pace of a run: waiting for data, for a slow rank, and becoming slower."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from otoscope.diagnostics.rules.input_bound import workers_for

from .machines import finding, run_of


def waiting(
    share: float, workers: int | None = 2, cores: int | None = 16, seconds: float = 0.1
) -> dict:  # type: ignore[type-arg]
    draw = np.random.default_rng(0)

    def told(rank: int, step: int) -> Mapping[str, float]:
        noise = draw.lognormal(0, 0.2)
        return {"step_seconds": seconds * noise, "data_seconds": share * seconds * noise}

    return run_of(400, told, num_workers=workers, cpu_count=cores, batch_size=64)


def test_a_run_that_waits_for_its_data_is_told_how_many_workers_it_needs() -> None:
    found = finding(waiting(0.5), "input_bound")
    assert found is not None
    assert found["severity"] == "warning"
    advice = found["recommendation"]
    assert (advice["parameter"], advice["current"], advice["basis"]) == (
        "num_workers",
        2,
        "derived",
    )
    assert advice["proposed"] == 5  # a batch takes 0.2 s of one worker, a step 0.0495 s
    assert "num_workers=5" in advice["snippet"]


@pytest.mark.parametrize(
    ("workers", "waited", "compute", "needed"),
    [(0, 0.01, 0.1, 1), (0, 0.3, 0.1, 3), (2, 0.1, 0.1, 4), (4, 0.05, 0.1, 6)],
)
def test_workers_that_are_asked_for_load_as_fast_as_the_training_computes(
    workers: int, waited: float, compute: float, needed: int
) -> None:
    assert workers_for(workers, waited, compute) == needed
    load = waited if workers == 0 else workers * (waited + compute)
    assert load / needed <= compute + 1e-9


def test_no_more_workers_are_proposed_than_there_are_cores() -> None:
    few = finding(waiting(0.8, workers=1, cores=4), "input_bound")
    assert few is not None
    assert few["recommendation"]["proposed"] == 4
    none_left = finding(waiting(0.8, workers=4, cores=4), "input_bound")
    assert none_left is not None
    assert none_left["recommendation"]["parameter"] == "inspect"
    unknown = finding(waiting(0.8, workers=None), "input_bound")
    assert unknown is not None
    assert unknown["recommendation"]["parameter"] == "inspect"


def test_a_short_wait_of_short_steps_is_no_finding() -> None:
    assert finding(waiting(0.6, seconds=0.004), "input_bound") is None
    assert finding(waiting(0.25), "input_bound") is None


def test_the_first_batch_of_an_epoch_may_be_waited_for() -> None:
    def told(rank: int, step: int) -> Mapping[str, float]:
        first = step % 60 == 1
        return {"step_seconds": 3.1 if first else 0.1, "data_seconds": 3.0 if first else 0.001}

    judged = run_of(600, told, num_workers=4)
    assert finding(judged, "input_bound") is None
    assert "input_bound" in judged["judged"]


def test_workers_that_deliver_in_bursts_are_seen_although_most_batches_are_there_at_once() -> None:
    def told(rank: int, step: int) -> Mapping[str, float]:
        wait = 0.4 if step % 4 == 0 else 0.0
        return {"step_seconds": 0.1 + wait, "data_seconds": wait}

    assert finding(run_of(400, told, num_workers=4), "input_bound") is not None


def test_where_waiting_is_not_timed_input_is_not_judged() -> None:
    judged = run_of(300, lambda rank, step: {"data_seconds": np.nan})
    assert "was not recorded" in judged["not_judged"]["input_bound"]


def test_a_finding_of_waiting_ends_when_the_waiting_does() -> None:
    def told(rank: int, step: int) -> Mapping[str, float]:
        return {"data_seconds": 0.06 if step <= 400 else 0.001}

    found = finding(run_of(900, told, num_workers=1), "input_bound")
    assert found is not None
    assert found["state"] == "resolved"


def pace(slow: float, ranks: int = 4, *, data: float = 0.0, probe: bool = False, steps: int = 400):  # type: ignore[no-untyped-def]
    """Ranks that compute 50 ms a step, with a spread of 5 %; rank 2 takes `slow` times as long."""
    draw = np.random.default_rng(1)
    busy = 0.05 * draw.lognormal(0, 0.05, (steps + 2, ranks))
    if ranks > 2:
        busy[:, 2] *= slow

    def told(rank: int, step: int) -> Mapping[str, float]:
        spent = np.zeros(ranks)
        if probe and step % 2 == 0:
            spent[0] = 0.05
        late = np.zeros(ranks)
        if probe and step % 2 == 1:
            late[0] = 0.05
        all_busy = busy[step] + late
        return {
            "step_seconds": all_busy.max(),
            "wait_seconds": all_busy.max() - all_busy[rank],
            "data_seconds": data if rank == 2 else 0.001,
            "overhead_seconds": spent[rank],
        }

    return run_of(steps, told, ranks=ranks, hosts={str(r): f"node-{r // 2}" for r in range(ranks)})


def test_the_slow_rank_is_named_with_its_machine_and_what_it_costs() -> None:
    found = finding(pace(1.3), "straggler")
    assert found is not None
    assert (found["ranks"], found["severity"], found["scope"]) == ([2], "warning", "rank:2")
    assert found["recommendation"]["proposed"] == [2]
    assert "node-1" in found["title"]
    assert "23 %" in found["title"]
    assert "its computation" in found["because"][1]["text"]


def test_a_rank_half_as_slow_again_is_critical_and_its_loader_is_named_where_it_waits_for_it() -> (
    None
):
    found = finding(pace(1.8, data=0.041), "straggler")
    assert found is not None
    assert found["severity"] == "critical"
    assert "its loader" in found["because"][1]["text"]


def test_a_cause_that_covers_half_of_the_difference_is_not_named() -> None:
    found = finding(pace(1.8, data=0.021), "straggler")
    assert found is not None
    assert "unattributed" in found["because"][1]["text"]


@pytest.mark.parametrize("ranks", [2, 4, 16])
def test_even_ranks_are_fine_whatever_we_measure_on_rank_0(ranks: int) -> None:
    for probe in (False, True):
        judged = pace(1.0, ranks, probe=probe)
        assert finding(judged, "straggler") is None
        if not probe:
            assert "straggler" in judged["judged"]


def test_a_slowness_that_goes_round_is_no_straggler() -> None:
    def told(rank: int, step: int) -> Mapping[str, float]:
        slow = (step // 50) % 4
        return {"wait_seconds": 0.0 if rank == slow else 0.05, "step_seconds": 0.1}

    judged = run_of(600, told, ranks=4)
    assert finding(judged, "straggler") is None
    assert "straggler" in judged["judged"]


def test_a_run_of_one_process_has_no_straggler_to_judge() -> None:
    assert run_of(300)["not_judged"]["straggler"] == "the run has one process"
    nowhere = run_of(300, ranks=2)
    assert "not measured here" in nowhere["not_judged"]["straggler"]


def paced(seconds, steps: int = 3000, samples=lambda step: 64.0, noise: float = 0.3, seed: int = 0):  # type: ignore[no-untyped-def]
    """Steps of 100 ms whose pace wanders, as on a machine that is shared."""
    draw = np.random.default_rng(seed)
    wander = 0.0
    times = [0.0]
    for step in range(1, steps + 1):
        wander = 0.98 * wander + 0.2 * noise * draw.normal()
        times.append(seconds(step) * float(np.exp(wander)) * draw.lognormal(0, 0.1))
    return run_of(steps, lambda rank, step: {"step_seconds": times[step], "samples": samples(step)})


def test_a_run_that_becomes_half_as_slow_again_is_told_since_when() -> None:
    judged = paced(lambda step: 0.1 if step < 1500 else 0.16, noise=0.05)
    found = finding(judged, "throughput_drop")
    assert found is not None
    assert 1450 <= found["first_step"] <= 1700
    assert "computing a step takes" in found["because"][1]["text"]
    assert found["state"] == "firing"


@pytest.mark.parametrize("seed", range(10))
def test_a_pace_that_wanders_by_half_is_not_a_drop(seed: int) -> None:
    judged = paced(lambda step: 0.1, noise=0.5, seed=seed)
    assert finding(judged, "throughput_drop") is None
    assert "throughput_drop" in judged["judged"]


@pytest.mark.parametrize(
    ("seconds", "samples"),
    [
        (lambda step: 0.1 if step < 1500 else 0.05, lambda step: 64.0 if step < 1500 else 16.0),
        (lambda step: 20.0 if step % 100 == 0 else 0.1, lambda step: 64.0),
        (lambda step: 0.3 if step % 20 == 0 else 0.1, lambda step: 64.0),
    ],
)
def test_smaller_batches_checkpoints_and_samples_of_ours_are_no_drop(seconds, samples) -> None:  # type: ignore[no-untyped-def]
    assert finding(paced(seconds, samples=samples, noise=0.05), "throughput_drop") is None


def test_steps_of_milliseconds_tell_nothing_of_the_pace_in_a_few_seconds() -> None:
    judged = paced(lambda step: 0.003 if step < 1500 else 0.009)
    assert finding(judged, "throughput_drop") is None
    assert "blocks of 10 s" in judged["not_judged"]["throughput_drop"]


def test_a_drop_stays_told_until_the_pace_is_back() -> None:
    slow = paced(lambda step: 0.1 if step < 1000 else 0.2, steps=6000, noise=0.05)
    found = finding(slow, "throughput_drop")
    assert found is not None
    assert found["state"] == "firing"
    back = paced(lambda step: 0.2 if 1000 <= step < 2000 else 0.1, steps=4000, noise=0.05)
    found = finding(back, "throughput_drop")
    assert found is not None
    assert found["state"] == "resolved"
