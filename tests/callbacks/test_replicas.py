"""Checksums of weights and batches on each rank, and what is judged of real ranks by them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import attach
from otoscope.callbacks.measures.checksum import PRIME, batch_checksum, checksums
from otoscope.callbacks.probes import Replicas
from otoscope.callbacks.probes.probe import Training
from otoscope.callbacks.sampling import default_probes
from otoscope.diagnostics import judge
from otoscope.store import connect
from torch import nn

from .launching import Job
from .machines_job import APART, STEPS

PHASES = ("even", "straggling", "normed", "alone", "same_batches")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with Job(tmp_path_factory.mktemp("machines")) as job:
        job.start_ranks("machines_job.py", list(PHASES), {"OTOSCOPE_JOB": "machines"})
        job.wait()
        yield job.folder


def judged(folder: Path, phase: str) -> dict[str, Any]:
    run = json.loads((folder / "machines-0.json").read_text())[phase]
    return judge(connect(folder / "spool" / run), run)


def found(folder: Path, phase: str, rule: str) -> list[dict[str, Any]]:
    return [item for item in judged(folder, phase)["findings"] if item["rule"] == rule]


def test_even_ranks_are_in_step_whatever_their_buffers_and_last_batches(machines: Path) -> None:
    told = judged(machines, "even")
    assert "rank_desync" in told["judged"]
    assert not [f for f in told["findings"] if f["rule"] in ("rank_desync", "outlier_batch")]


@pytest.mark.parametrize("phase", ["straggling", "normed"])
def test_a_rank_that_sleeps_is_the_straggler(machines: Path, phase: str) -> None:
    """Of a net with batch norms the others wait for it as a forward pass begins, not for gradients."""
    (finding,) = found(machines, phase, "straggler")
    assert finding["ranks"] == [1]
    assert finding["recommendation"]["parameter"] == "inspect"
    assert finding["recommendation"]["proposed"] == [1]
    assert not found(machines, phase, "rank_desync")


def test_steps_without_averaging_are_found_with_rank_and_layer(machines: Path) -> None:
    (finding,) = found(machines, "alone", "rank_desync")
    assert finding["severity"] == "critical"
    assert finding["ranks"] == [1]
    assert finding["layers"] == ["0", "2"]
    assert APART <= finding["first_step"] <= APART + 20


def test_a_sampler_that_is_missing_is_found_by_equal_batches(machines: Path) -> None:
    (finding,) = found(machines, "same_batches", "rank_desync")
    assert finding["severity"] == "warning"
    assert finding["recommendation"]["parameter"] == "distributed_sampler"
    assert finding["recommendation"]["proposed"] is True


def test_weights_of_averaged_ranks_have_equal_checksums_in_every_sample(machines: Path) -> None:
    run = json.loads((machines / "machines-0.json").read_text())["even"]
    store = connect(machines / "spool" / run)
    series = store.read(run, "replicas")
    assert len(series) == STEPS["even"] // 20
    for layer in ("0", "1", "4"):
        mine, other = series.column(f"checksum/{layer}@0"), series.column(f"checksum/{layer}@1")
        np.testing.assert_array_equal(mine, other)
        assert len(set(mine)) > 1
    batches = [series.column(f"batch_checksum@{rank}") for rank in (0, 1)]
    assert (batches[0] != batches[1]).all()
    assert set(store.meta(run).hosts) == {"0", "1"}


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]
)
def test_one_bit_of_one_number_changes_the_checksum(dtype: torch.dtype) -> None:
    tensor = torch.randn(31, 7).to(dtype)
    other = tensor.clone()
    whole = other.view(torch.uint8)
    whole[3, 1] ^= 1
    assert not checksums([tensor], [0], 1).equal(checksums([other], [0], 1))
    assert checksums([tensor], [0], 1).equal(checksums([tensor.clone()], [0], 1))


def test_checksums_are_whole_numbers_that_float32_holds() -> None:
    tensors = [torch.randn(100, 100) for _ in range(50)]
    sums = checksums(tensors, [i % 7 for i in range(50)], 7)
    assert sums.shape == (7,)
    assert ((sums >= 0) & (sums < PRIME)).all()
    assert (sums == sums.double().round()).all()
    assert not checksums(tensors[::-1], [i % 7 for i in range(50)], 7).equal(sums)


def test_layout_and_emptiness_change_no_checksum() -> None:
    tensor = torch.randn(8, 6)
    turned = tensor.t().contiguous().t()
    assert checksums([turned], [0], 1).equal(checksums([tensor], [0], 1))
    assert checksums([tensor, torch.empty(0)], [0, 0], 1).equal(checksums([tensor], [0], 1))


def test_equal_batches_in_another_order_have_other_checksums() -> None:
    tokens = torch.randint(0, 1000, (4, 12))
    assert batch_checksum(tokens).equal(batch_checksum(tokens.clone()))
    assert not batch_checksum(tokens).equal(batch_checksum(tokens.flip(0)))
    assert batch_checksum(torch.zeros(3, 2, dtype=torch.bool)).item() == 0
    assert batch_checksum(torch.randn(100_000, 3)).shape == (1,)


def test_a_run_of_one_process_takes_no_checksums(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with attach(model, optimizer, spool=tmp_path, verdict=False, strict=True) as recorder:
        for _ in range(3):
            model(torch.ones(4, 2)).sum().backward()
            optimizer.step()
            recorder.step(0.0, batch_size=4)
    store = connect(recorder.directory)
    assert "replicas" not in store.meta(recorder.run_id).probes
    assert "replicas" not in {s.family for s in store.home.streams(recorder.run_id)}


def test_layers_of_a_deep_model_share_checksums_and_none_is_left_out() -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(40)))
    probe = Replicas()
    columns = probe.attach(Training(model, [], world_size=2))
    assert len(columns) == 15
    before = probe.sample(1)
    for layer in model:
        with torch.no_grad():
            layer.bias[0] += 1e-3  # type: ignore[union-attr,operator]
        after = probe.sample(2)
        assert (before[:-1] != after[:-1]).sum() == 1
        before = after
    assert torch.isnan(before[-1])


def test_checksums_are_taken_by_default() -> None:
    for which in ("default", "all"):
        assert "replicas" in [probe.name for probe in default_probes(which)]


def test_sharded_weights_are_not_compared() -> None:
    assert not Replicas().is_on(Training(nn.Linear(1, 1), [], world_size=2, sharded=True))
    assert Replicas().is_on(Training(nn.Linear(1, 1), [], rank=1, world_size=2))
