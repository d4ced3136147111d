"""What it costs to measure far more often than the budget would: every step, every 16th, every 64th.

    python -m benchmarks.every_step [--repeats 5] [--seconds 2] [--only mlp]

The nets are those on which Cockpit 1.0.2 was measured (batch 128, plain SGD, one thread), and its
ratios stand beside ours: "economy" holds norms and histograms, "business" adds second-order
quantities, "full" the top eigenvalues. Here `norms` are gradient, weight and update norms of every
layer, `+ activations` saturation and dead units, `+ noise` the noise scale from two half batches, and
`curvature alone` the top eigenvalue and the Newton gain, on four batches. Each ratio is the wall time of the
steps behind the twentieth to that of the same run without a callback, medians over interleaved repeats.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from otoscope.callbacks import Otoscope
from otoscope.callbacks.probes import Activations, Curvature, Gradients, Noise, Probe
from torch import nn

from . import overhead
from .overhead import WARM, Module, Net, run

RESULT = Path(__file__).parent / "results" / "every_step.json"
CADENCES = (1, 16, 64)
SETTLED = 20
"""Steps before the clock starts: by then every probe has begun."""
NORMS, LAYERS = (Gradients,), (Gradients, Activations)
KINDS: dict[str, tuple[Callable[..., Probe], ...]] = {
    "norms": NORMS,
    "+ activations": LAYERS,
    "+ noise": (*LAYERS, Noise),
    "curvature alone": (Curvature,),
}
COCKPIT = {
    "mlp": {"economy": (345, 25, 7.2), "business": (404, 29, 8.3), "full": (1250, 81, 21.6)},
    "convnet": {
        "economy": (3.3, 1.38, 1.18),
        "business": (11.9, 1.89, 1.30),
        "full": (72, 4.9, 2.0),
    },
}
"""Ratios at every 1, 16 and 64 steps, on a machine of two cores."""


def convnet() -> nn.Module:
    """16, 32 and 32 channels and two linear layers, on 3 x 32 x 32."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


NETS = (
    Net("mlp", overhead.mlp, (784,), batch=128),
    Net("convnet", convnet, (3, 32, 32), batch=128),
)


class PlainSGD(Module):
    """The training of a net by plain SGD, as Cockpit's was, timed from step 21 on."""

    seconds: ClassVar[float] = math.nan
    begun = math.nan

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.global_step == SETTLED:
            self.begun = time.perf_counter()

    def on_train_end(self) -> None:
        PlainSGD.seconds = time.perf_counter() - self.begun

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-2)


def callback(kind: str, every: int, spool: Path) -> Otoscope:
    """Return one that measures a kind at a fixed cadence."""
    probes = [probe(every=every) for probe in KINDS[kind]]
    return Otoscope(
        run="every step", budget=1.0, probes=probes, spool=spool, verdict=False, strict=True
    )


def ratio(net: Net, steps: int, repeats: int, kind: str, every: int, spool: Path) -> float:
    """Return the median wall ratio of a run that measures a kind to one without, interleaved."""
    found: list[float] = []
    for repeat in range(repeats):
        turns: list[Otoscope | None] = [None, callback(kind, every, spool)]
        seconds: dict[int, float] = {}
        for turn in (0, 1) if repeat % 2 else (1, 0):
            run(net, SETTLED + steps, turns[turn], PlainSGD)
            seconds[turn] = PlainSGD.seconds
        found.append(seconds[1] / seconds[0])
    return statistics.median(found)


def measure(net: Net, repeats: int, seconds: float, spool: Path) -> dict[str, Any]:
    """Return our ratios by kind and cadence, and the plain step's milliseconds."""
    run(net, WARM, None, PlainSGD)
    step = run(net, WARM, None, PlainSGD)[0] / WARM
    steps = max(2 * max(CADENCES), round(seconds / step))
    rows: dict[str, list[float]] = {}
    for kind in KINDS:
        # curvature at every step takes a hundred times the step: a few steps tell that
        rows[kind] = [
            ratio(
                net, max(8, 2 * n) if kind == "curvature alone" else steps, repeats, kind, n, spool
            )
            for n in CADENCES
        ]
        cells = "".join(f"{value:>10.2f}" for value in rows[kind])
        print(f"  {net.name:<10}{kind:<22}{cells}", flush=True)
    for kind, published in COCKPIT[net.name].items():
        cells = "".join(f"{value:>10g}" for value in published)
        print(f"  {net.name:<10}{'Cockpit, ' + kind:<22}{cells}")
    return {"step_ms": 1000 * step, "steps": steps, "ratios": rows, "cockpit": COCKPIT[net.name]}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a run")
    parser.add_argument("--only", choices=[net.name for net in NETS])
    options = parser.parse_args(argv)
    if options.repeats < 1 or options.seconds <= 0:
        parser.error("--repeats must be at least 1, and --seconds over 0")
    for name in ("pytorch_lightning", "lightning.pytorch", "otoscope"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print("every step: the same runs without a callback are 1")
    print(f"  {'net':<10}{'measured':<22}" + "".join(f"{f'every {n}':>10}" for n in CADENCES))
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("OTOSCOPE_HOME", str(Path(folder) / "home"))
        nets = {
            net.name: measure(net, options.repeats, options.seconds, Path(folder))
            for net in NETS
            if options.only in (None, net.name)
        }
    report = {"torch": torch.__version__, "python": platform.python_version(), "nets": nets}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
