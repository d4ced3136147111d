"""What a look at a model costs: a sample of curvature and of landscape, in gradients of its pool.

    python -m benchmarks.looking [--rounds 5]

A gradient is the loss and its gradient on the same four batches of 128 samples, one after the other.
Both are timed in turns, in CPU seconds of one thread, medians. Memory is the peak of a process of its
own over what it held before, in copies of the weights of a net of 20 million, on batches so small that
activations do not count; the gradients of the run's own step are within.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from otoscope.callbacks import Curvature, Landscape
from otoscope.callbacks.probes.probe import Training
from torch import Tensor, nn
from torch.nn import functional

from . import _nets

RESULT = Path(__file__).parent / "results" / "looking.json"
PROBES = {"curvature": Curvature, "landscape": Landscape}
NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (lambda: _nets.mlp(784, 10, width=256), lambda: torch.randn(128, 784)),
    "convnet": (lambda: _nets.convnet(norm=True), lambda: torch.rand(128, 64)),
    "transformer": (_nets.Transformer, lambda: torch.randint(0, 96, (128, 32))),
}
Batch = tuple[Tensor, Tensor]


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    out = model(batch[0])
    return functional.cross_entropy(out.mean(1) if out.ndim == 3 else out, batch[1])


class Looked:
    """A net that has trained for some steps, and a probe at it."""

    def __init__(self, net: nn.Module, x: Sequence[Tensor], optimizer: str, probe: str) -> None:
        self.net = net
        self.batches = [(one, torch.randint(0, 10, (len(one),))) for one in x]
        self.optimizer = getattr(torch.optim, optimizer)(net.parameters(), lr=0.001)
        self.probe = PROBES[probe]()
        self.notes: list[str] = []
        self.probe.attach(
            Training(
                net,
                [self.optimizer],
                loss_fn=loss_of,
                batches=lambda: self.batches,
                note=self.notes.append,
            )
        )

    def step(self) -> None:
        self.optimizer.zero_grad()
        loss_of(self.net, self.batches[0]).backward()
        self.optimizer.step()

    def look(self) -> float:
        """Take a step, and return the seconds of a sample behind it."""
        begun = time.thread_time()
        self.probe.arm(1)
        armed = time.thread_time() - begun
        self.step()
        begun = time.thread_time()
        self.probe.sample(1)
        if self.notes:
            raise RuntimeError(self.notes[0])
        return armed + time.thread_time() - begun

    def gradient(self) -> float:
        begun = time.thread_time()
        for batch in self.batches:
            torch.autograd.grad(loss_of(self.net, batch), list(self.net.parameters()))
        return time.thread_time() - begun


def gradients(net: str, optimizer: str, probe: str, rounds: int) -> float:
    """Return what a sample costs, in gradients of the pool."""
    make, draw = NETS[net]
    looked = Looked(make(), [draw() for _ in range(4)], optimizer, probe)
    for _ in range(12):
        looked.step()
    looked.look()
    pairs = [(looked.look(), looked.gradient()) for _ in range(rounds)]
    look, gradient = (statistics.median(part) for part in zip(*pairs, strict=True))
    return look / gradient


def copies(probe: str) -> float:
    """Return the memory that a sample adds to this process at its peak, in copies of the weights."""
    net = nn.Sequential(*[nn.Linear(2000, 2000) for _ in range(5)])
    size = sum(p.numel() for p in net.parameters()) * 4
    looked = Looked(net, [torch.randn(8, 2000) for _ in range(4)], "SGD", probe)
    looked.step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    looked.look()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / size


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.looking", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", choices=PROBES, help="print the copies of one probe, and end")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.copies:
        print(copies(arguments.copies))
        return 0
    found: dict[str, dict[str, float]] = {}
    print(f"{'':24}{'curvature':>12}{'landscape':>12}")
    for net in NETS:
        for optimizer in ("SGD", "Adam"):
            row = {probe: gradients(net, optimizer, probe, arguments.rounds) for probe in PROBES}
            found[f"{net}, {optimizer}"] = row
            print(f"{net + ', ' + optimizer:24}" + "".join(f"{row[p]:12.1f}" for p in PROBES))
    command = [sys.executable, "-m", "benchmarks.looking", "--copies"]
    row = {
        probe: float(subprocess.run([*command, probe], check=True, capture_output=True).stdout)
        for probe in PROBES
    }
    found["copies of the weights"] = row
    print(f"{'copies of the weights':24}" + "".join(f"{row[p]:12.1f}" for p in PROBES))
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
