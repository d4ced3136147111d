"""Distributed fits on two gloo processes: one run, no collective of ours, and who waits for whom."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from otoscope.store import Event, Series, Store, connect

from .launching import Job
from .ranks_job import SLOW_SECONDS, STEPS

PHASES = ("slow", "all_gather", "synchronized_norm", "sync_dist", "sharded", "all_activations")
LOOKED_AT = ("slow", "sync_dist", "all_activations")
"""Phases in which the curvature can be measured."""


@pytest.fixture(scope="session")
def elastic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Six phases in one job, launched as torchrun does, recorded to disk."""
    with Job(tmp_path_factory.mktemp("elastic")) as job:
        told = {"TORCHELASTIC_RUN_ID": "a-job", "TORCHELASTIC_RESTART_COUNT": "0"}
        job.start_ranks("ranks_job.py", ["ddp", *PHASES], told)
        job.wait()
        yield job.folder


def told(folder: Path, phase: str, rank: int) -> dict[str, Any]:
    return json.loads((folder / f"{phase}-{rank}.json").read_text())


def store_of(folder: Path, phase: str) -> tuple[Store, str]:
    run = told(folder, phase, 0)["with"]["run"]
    return connect(folder / "spool" / run), run


def read(folder: Path, phase: str, family: str, columns: list[str]) -> Series:
    store, run = store_of(folder, phase)
    return store.read(run, family, columns)


def events(folder: Path, phase: str) -> list[Event]:
    store, run = store_of(folder, phase)
    return store.events(run)


@pytest.mark.parametrize("phase", PHASES)
def test_both_ranks_record_one_run(elastic: Path, phase: str) -> None:
    run = told(elastic, phase, 0)["with"]["run"]
    assert run.startswith(phase.replace("_", "-"))
    assert told(elastic, phase, 1)["with"]["run"] == run
    store, _ = store_of(elastic, phase)
    assert store.damage == []
    steps = {
        s.rank: len(store.home.frames(run, s))
        for s in store.home.streams(run)
        if s.family == "train"
    }
    assert steps == {0: STEPS, 1: STEPS}
    info = store.run(run)
    assert (info.status, info.attempt, info.world_size, info.lost_ranks) == ("finished", 1, 2, [])


def test_fits_of_one_script_are_runs_of_their_own(elastic: Path) -> None:
    assert len({told(elastic, phase, 1)["with"]["run"] for phase in PHASES}) == len(PHASES)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("rank", [0, 1])
def test_otoscope_asks_for_no_collective_and_changes_nothing(
    elastic: Path, phase: str, rank: int
) -> None:
    found = told(elastic, phase, rank)
    assert found["without"]["collectives"]["sequence"] > STEPS
    for key in ("collectives", "weights", "logged"):
        assert found["with"][key] == found["without"][key], key


@pytest.mark.parametrize("phase", ["slow", "sync_dist"])
def test_what_ranks_hold_alike_comes_from_rank_0_alone(elastic: Path, phase: str) -> None:
    store, run = store_of(elastic, phase)
    families = {(s.rank, s.family) for s in store.home.streams(run)}
    alike = {(0, "gradients"), (0, "curvature"), (0, "landscape")}
    assert families == {(r, f) for r in (0, 1) for f in ("train", "system", "noise")} | alike
    assert {event.rank for event in store.events(run)} == {0}


def test_the_slow_rank_waits_least(elastic: Path) -> None:
    waits = read(elastic, "slow", "train", ["wait_seconds"])
    fast, slow = waits.column("wait_seconds@0"), waits.column("wait_seconds@1")
    assert np.isfinite(fast).all()
    assert np.isfinite(slow).all()
    assert np.median(fast) > SLOW_SECONDS / 2 > np.median(slow)


def test_ranks_are_combined_as_the_schema_says(elastic: Path) -> None:
    both = read(elastic, "slow", "train", ["loss", "samples", "step_seconds", "epoch"])
    store, run = store_of(elastic, "slow")
    single = [store.read(run, "train", ["loss", "step_seconds"], rank=rank) for rank in (0, 1)]
    losses = [series.column("loss") for series in single]
    assert not np.allclose(losses[0], losses[1])
    np.testing.assert_allclose(both.column("loss"), np.mean(losses, axis=0), rtol=1e-6)
    assert set(both.column("samples")) == {16.0}
    np.testing.assert_array_equal(both.column("step_seconds@1"), single[1].column("step_seconds"))
    assert "epoch" in both.columns


