"""What Otoscope says of long runs that are well: trainings of ten thousand steps in Lightning, the callback as it is.

    python -m benchmarks.long_runs [--steps 10000] [--only gpt] [--seeds 1] [--fresh]

The fault bench has runs of some hundred steps. These are as their authors would leave them alone:
usual nets, data of which no batch comes twice, settings from the textbook (`benchmarks/_long.py`). A
warning is a false alarm, an info is listed. Runs are kept in `benchmarks/out/long`, so that changed
rules judge them anew in seconds. A run counts as well where its validation loss ends no further above its
lowest than 3 % of what was learned. The column `all` looks at layers, curvature and noise far more often, as
the callback does by itself where steps are long: these take milliseconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from otoscope.callbacks import Otoscope
from otoscope.store import connect
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ._data import Batch
from ._long import TRAININGS, Training
from ._trainer import QUIET
from .faults.runs import watched
from .faults.training import COLUMNS

OUT = Path(__file__).parent / "out" / "long"
RESULT = Path(__file__).parent / "results" / "long_runs.json"
VALIDATE_EVERY = 500


class Stream(IterableDataset):
    """The batches of a training, for ever."""

    def __init__(self, training: Training, seed: int) -> None:
        self.training, self.seed = training, seed

    def __iter__(self) -> Iterator[Batch]:
        return self.training.batches(self.training.batch, self.seed)


class Module(lightning.LightningModule):
    """A training as a LightningModule: its net, loss, optimizer and schedule."""

    def __init__(self, training: Training, steps: int) -> None:
        super().__init__()
        self.training_, self.steps, self.net = training, steps, training.net()
        self.course: list[float] = []
        """Validation losses, that of the sanity check before the first step too."""

    def forward(self, x: Tensor) -> Any:
        return self.net(x)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self.training_.loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Batch, index: int) -> None:
        loss = self.training_.loss(self.net(batch[0]), batch[1])
        self.log("val_loss", loss)
        self.course.append(float(loss))

    def configure_optimizers(self) -> Any:
        optimizer = self.training_.optimizer(self.net)
        if self.training_.schedule is None:
            return optimizer
        schedule = self.training_.schedule(optimizer, self.steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def train(name: str, seed: int, column: str, steps: int, folder: Path) -> dict[str, Any]:
    """Train and record one; returns its validation losses, and what the recording cost."""
    training = TRAININGS[name]
    torch.manual_seed(seed)
    module = Module(training, steps)
    otoscope = Otoscope(
        name, spool=folder, task=training.task, verdict=False, strict=True, **COLUMNS[column]
    )
    more = dict(training.trainer)
    trainer = lightning.Trainer(
        max_steps=steps,
        **QUIET,
        callbacks=[otoscope],
        val_check_interval=VALIDATE_EVERY * int(more.get("accumulate_grad_batches", 1)),
        **more,
    )
    begun = time.perf_counter()
    trainer.fit(
        module,
        DataLoader(Stream(training, seed), batch_size=None),
        DataLoader([training.held()], batch_size=None),  # type: ignore[arg-type]
    )
    return {
        "run": str(otoscope.run_id),
        "seconds": time.perf_counter() - begun,
        "share": float(otoscope.overhead.get("share", float("nan"))),
        "course": module.course,
    }


def one(name: str, seed: int, column: str, steps: int, fresh: bool) -> dict[str, Any]:
    """Return what is said of one training, recorded where it is not kept."""
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch")
    for logger in ("pytorch_lightning", "lightning.pytorch", "otoscope"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    folder = OUT / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}-{column}-{steps}"
    kept = folder / "told.json"
    if fresh or not kept.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kept.write_text(json.dumps(train(name, seed, column, steps, folder)), encoding="utf-8")
    told = json.loads(kept.read_text(encoding="utf-8"))
    fired, report = watched(connect(folder / told["run"]), told["run"])
    course = told["course"]
    learned = course[0] - min(course)
    return {
        "training": name,
        "seed": seed,
        "column": column,
        "steps": steps,
        "ms_a_step": round(1000 * told["seconds"] / steps, 2),
        "share": round(told["share"], 4),
        "val_loss": [round(value, 4) for value in (course[0], min(course), course[-1])],
        "well": course[-1] - min(course) <= 0.03 * learned,
        "judged": len(report["judged"]),
        "findings": [
            {**{key: found[key] for key in ("rule", "severity", "state", "title")},
             "fired_at": fired[found["rule"]]}
            for found in report["findings"]
        ],
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Train, judge, print and write; returns 1 where a run that is well is warned of."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--column", choices=tuple(COLUMNS), help="one of them; both by default")
    parser.add_argument("--only", default="")
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args(argv)
    os.environ.pop("OTOSCOPE_URL", None)
    os.environ.setdefault("OTOSCOPE_HOME", str(OUT / "home"))  # no page of the user's takes them in
    chosen = [
        (name, seed, column)
        for column in ([options.column] if options.column else COLUMNS)
        for name in TRAININGS
        if options.only in name
        for seed in range(options.seeds)
    ]
    if not chosen:
        parser.error(
            f"no training has {options.only!r} in its name; there are {', '.join(TRAININGS)}"
        )
    rows = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        asked = [pool.submit(one, *told, options.steps, options.fresh) for told in chosen]
        for row in (future.result() for future in asked):
            rows.append(row)
            _print(row)
    loud = [row for row in rows if _warned(row)]
    well = [row for row in rows if row["well"]]
    alarms = sum(len(_warned(row)) for row in well)
    steps = sum(row["steps"] for row in well)
    print(f"\n{len(rows)} runs, {len(well)} of them well, {steps:,} steps: "
          f"{alarms} false alarms, {1000 * alarms / max(steps, 1):.4f} in 1,000 steps")  # fmt: skip
    if not options.only and not options.column:
        RESULT.write_text(
            json.dumps({"alarms": alarms, "steps": steps, "runs": rows}, indent=1) + "\n"
        )
    return int(any(row["well"] for row in loud))


def _warned(row: dict[str, Any]) -> list[str]:
    return [found["rule"] for found in row["findings"] if found["severity"] != "info"]


def _print(row: dict[str, Any]) -> None:
    first, least, last = row["val_loss"]
    print(f"{row['training']:<24} {row['column']:<8} seed {row['seed']} {row['ms_a_step']:6.2f} ms  cost {row['share']:.3f}  "
          f"val {first:.3f} {least:.3f} {last:.3f} {'well' if row['well'] else 'NOT well'}  "
          f"{row['judged']} judged", flush=True)  # fmt: skip
    for found in row["findings"]:
        print(
            f"    {found['severity']} {found['rule']} at {found['fired_at']:,} ({found['state']}): {found['title']}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
