"""What each family of measurements costs: one sample, its share of a run, and the memory of all.

    python -m benchmarks.families [--seconds 12] [--budget 0.02] [--probes all] [--only mlp]

The three nets of `benchmarks.overhead` train with the callback as a user has it, which books what every
sample costs under its probe. Printed by family: the samples taken, what one costs in steps of the net, and
its share of the run's wall time; "throughput" is what following every step costs, "sender" the CPU time of
the background thread, "start" what it takes to begin. `benchmarks.steps` holds these books against the
clock, `benchmarks.overhead` against whole runs. Memory is the peak of a process of its own, with the
callback and without, medians over interleaved pairs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import Otoscope

from .overhead import NETS, WARM, Net, run

RESULT = Path(__file__).parent / "results" / "families.json"
MEMORY_PAIRS = 5
MIB = 1 << 20


class Booked(Otoscope):
    """The callback, whose books can still be read when the fit is over."""

    books: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self.books = self.recorder


def recorded(net: Net, steps: int, budget: float, probes: str, spool: Path) -> Booked:
    """Train with the callback, and return it."""
    callback = Booked(run=net.name, budget=budget, probes=probes, spool=spool, verdict=False)
    run(net, steps, callback)
    return callback


def families(callback: Booked, step_seconds: float) -> dict[str, dict[str, float]]:
    """Return samples, what one costs in steps, and the share of the run, by family."""
    told = callback.overhead
    whole = told["seconds"] / told["share"]
    claims = callback.books._budget.claims
    found = {}
    for name, seconds in told["probes"].items():
        samples = claims[name].samples if name in claims else 0
        each = seconds / samples / step_seconds if samples else 0.0
        found[name] = {"samples": samples, "steps": each, "share": seconds / whole}
    return found


def measure(net: Net, seconds: float, budget: float, probes: str, spool: Path) -> dict[str, Any]:
    run(net, WARM, None)
    step = run(net, WARM, None)[0] / WARM
    callback = recorded(net, max(WARM, round(seconds / step)), budget, probes, spool)
    rows = families(callback, step)
    print(f"  {net.name}, a step of {1000 * step:.2f} ms")
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["share"]):
        taken = f"{row['samples']:>8}{row['steps']:>12.2f}" if row["samples"] else f"{'':>20}"
        print(f"    {name:<24}{taken}{100 * row['share']:>10.2f} %")
    total = sum(row["share"] for row in rows.values())
    print(f"    {'in total':<24}{'':>20}{100 * total:>10.2f} %", flush=True)
    return {"step_ms": 1000 * step, "families": rows, "share": total}


def peak(net: Net, watched: bool, budget: float, probes: str) -> int:
    """Return the bytes that this process held at most while the net trained."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        if watched:
            recorded(net, 20 * WARM // (10 if net.words else 1), budget, probes, Path(folder))
        else:
            run(net, 20 * WARM // (10 if net.words else 1), None)
    return high_water()


def high_water() -> int:
    """Return the most bytes that this process held.

    Linux's own `ru_maxrss` begins at what the process that started this one held, so it is not asked there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    seen = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seen if sys.platform == "darwin" else seen * 1024


def memory(net: Net, budget: float, probes: str) -> dict[str, float]:
    """Print and return the peak MiB of processes without the callback and with it, medians."""
    seen: dict[str, list[int]] = {"plain": [], "watched": []}
    for pair in range(MEMORY_PAIRS):
        for kind in ("plain", "watched") if pair % 2 else ("watched", "plain"):
            command = [sys.executable, "-m", "benchmarks.families", "--peak", kind]
            command += ["--only", net.name, "--budget", str(budget), "--probes", probes]
            seen[kind].append(int(subprocess.run(command, check=True, capture_output=True).stdout))
    plain, watched = (statistics.median(seen[kind]) / MIB for kind in ("plain", "watched"))
    print(f"  {net.name:<14}{plain:>8.0f} MiB{watched:>8.0f} MiB{watched - plain:>+8.0f} MiB",
          flush=True)  # fmt: skip
    return {"plain_mib": plain, "watched_mib": watched}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="length of a run")
    parser.add_argument("--budget", type=float, default=0.02)
    parser.add_argument("--probes", choices=["default", "all"], default="default")
    parser.add_argument("--only", choices=[net.name for net in NETS])
    parser.add_argument("--peak", choices=["plain", "watched"], help="print one peak, and end")
    options = parser.parse_args(argv)
    if options.seconds <= 0:
        parser.error("--seconds must be over 0")
    for name in ("pytorch_lightning", "lightning.pytorch", "otoscope"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    nets = [net for net in NETS if options.only in (None, net.name)]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("OTOSCOPE_HOME", str(Path(folder) / "home"))
        if options.peak:
            print(peak(nets[0], options.peak == "watched", options.budget, options.probes))
            return 0
        print(f"families: budget {options.budget:g}, {options.probes} probes")
        print(f"    {'family':<24}{'samples':>8}{'one, steps':>12}{'share':>12}")
        found = {
            net.name: measure(net, options.seconds, options.budget, options.probes, Path(folder))
            for net in nets
        }
    print(f"  {'peak memory':<14}{'without':>12}{'with':>12}{'more':>12}")
    for net in nets:
        found[net.name]["memory"] = memory(net, options.budget, options.probes)
    report = {"budget": options.budget, "probes": options.probes, "nets": found}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