def test_shards_add_up_to_the_norms_of_the_whole_net(elastic: Path) -> None:
    store, run = store_of(elastic, "sharded")
    assert {s.rank for s in store.home.streams(run) if s.family == "gradients"} == {0, 1}
    for family, columns in (
        ("train", ["grad_norm"]),
        ("gradients", ["grad_sq", "weight_sq", "update_sq", "numel", "update_ratio"]),
    ):
        whole = read(elastic, "sync_dist", family, columns)
        sharded = read(elastic, "sharded", family, columns)
        assert sharded.columns == whole.columns
        assert len(whole) >= STEPS // 2
        np.testing.assert_allclose(sharded.values, whole.values, rtol=1e-5)
    part = store.read(run, "gradients", ["numel/net.0"], rank=1)
    assert 0 < part.values[0, 0] < sharded.column("numel/net.0")[0]  # 7 rows: 4 and 3


def test_curvature_and_noise_are_off_where_parameters_are_sharded(elastic: Path) -> None:
    found = [e.body for e in events(elastic, "sharded") if e.kind == "probe_off"]
    assert [body["probe"] for body in found] == ["noise", "curvature", "landscape"]
    assert all("sharded" in body["why"] for body in found)


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "sharded"])
def test_the_noise_of_two_ranks_is_measured_in_any_run_that_is_not_sharded(
    elastic: Path, phase: str
) -> None:
    found = read(elastic, phase, "noise", ["small_sq", "big_sq", "small", "big"])
    assert found.steps.tolist() == list(range(1, STEPS + 1, 3))
    assert np.isfinite(found.values).all()
    assert found.values[0, 2:].tolist() == [8, 16]
    # what the ranks' own gradients have in common is what is left of their mean
    assert (found.column("small_sq") > found.column("big_sq")).all()
    norms = read(elastic, phase, "train", ["grad_sq"])
    there = np.isin(norms.steps, found.steps)
    np.testing.assert_allclose(norms.values[there, 0], found.column("big_sq"), rtol=1e-5)


@pytest.mark.parametrize("phase", ["all_gather", "synchronized_norm"])
def test_a_loss_with_a_collective_switches_curvature_off_and_the_run_goes_on(
    elastic: Path, phase: str
) -> None:
    found = [e.body for e in events(elastic, phase) if e.kind == "probe_off"]
    assert [body["probe"] for body in found] == ["curvature", "landscape"]
    assert all("all_gather" in body["why"] for body in found)
    assert all("only this rank" in body["why"] for body in found)
    assert len(read(elastic, phase, "train", ["loss"])) == STEPS


def test_a_log_over_all_ranks_keeps_no_curvature_from_being_measured(elastic: Path) -> None:
    for family, column, steps in (
        ("curvature", "lambda_1", [5, 11, 17, 23]),
        ("landscape", "horizon", [8, 14, 20]),
    ):
        found = read(elastic, "sync_dist", family, [column])
        assert found.steps.tolist() == steps
        assert np.isfinite(found.values).all()
    assert not [e for e in events(elastic, "sync_dist") if e.kind == "probe_off"]


def test_activations_of_all_ranks_add_up(elastic: Path) -> None:
    store, run = store_of(elastic, "all_activations")
    both = store.read(run, "activations", ["numel/net.0", "absmax/net.0"])
    single = [
        store.read(run, "activations", ["numel/net.0", "absmax/net.0"], rank=r) for r in (0, 1)
    ]
    assert len(both) == len(single[0]) == len(single[1]) >= STEPS // 2
    numbers = [series.column("numel/net.0") for series in single]
    np.testing.assert_array_equal(both.column("numel/net.0"), numbers[0] + numbers[1])
    peaks = [series.column("absmax/net.0") for series in single]
    assert not np.array_equal(peaks[0], peaks[1])
    np.testing.assert_array_equal(both.column("absmax/net.0"), np.maximum(*peaks))


def test_the_verdict_is_told_once_and_over_all_ranks(elastic: Path) -> None:
    said = [(elastic / f"log-{rank}.txt").read_text() for rank in (0, 1)]
    assert re.search(rf"\(step {STEPS}\): \d+ checks passed", said[0])
    assert "checks passed" not in said[1]
