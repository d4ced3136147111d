"""What a run's start and end cost with Otoscope: runs of one step with and without it, interleaved.

    python -m benchmarks.ends [--runs 20]

A run of one step has all of both: hooking in, the first look of each probe, what is told of the run, the
wait until the last frame is stored. The loader, the Trainer and the model are there in both. Printed: the
median of what it takes more, in ms, with its 90 % bootstrap interval, the same of two without (A/A), and
what Otoscope says of it. `benchmarks.steps` adds it to what the steps cost.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from otoscope.callbacks import Otoscope

from .overhead import NETS, Net, interval, run

WARM = 3
"""Rounds before the first that counts: the first run of a process loads code."""


@dataclass(frozen=True)
class Ends:
    """Seconds that start, one step and end of a run take more, and what Otoscope says of them."""

    more: np.ndarray
    """[runs]"""
    a_a: float
    says: float

    @property
    def costs(self) -> float:
        return float(np.median(self.more))


def ends(net: Net, runs: int, **settings: Any) -> Ends:
    """Train so many times one step with it, and twice without, in an order drawn anew each time."""
    chance = random.Random(0)
    rows: list[list[float]] = []
    said: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(WARM + runs):
            row = [0.0] * 3
            for role in chance.sample(range(3), 3):
                callback = Otoscope(**settings, spool=folder, verdict=False) if role == 0 else None
                row[role], _ = run(net, 1, callback)
                if callback is not None:
                    said.append(callback.overhead["seconds"])
            rows.append(row)
    more = [row[0] - (row[1] + row[2]) / 2 for row in rows[WARM:]]
    return Ends(
        more=np.array(more),
        a_a=statistics.median(row[1] - row[2] for row in rows[WARM:]),
        says=statistics.median(said[WARM:]),
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args(argv)
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    for name in ("pytorch_lightning", "lightning.pytorch", "otoscope"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print(f"ends: {options.runs} runs of one step with Otoscope, and twice as many without")
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("OTOSCOPE_HOME", home)
        for net in NETS:
            print(line(net.name, ends(net, options.runs)), flush=True)
    return 0


def line(name: str, found: Ends) -> str:
    """Return what was found of a net in a line."""
    low, high = interval(found.more.tolist())
    return (
        f"  {name:<12} start, one step and end cost {1e3 * found.costs:5.1f} ms ({1e3 * low:.1f}-{1e3 * high:.1f})"
        f"   A/A {1e3 * found.a_a:+.1f} ms   says {1e3 * found.says:.1f} ms"
    )


if __name__ == "__main__":
    raise SystemExit(main())
