"""The living packages: their own environment, what they are fed, and what their words stand for."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .alert import OTHER, Alert, episodes
from .asking import PeerError, Worker
from .trace import Trace
from .tracing import OUT

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
VENV = ROOT / "benchmarks" / "out" / "peers-venv"
VERSIONS = {
    "training-doctor": "0.1.0",
    "runmedic": "0.1.1",
    "trainproof": "0.22.0",
    "traintools": "0.6.2",
    "torchmortem": "0.1.1",
}
TORCH = "2.13.0"
READERS = ("training-doctor", "runmedic", "trainproof")
"""Packages that are given a log; the others look on while the run trains."""
STREAMS = ("training-doctor", "traintools")
"""Packages that say what they see while the run goes on; the others list it at the end."""
COLUMNS = {"loss": "loss", "lr": "lr", "grad_norm": "grad_norm", "val_loss": "eval_loss"}
TIMES = {"step_seconds": "step_time", "data_seconds": "data_time"}
PATIENCE = 300.0
"""Seconds that a package may take for one run; the slowest took 40."""
KINDS: dict[str, dict[str, str]] = {
    "training-doctor": {
        "lr_too_high": "rate too high",
        "lr_too_low": "rate too low",
        "plateau": "not learning",
        "overfitting": "overfitting",
        "gradient_instability": "exploding",
    },
    "runmedic": {
        "non_finite": "not finite",
        "divergence": "diverging",
        "loss_spikes": "loss spike",
        "no_learning": "not learning",
        "overfitting": "overfitting",
        "val_below_train": "overfitting",
        "grad_spikes": "gradient spike",
        "constant_lr_plateau": "not learning",
        "input_bound": "waiting for data",
        "slow_steps": "slower",
        "slowdown": "slower",
        "memory_growth": "memory",
    },
    "trainproof": {
        "TP-NAN": "not finite",
        "TP-NAN-GRAD": "not finite",
        "TP-ZERO-LOSS": "not learning",
        "TP-ZERO-LOSS-ONSET": "not finite",
        "TP-FLAT": "not learning",
        "TP-DIVERGE": "diverging",
        "TP-DEAD-RUN": "not learning",
        "TP-ZERO-GRAD": "vanishing",
        "TP-GRAD-SPIKE": "gradient spike",
        "TP-ZERO-LR": "rate too low",
        "TP-ZERO-LR-PARTIAL": "rate too low",
        "TP-OVERFIT": "overfitting",
        "TP-STEP-CLIFF": "slower",
        "TP-THROUGHPUT": "slower",
        "TP-GPU-UTIL": "slower",
        "TP-LOADER-BOUND": "waiting for data",
    },
    "traintools": {
        "non-finite": "not finite",
        "vanished": "vanishing",
        "very large": "exploding",
        "ratio is high": "update too large",
        "ratio is tiny": "rate too low",
        "no gradients": "not updated",
        "batch non-finite": "input",
        "batch abs max": "input",
        "batch nearly constant": "input",
        "batch dominant class": "classes",
        "batch is empty": "input",
        "dormant units": "dead units",
        "low-rank features": "few dimensions",
        "TrainGuard stop": "not learning",
    },
    "torchmortem": {
        "update_ratio: Update ratio too low": "rate too low",
        "update_ratio: Update ratio too high": "update too large",
        "gradient_flow: Vanishing gradients detected": "vanishing",
        "gradient_flow: Exploding gradients detected": "exploding",
        "gradient_flow: Gradient stalling": "vanishing",
        "weight_norm: Weight norm explosion": "weights grow",
        "weight_norm: Stagnant weight norms": "not updated",
        "weight_norm: Inter-layer weight norm imbalance": "weights unlike",
        "dead_units: Dead units": "dead units",
        "saturation: Activation saturation": "saturated",
        "loss_dynamics: Training divergence detected": "diverging",
        "loss_dynamics: Loss plateau detected": "not learning",
        "rank_collapse: Rank collapse": "few dimensions",
        "gradient_noise: High gradient noise (low SNR)": "noisy gradient",
    },
}
"""Which kind each of their words is; one that is not here counts as an alert of no fault, and is told."""


def interpreter() -> Path:
    return VENV / "bin" / "python"


def installed() -> None:
    """Make the peers' environment where it is not there; PeerError says why it cannot be."""
    marker = VENV / "versions.json"
    if marker.exists() and json.loads(marker.read_text()) == VERSIONS:
        return
    # torch is pinned, so that pip takes the CPU build where one is at hand
    pins = [f"torch=={TORCH}", *(f"{name}=={version}" for name, version in VERSIONS.items())]
    commands = (
        [sys.executable, "-m", "venv", str(VENV)],
        [str(interpreter()), "-m", "pip", "install", "-q", "--disable-pip-version-check", *pins],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerError(f"{' '.join(command[:6])} …: {done.stderr.strip()[-300:]}")
    marker.write_text(json.dumps(VERSIONS))


def write_log(trace: Trace, path: Path) -> None:
    """Write the scalars of a trace as a CSV with the names that the readers know."""
    known = {name: column for name, column in {**COLUMNS, **TIMES}.items() if name in trace.series}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *known.values()])
        for place in range(trace.steps):
            values = [float(trace.series[name][place]) for name in known]
            writer.writerow(
                [
                    place + 1,
                    *(_said(name, value) for name, value in zip(known, values, strict=True)),
                ]
            )


def _said(name: str, value: float) -> str:
    """A validation that was not made is an empty field; a loss that is NaN is said."""
    return "" if name.startswith("val") and math.isnan(value) else repr(value)


def worker(peer: str, module: str = "", patience: float = PATIENCE) -> Worker:
    """Return a process of the peers' environment that answers for a package."""
    module = module or ("_readers" if peer in READERS else "_watchers")
    # -P: its own folder holds a `trace`, which is a module of Python, too
    command = [str(interpreter()), "-P", "-m", f"benchmarks.peers.{module}", peer]
    OUT.mkdir(parents=True, exist_ok=True)
    return Worker(
        [*command, sysconfig.get_paths()["purelib"]], patience, OUT,
        PYTHONPATH=str(ROOT), OTOSCOPE_HOME=str(OUT / "home"), OMP_NUM_THREADS="1", PYTHONHASHSEED="0",
    )  # fmt: skip


def alerts_of(peer: str, told: Sequence[Mapping[str, Any]]) -> list[Alert]:
    """Return a package's words as alerts, in its order; repeated ones as one that goes on."""
    kinds = KINDS[peer]
    groups: dict[tuple[str, str], list[int]] = {}
    for item in told:
        if item["severity"] != "info":
            groups.setdefault((item["name"], item["severity"]), []).append(int(item["step"]))
        elif item["name"] in kinds:
            groups.setdefault((item["name"], "info"), []).append(int(item["step"]))
    alerts = [
        alert
        for (name, severity), steps in groups.items()
        for alert in episodes(kinds.get(name, OTHER), name, steps, severity)
    ]
    return sorted(alerts, key=lambda alert: alert.step) if peer in STREAMS else alerts


def state(peer: str) -> str:
    """Return what the kept answers of a peer depend on: its version, and how it is fed."""
    told = hashlib.blake2b(VERSIONS.get(peer, "").encode(), digest_size=6)
    told.update((HERE / ("_readers.py" if peer in READERS else "_watchers.py")).read_bytes())
    return told.hexdigest()
