"""Probes of weights and outputs on models of other kinds: parametrized, complex, half, huge heads."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Head, Initialization, Modes, Replicas, Symmetry, attach
from otoscope.callbacks.measures.batches import batch_parts
from otoscope.callbacks.measures.checksum import batch_checksum, checksums
from otoscope.callbacks.measures.head import head_outputs
from otoscope.callbacks.measures.weights import alike_rows, drawn, weighted_modules
from otoscope.callbacks.probes.probe import Training
from otoscope.callbacks.shards import is_sharded
from otoscope.store import Store, connect
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

Loss = Callable[[nn.Module, Any], Tensor]


def cross(module: nn.Module, batch: Any) -> Tensor:
    return functional.cross_entropy(module(batch[0]), batch[1])


def train(
    where: Path, model: nn.Module, probes: list[Any], steps: int = 25, loss_fn: Loss = cross
) -> tuple[Store, str]:
    torch.manual_seed(5)
    dtype = next(model.parameters()).dtype
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    settings: Any = {"spool": where, "strict": True, "verdict": False, "budget": 1.0}
    recorder = attach(model, optimizer, loss_fn=loss_fn, probes=probes, **settings)
    for _ in range(steps):
        batch = [torch.randn(32, 12, dtype=dtype), torch.randint(4, (32,))]
        optimizer.zero_grad()
        loss = loss_fn(model, batch)
        loss.backward()
        optimizer.step()
        recorder.step(loss, 32, batch=batch)
    recorder.finish()
    return connect(recorder.directory), recorder.run_id


class Noisy(nn.Module):
    """A parametrization that draws whenever the weight is asked for."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.01 * torch.randn_like(weight)


def spectral() -> nn.Module:
    return parametrizations.spectral_norm(nn.Linear(12, 16))


def noisy() -> nn.Module:
    return parametrize.register_parametrization(nn.Linear(12, 16), "weight", Noisy())


@pytest.mark.parametrize("layer", [spectral, noisy])
@pytest.mark.parametrize("probe", [Symmetry, Initialization])
def test_asking_for_a_parametrized_weight_changes_no_bit_of_the_run(
    tmp_path: Path, layer: Callable[[], nn.Module], probe: Any
) -> None:
    def trained(probes: list[Any]) -> nn.Module:
        torch.manual_seed(2)
        model = nn.Sequential(layer(), nn.ReLU(), nn.Linear(16, 4))
        train(tmp_path, model, probes)
        return model

    pairs = zip(
        trained([]).state_dict().values(), trained([probe()]).state_dict().values(), strict=True
    )
    assert all(torch.equal(bare, watched) for bare, watched in pairs)


def test_the_rows_of_a_parametrized_weight_are_those_that_the_layer_uses() -> None:
    layer = parametrizations.weight_norm(nn.Linear(12, 16))
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(3.0)  # type: ignore[union-attr,operator]
    assert list(weighted_modules(nn.Sequential(layer))) == ["0"]
    assert torch.equal(drawn(layer).rows, layer.weight.detach())  # type: ignore[operator]
    assert not drawn(layer).rows.requires_grad


def test_rows_are_compared_in_full_precision_under_autocast() -> None:
    one = torch.zeros(12)
    one[0] = 1.0
    other = one.clone()
    other[1] = 0.06  # a cosine of 0.9982
    rows = torch.stack([one, other])
    with torch.autocast("cpu", torch.bfloat16):
        assert alike_rows(rows).item() == 0


def test_complex_rows_are_compared_without_a_warning() -> None:
    rows = torch.complex(torch.eye(8), torch.eye(8).flip(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert alike_rows(rows).item() == 0
        assert alike_rows(torch.cat([rows, 2 * rows[:1]])).item() == pytest.approx(2 / 9)


def test_modes_are_compared_in_half_precision_too(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)).bfloat16()
    store, run = train(tmp_path, model, [Modes(every=10, first=10)])
    series = store.read(run, "modes")
    assert len(series.steps) == 2
    assert not [event.body for event in store.events(run) if event.kind == "probe_off"]
    assert all(math.isfinite(series.column(name)[-1]) for name in ("train_loss", "eval_loss"))


def outputs(output: Tensor, targets: Tensor) -> Any:
    return head_outputs(output, batch_parts([torch.zeros(len(targets), 5), targets]))


@pytest.mark.parametrize(
    "output",
    [
        torch.zeros(8, 0),
        torch.zeros(8, 3, dtype=torch.complex64),
        torch.zeros(8, 3).to_sparse(),
        torch.zeros(8, 3, dtype=torch.int64),
        torch.zeros(()),
    ],
    ids=["empty", "complex", "sparse", "whole numbers", "no dimension"],
)
def test_outputs_without_rows_of_numbers_are_no_head(output: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert outputs(output, torch.zeros(8, dtype=torch.int64)) is None


def test_outputs_that_are_spread_over_ranks_are_left_alone(tmp_path: Path) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        output = distribute_tensor(torch.zeros(8, 4), mesh, [Shard(1)])
        assert outputs(output, torch.zeros(8, dtype=torch.int64)) is None
    finally:
        dist.destroy_process_group()


def test_a_head_of_a_vocabulary_is_counted_and_has_no_column_a_class(tmp_path: Path) -> None:
    torch.manual_seed(1)
    store, run = train(tmp_path, nn.Linear(12, 50_000), [Head(every=1)], steps=4)
    series = store.read(run, "head")
    assert not [name for name in series.columns if name.startswith("class_share")]
    assert series.column("as_logits")[-1] == pytest.approx(1, abs=1e-4)
    assert series.column("rows")[-1] == 32 * len(series.steps)


def test_checksums_are_those_of_the_numbers_wherever_they_lie() -> None:
    whole = torch.randn(1001)
    for start in (0, 1):
        part = whole[start : start + 701]
        assert checksums([part], [0], 1).equal(checksums([part.clone()], [0], 1))
    assert not checksums([whole[:701]], [0], 1).equal(checksums([whole[1:702]], [0], 1))
    assert checksums([torch.tensor(3.0)], torch.tensor([0]), 1).item() > 0


def test_batches_without_rows_have_no_checksum() -> None:
    for batch in (torch.tensor(3.0), torch.eye(3).to_sparse()):
        assert math.isnan(batch_checksum(batch).item())


def test_parameters_that_a_rank_keeps_for_itself_are_not_compared() -> None:
    model: Any = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    model._ddp_params_and_buffers_to_ignore = ["0.weight", "0.bias"]
    for parameter in model[1].parameters():
        parameter.allreduce = False
    for parameter in model[2].parameters():
        parameter.tensor_model_parallel = True
    columns = Replicas().attach(Training(model, [], world_size=2))
    assert [column.layer for column in columns] == ["3", None]


def test_flat_shards_of_the_first_fsdp_are_known_as_such(tmp_path: Path) -> None:
    import torch.distributed as dist
    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one process has nothing to shard
            model = FullyShardedDataParallel(
                nn.Linear(3, 3), use_orig_params=True, device_id=torch.device("cpu")
            )
        assert not is_sharded(model)
        model.sharding_strategy = ShardingStrategy.FULL_SHARD
        assert is_sharded(nn.Sequential(model))
    finally:
        dist.destroy_process_group()


def test_groups_of_parameters_are_made_once_where_they_are() -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    probe = Replicas()
    probe.attach(Training(model, [], world_size=2))
    first = probe.sample(1)
    held = probe._groups
    assert probe.sample(2)[:-1].equal(first[:-1])
    assert probe._groups is held
