"""What the tests of machines launch: one rank of a plain loop, in several phases of one job.

`python machines_job.py FOLDER PHASE…`, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set. Every
phase is a run: `even` is healthy (uneven last batches, dropout, batch norm whose buffers differ),
`straggling` has a slow rank 1, `normed` as well, where a batch norm's buffers are made alike in each
forward pass, `alone` averages no gradients from step 65 on, `same_batches` lacks a sampler that gives
each rank its own part.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
from otoscope.callbacks import attach
from otoscope.callbacks.probes import Gradients, Replicas, System
from torch import distributed, nn
from torch.nn import functional

STEPS = {"even": 100, "straggling": 230, "normed": 230, "alone": 120, "same_batches": 80}
SLOW_SECONDS = 0.008
APART = 65
"""Step from which the phase `alone` averages nothing."""


def net_of(phase: str) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    norm = [nn.BatchNorm1d(7), nn.Dropout(0.2)] if phase in ("even", "normed") else []
    net = nn.Sequential(nn.Linear(6, 7), *norm, nn.ReLU(), nn.Linear(7, 3))
    return nn.parallel.DistributedDataParallel(net, broadcast_buffers=phase == "normed"), net


def train(folder: Path, phase: str, rank: int) -> str:
    net, inner = net_of(phase)
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(0 if phase == "same_batches" else rank)
    with attach(
        net,
        optimizer,
        run=phase.replace("_", "-"),
        budget=1.0,
        probes=[Gradients(every=20), System(every=20), Replicas(every=20)],
        spool=folder / "spool",
        strict=True,
        verdict=False,
    ) as recorder:
        for step in range(1, STEPS[phase] + 1):
            size = 5 + rank if phase == "even" and step % 10 == 0 else 8
            x = torch.randn(size, 6, generator=generator)
            y = (x[:, 0] > 0).long()
            if phase in ("straggling", "normed") and rank == 1:
                time.sleep(SLOW_SECONDS)  # the fault itself
            alone = phase == "alone" and step >= APART
            output = inner(x) if alone else net(x)
            loss = functional.cross_entropy(output, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss, batch_size=size, batch=(x, y))
    return recorder.run_id


def main(folder: Path, phases: list[str]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    told = {}
    for phase in phases:
        torch.manual_seed(rank)
        told[phase] = train(folder, phase, rank)
        distributed.barrier()
    (folder / f"machines-{os.environ['RANK']}.json").write_text(json.dumps(told))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
