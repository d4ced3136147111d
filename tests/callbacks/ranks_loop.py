"""What the distributed tests launch: one rank of a plain loop with DistributedDataParallel.

`python ranks_loop.py FOLDER KIND`, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set. Kinds:
`ddp` averages gradients, rank 1 being slow; `sharded` shards them with FSDP2; `alone` trains each
rank by itself until it is killed or a file named `stop` appears.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
from otoscope.callbacks import attach
from otoscope.callbacks.probes import Curvature, Gradients, System
from torch import distributed, nn
from torch.nn import functional

STEPS = 20
SLOW_SECONDS = 0.02


def main(folder: Path, kind: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    torch.manual_seed(3)
    net: nn.Module = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3))
    if kind == "ddp":
        net = nn.parallel.DistributedDataParallel(net)
    elif kind == "sharded":
        from torch.distributed.fsdp import fully_shard

        fully_shard(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(rank)
    expected = []
    with attach(
        net,
        optimizer,
        run=kind,
        budget=1.0,
        probes=[Gradients(every=1), System(every=4), Curvature(first=5, every=5)],
        loss_fn=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        spool=folder / "spool",
        strict=True,
        verdict=False,
    ) as recorder:
        step = 0
        while step < STEPS or (kind == "alone" and not (folder / "stop").exists()):
            step += 1
            x = torch.randn(8, 6, generator=generator)
            y = (x[:, 0] > 0).long()
            if kind == "ddp" and rank == 1:
                time.sleep(SLOW_SECONDS)  # the fault itself
            if kind == "alone":
                time.sleep(0.01)  # what a step takes: it goes on until it is stopped
            loss = functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            if kind == "ddp":
                gradients = [p.grad for p in net.parameters() if p.grad is not None]
                expected.append(sum(float(g.square().sum()) for g in gradients))
                nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            optimizer.step()
            recorder.step(loss, batch_size=8, batch=(x, y))
            if step == STEPS:
                (folder / f"steps-{rank}").write_text("reached")
    told = {"run": recorder.run_id, "grad_sq": expected}
    (folder / f"{kind}-{os.environ['RANK']}.json").write_text(json.dumps(told))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
