"""What a log alone tells: the bench's runs judged by the losses, rates and scores that any logger writes.

    python -m benchmarks.faults.logs [--set held-out tuning] [--every 1 10] [--jobs 2]

Each run's first seed is written as a CSV file of every n-th step (and of each validation), read as
`otoscope diagnose FILE` reads it, and judged with all rules. Runs that are not kept are trained first.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from otoscope.diagnostics.judging import judge
from otoscope.store import EmptySelectionError, Series, Store, connect
from otoscope.store.foreign import read_foreign

from .card import interval
from .case import SETS, Case, load_cases
from .running import over_cores
from .runs import recorded

RESULT = Path(__file__).parents[1] / "results" / "logs.json"
HEAD = ("step", "train_loss", "lr", "val_loss", "val_accuracy")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.logs", description=__doc__)
    parser.add_argument("--set", choices=SETS, nargs="+", default=["held-out", "tuning"])
    parser.add_argument("--every", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(argv)
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for name in options.set:
        cases = [case for case in load_cases() if case.set == name and case.body["loop"] == "plain"]
        for every in options.every:
            tasks = [AsLog(case, every) for case in cases]
            rows = over_cores(judged_as_log, tasks, options.jobs, f"{name}, every {every}")
            kept[f"{name}, every {every}"] = told = summed(rows)
            print(f"{name}, a row every {every}: {sentence(told)}", flush=True)
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


@dataclass(frozen=True)
class AsLog:
    """A case of the bench, and of how many steps its log holds one."""

    case: Case
    every: int


def judged_as_log(task: AsLog) -> dict[str, Any]:
    """Return what is said of a run by its log alone: whether it warns, and by which rules."""
    case = task.case
    folder = recorded(case, 0, "defaults")
    run = str(json.loads((folder / "told.json").read_text(encoding="utf-8"))["run"])
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "metrics.csv"
        write_log(connect(folder / run), run, path, task.every)
        log = read_foreign(path)
        answer = judge(Store(log.home), log.run)
    warned = [finding["rule"] for finding in answer["findings"] if finding["severity"] != "info"]
    return {"case": case.name, "kind": case.kind, "warned": warned, "expect": list(case.expect)}


def write_log(store: Store, run: str, path: Path, every: int) -> None:
    """Write a run's curves as a CSV file with a row of every n-th step, and one of each validation."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(HEAD)
        train = store.read(run, "train")
        rate = next((name for name in train.columns if name.partition("/")[0] == "lr"), "")
        for step, loss, lr in zip(
            train.steps, _column(train, "loss"), _column(train, rate), strict=True
        ):
            if step % every == 0 or not np.isfinite(loss):
                rows.writerow([step, loss, "" if np.isnan(lr) else lr, "", ""])
        try:
            scores = store.read(run, "validation")
        except EmptySelectionError:
            return
        columns = [_column(scores, name) for name in HEAD[3:]]
        for step, *values in zip(scores.steps, *columns, strict=True):
            rows.writerow([step, "", "", *("" if np.isnan(value) else value for value in values)])


def _column(series: Series, name: str) -> np.ndarray:
    return series.column(name) if name in series.columns else np.full(len(series.steps), np.nan)


def summed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return runs, those warned of, and those by an expected rule; of faults and of runs that are well."""
    ill = [row for row in rows if row["kind"] == "fault"]
    well = [row for row in rows if row["kind"] != "fault"]
    flagged = [row for row in well if row["warned"]]
    return {
        "faults": len(ill),
        "warned": sum(bool(row["warned"]) for row in ill),
        "by_an_expected_rule": sum(bool({*row["warned"]} & {*row["expect"]}) for row in ill),
        "well": len(well),
        "flagged": len(flagged),
        "flagged_interval": interval(len(flagged), len(well)),
        "flagged_cases": {row["case"]: row["warned"] for row in flagged},
    }


def sentence(told: dict[str, Any]) -> str:
    low, high = (100 * share for share in told["flagged_interval"])
    return (
        f"{told['warned']} of {told['faults']} faults warned of, {told['by_an_expected_rule']} by a rule "
        f"that was wanted; {told['flagged']} of {told['well']} runs that are well ({low:.1f} to {high:.1f} %)"
    )


if __name__ == "__main__":
    sys.exit(main())
