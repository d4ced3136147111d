"""Training over several processes of a gloo job, one of them slow, out of step, or on the same data.

`python -m benchmarks.faults.ranks JOB.json` is what each process runs.
"""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import attach
from torch import Tensor, distributed, nn

from .._data import batches
from . import datasets, parts
from .training import score

LONGEST = 300
"""Seconds after which a job that hangs is ended."""


def train_in_ranks(
    body: Mapping[str, Any], seed: int, folder: Path, name: str, **how: Any
) -> dict[str, Any]:
    """Train a body in as many processes as its `ranks` say; returns what `train` returns."""
    job = folder / "job.json"
    told = {"body": dict(body), "seed": seed, "folder": str(folder), "name": name, "how": how}
    job.write_text(json.dumps(told), encoding="utf-8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    world = int(body["ranks"])
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
    }
    begun = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.faults.ranks", str(job)]
    processes = [
        subprocess.Popen(
            command,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        errors = [process.communicate(timeout=LONGEST)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{name}: a rank failed\n" + "\n".join(errors)[-3000:])
    ended = json.loads((folder / "ended.json").read_text(encoding="utf-8"))
    return {**ended, "seconds": time.perf_counter() - begun}


def main(job: Path) -> None:
    """Train one rank of a job."""
    told = json.loads(job.read_text(encoding="utf-8"))
    body, seed, folder = told["body"], int(told["seed"]), Path(told["folder"])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(seed)
    split = datasets.load(body["data"], body["normalize"])
    loss_of, alone = parts.loss_of(body), parts.net_of(body)
    net: nn.Module = nn.parallel.DistributedDataParallel(
        alone, find_unused_parameters=_has_unused(alone, split.train, loss_of)
    )
    optimizer = parts.optimizer_of(body, net)
    machine: Mapping[str, Any] = body["machine"] or {}
    same = bool(machine.get("same_batches"))
    stream = batches(
        split.train, int(body["batch"]), seed if same else 1000 * seed + rank, body["order"]
    )
    first = score(net, split.validation, loss_of)

    def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return loss_of(model(batch[0]), batch[1])

    losses = []
    with attach(
        net, optimizer, loss_fn=loss_fn, run=told["name"], max_steps=int(body["steps"]), spool=folder,
        task=str(body["task"]), verdict=False, strict=True, **told["how"],
    ) as recorder:  # fmt: skip
        for step in range(1, int(body["steps"]) + 1):
            batch = (
                parts.spoiler_of(body)(step, next(stream)) if _mine(machine, rank) else next(stream)
            )
            if _mine(machine, rank) and step >= int(machine.get("start", 1)):
                time.sleep(float(machine.get("seconds", 0.0)))
                if step % int(machine.get("drift_every", sys.maxsize)) == 0:
                    _drift(net)
            optimizer.zero_grad()
            loss = loss_fn(net, batch)
            loss.backward()
            if body["clip"] is not None:
                nn.utils.clip_grad_norm_(net.parameters(), float(body["clip"]))
            optimizer.step()
            losses.append(float(loss.detach()))
            recorder.step(loss, int(body["batch"]), batch)
    if rank == 0:
        last = score(
            net.module, split.validation, loss_of
        )  # buffers are broadcast from within the wrapper
        ended = {
            "run": str(recorder.run_id),
            "first": first["val_loss"],
            "last": last["val_loss"],
            "accuracy": last.get("val_accuracy"),
            "losses": losses[::10],
            "world": world,
        }
        (folder / "ended.json").write_text(json.dumps(ended), encoding="utf-8")
    distributed.destroy_process_group()


def _has_unused(net: nn.Module, rows: tuple[Tensor, ...], loss_of: Any) -> bool:
    """Tell whether some parameter has no part in the loss, of which the ranks must know; changes nothing."""
    with torch.random.fork_rng():
        probe = copy.deepcopy(net)
        loss_of(probe(rows[0][:8]), rows[1][:8]).backward()
    return any(p.requires_grad and p.grad is None for p in probe.parameters())


def _mine(machine: Mapping[str, Any], rank: int) -> bool:
    """Tell whether what is planted is planted into this rank; into all where none is named."""
    return int(machine.get("rank", rank)) == rank


def _drift(net: nn.Module) -> None:
    """Change this rank's weights as a step that others did not take would."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1e-3 * torch.randn_like(parameter))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
