"""What the distributed tests launch: one process of a job, which writes down what it saw.

`python ranks_job.py FOLDER STRATEGY PHASE…`; every phase is one fit with Otoscope, and before it
the same fit without.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from otoscope.callbacks import Otoscope
from otoscope.callbacks.probes import Activations, Curvature, Gradients, Landscape, Noise, System
from torch import distributed, nn
from torch.nn import functional

STEPS = 24
SLOW_SECONDS = 0.02
WIDTH = 7
"""Odd, so that two shards of it are uneven."""


def rows(count: int = 8 * 2 * STEPS) -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(count, 6, generator=generator)
    return torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


class SynchronizedNorm(nn.Module):
    """Centres by the mean over all ranks, with the collective that SyncBatchNorm (GPU only) uses."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = [torch.empty(x.shape[1]) for _ in range(distributed.get_world_size())]
        distributed.all_gather(means, x.detach().mean(0))
        return x - torch.stack(means).mean(0)


class Net(pl.LightningModule):
    """A small classifier; a phase says what its step does beside the loss."""

    def __init__(self, phase: str) -> None:
        super().__init__()
        self.phase = phase
        torch.manual_seed(3)
        norm = [SynchronizedNorm()] if phase == "synchronized_norm" else []
        self.net = nn.Sequential(nn.Linear(6, WIDTH), *norm, nn.ReLU(), nn.Linear(WIDTH, 3))

    def configure_model(self) -> None:
        if self.phase == "sharded":
            from torch.distributed.fsdp import fully_shard

            mesh = self.device_mesh["data_parallel"]  # type: ignore[index]
            for layer in self.net:
                if isinstance(layer, nn.Linear):
                    fully_shard(layer, mesh=mesh)
            fully_shard(self.net, mesh=mesh)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if self.phase == "slow" and self.global_rank == 1:
            time.sleep(SLOW_SECONDS)  # the fault itself
        if self.phase == "raising" and self.global_rank == 1 and index == STEPS // 2:
            raise ArithmeticError("planted in rank 1")
        output = self.net(batch[0])
        if self.phase == "all_gather":
            gathered: Any = self.all_gather(output.mean(), sync_grads=True)
            output = output + 0 * gathered.mean()
        loss = functional.cross_entropy(output, batch[1])
        self.log("train_loss", loss, batch_size=len(batch[0]), sync_dist=self.phase == "sync_dist")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


class Collectives:
    """Counts what the process group was asked for, by torch's own sequence numbers and by name."""

    NAMES = ("all_reduce", "all_gather", "broadcast", "barrier", "reduce", "all_gather_object")

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        for name in self.NAMES:
            for place in (distributed, distributed.distributed_c10d):
                setattr(place, name, self._counted(name, getattr(place, name)))

    def _counted(self, name: str, function: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            return function(*args, **kwargs)

        return counted

    def take(self) -> dict[str, int]:
        """Return the counts since the last call."""
        group: Any = distributed.distributed_c10d._get_default_group()
        found = {**self.calls, "sequence": group._get_sequence_number_for_group()}
        self.calls.clear()
        return found


def digest(net: nn.Module) -> str:
    """Return a hash of this rank's weights."""
    held = hashlib.sha256()
    for tensor in net.state_dict().values():
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        held.update(local.detach().numpy().tobytes())
    return held.hexdigest()


def strategy_of(name: str, phase: str) -> Any:
    if phase == "sharded":
        from pytorch_lightning.strategies import ModelParallelStrategy

        return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    return name


def fit(folder: Path, strategy: str, phase: str, callbacks: list[Any]) -> tuple[Any, Any]:
    pl.seed_everything(3, verbose=False)
    net = Net(phase)
    trainer = pl.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        devices=2,
        strategy=strategy_of(strategy, phase),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(net, torch.utils.data.DataLoader(rows(), 8))
    return trainer, net


class SaveHalfway(pl.Callback):
    """Writes a checkpoint in the middle of the fit."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == STEPS // 2:
            trainer.save_checkpoint(self.path)


def looked_at(folder: Path, phase: str) -> Otoscope:
    probes = [Gradients(every=2), Noise(every=3), System(every=4)]
    probes += [Curvature(first=5, every=6), Landscape(first=8, every=6)]
    if phase == "all_activations":
        probes.append(Activations(every=2, ranks="all"))
    return Otoscope(
        phase.replace("_", "-"),
        budget=1.0,
        probes=probes,
        spool=folder / "spool",
        strict=True,
        verdict=phase == "slow",
    )


def main(folder: Path, strategy: str, phases: list[str]) -> None:
    torch.set_num_threads(1)
    if strategy == "ddp_spawn":  # the ranks are children of this process
        for phase in phases:
            fit(folder, strategy, phase, [looked_at(folder, phase)])
        return
    counter, last = Collectives(), 0
    for phase in phases:
        found: dict[str, Any] = {}
        for how in ("with",) if phase == "raising" else ("without", "with"):
            callback = looked_at(folder, phase)
            callbacks: list[Any] = [callback] if how == "with" else []
            if phase == "halfway":
                callbacks.append(SaveHalfway(folder / "half.ckpt"))
            trainer, net = fit(folder, strategy, phase, callbacks)
            counts = counter.take()
            sequence, counts["sequence"] = counts["sequence"], counts["sequence"] - last
            last = sequence
            found[how] = {
                "weights": digest(net),
                "collectives": counts,
                "logged": {name: float(v) for name, v in trainer.callback_metrics.items()},
                "run": callback.run_id,
            }
        rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
        (folder / f"{phase}-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
