"""How right the noise scale is: its error and the coverage of its interval, where the answer is known.

    python -m benchmarks.noise [--seeds 4] [--no-ranks]

A regression at fixed weights, whose gradient's mean and covariance are known (20 dimensions, noise scale
33.2), is fitted by Lightning with the noise probe alone: from half batches, from an eighth of the batch
(where the loss proves to be a mean), from micro-batches, and in two processes from ranks, alone and with
micro-batches. Each window of ten samples is an estimate of its own. Printed by source: the bias of the
ratio of means, the median error of a window, and how many of the 95 % intervals cover the truth, with
Clopper-Pearson's interval of that share. The first rows are the estimator alone, on 200 draws a batch size.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from otoscope.store import connect

from tests.callbacks.launching import Job
from tests.callbacks.regressions import SCALE, WINDOW, WINDOWS, estimates, fit, rows
from tests.callbacks.test_noise import Coupled
from tests.store.test_noise import estimates as drawn

from .faults.card import interval

RESULT = Path(__file__).parent / "results" / "noise.json"
BATCH = 128
ROOT = Path(__file__).parents[1]


def halves(folder: Path, seed: int) -> np.ndarray:
    return estimates(fit(folder, rows(BATCH * WINDOW * WINDOWS, seed), BATCH, net=Coupled())[0])


def eighths(folder: Path, seed: int) -> np.ndarray:
    return estimates(fit(folder, rows(BATCH * WINDOW * WINDOWS, seed), BATCH)[0])


def micro(folder: Path, seed: int) -> np.ndarray:
    data = rows(BATCH * WINDOW * WINDOWS, seed)
    return estimates(fit(folder, data, BATCH // 2, accumulate_grad_batches=2)[0])


SOURCES: dict[str, Callable[[Path, int], np.ndarray]] = {
    "half batches": halves,
    "an eighth of the batch": eighths,
    "two micro-batches": micro,
}


def of_ranks(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what two processes have found: one micro-batch in a step, and two."""
    with Job(folder / "job") as job:
        job.start_ranks("noise_job.py", [], {"PYTHONPATH": str(ROOT)})
        job.wait()
    for parts, name in ((1, "two ranks"), (2, "two ranks, two micro-batches")):
        run = (job.folder / f"run-{parts}.txt").read_text()
        yield name, estimates(connect(job.folder / "spool" / run).read(run, "noise"))


def summary(name: str, found: np.ndarray) -> dict[str, float | str | int]:
    """Print and return bias, error and coverage of the windows' estimates, float64[n, 5]."""
    scale, low, high, gradient_sq, trace = found.T
    covered = int(((low <= SCALE) & (high >= SCALE)).sum())
    from_, to = interval(covered, len(found))
    row: dict[str, float | str | int] = {
        "source": name,
        "windows": len(found),
        "bias": float(np.mean(trace) / np.mean(gradient_sq) / SCALE - 1),
        "error": float(np.nanmedian(np.abs(scale / SCALE - 1))),
        "undetermined": float(np.isnan(scale).mean()),
        "covered": covered / len(found),
        "covered_low": from_,
        "covered_high": to,
    }
    print(
        f"  {name:<32}{len(found):>8}{100 * float(row['bias']):>+9.1f} %"
        f"{100 * float(row['error']):>10.1f} %{100 * covered / len(found):>10.1f} %"
        f"  ({100 * from_:.1f}-{100 * to:.1f})",
        flush=True,
    )
    return row


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4, help="fits of each source")
    parser.add_argument("--no-ranks", action="store_true", help="one process alone")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print(f"noise scale where {SCALE:.1f} is true: windows of {WINDOW} samples")
    print(f"  {'source':<32}{'windows':>8}{'bias':>11}{'error':>12}{'covered':>12}  (95 %)")
    found = [
        summary(f"estimator, batch {big}, {steps} steps", drawn(big, steps))
        for big, steps in ((8, 500), (32, 70), (128, 20))
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("OTOSCOPE_HOME", str(Path(folder) / "home"))
        for name, source in SOURCES.items():
            parts = [source(Path(folder) / f"{name}-{seed}", seed) for seed in range(options.seeds)]
            found.append(summary(name, np.concatenate(parts)))
        if not options.no_ranks:
            found += [summary(name, each) for name, each in of_ranks(Path(folder))]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
