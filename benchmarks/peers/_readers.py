"""Runs in the peers' own environment: packages that read a log. Usage: -m benchmarks.peers._readers PEER.

A line of its input is a task, {"csv"}; each is answered by a line, {"alerts": [{"name", "title",
"severity", "step"}], "seconds": CPU of the judging}, or with "error" in place of the seconds.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

AVERAGED = 5
"""Steps of a trainproof record: its gallery logs the mean of five."""


def training_doctor(path: str) -> list[dict[str, Any]]:
    """`doctor.log(step, loss=…, lr=…, grad_norm=…)` in every step, as its quick start has it."""
    doctor = importlib.import_module("training_doctor").Doctor()
    doctor.set_auto_print(False)
    told = []
    with Path(path).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            step = int(row.pop("step"))
            metrics = {name: float(value) for name, value in row.items() if value}
            told += [
                _alert(found.detector_name, found.problem, found.severity.value, step)
                for found in doctor.log(step=step, **metrics)
            ]
    return told


def runmedic(path: str) -> list[dict[str, Any]]:
    """`runmedic diagnose run.csv --json`, by the functions that the command calls."""
    loaders = importlib.import_module("runmedic.loaders")
    roles = importlib.import_module("runmedic.roles")
    checks = importlib.import_module("runmedic.checks")
    told = []
    for run in loaders.load(path):
        told += [
            _alert(found.check, found.title, found.severity, found.step or 0)
            for found in checks.run_checks(run, roles.detect(run))
        ]
    return told


def trainproof(path: str) -> list[dict[str, Any]]:
    """`trainproof epoch log.csv` on records that average five steps, as a trainer logs them."""
    averaged = Path(path).with_suffix(".averaged.csv")
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])
    with averaged.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for end in range(AVERAGED, len(rows) + 1, AVERAGED):
            part = rows[end - AVERAGED : end]
            row = dict(part[-1])
            row["loss"] = str(sum(float(one["loss"]) for one in part) / AVERAGED)
            for name in names:
                known = [one[name] for one in part if one[name]]
                row[name] = row[name] or (known[-1] if known else "")
            writer.writerow(row)
    verdict = importlib.import_module("trainproof.epoch").check_epoch(averaged)
    level = {"FAIL": "critical", "WARN": "warning"}
    return [
        _alert(found["id"], found["message"], level.get(found["level"], "info"), 0)
        for found in verdict["findings"]
    ]


def _alert(name: str, title: str, severity: str, step: float) -> dict[str, Any]:
    return {"name": name, "title": title, "severity": severity, "step": int(step)}


READERS = {"training-doctor": training_doctor, "runmedic": runmedic, "trainproof": trainproof}


def answered(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Answer each line of the input by one; whatever else is printed goes where errors go."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a peer may print, and so does LAPACK where a matrix holds NaN
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=lines, flush=True)
    return 0


def main() -> int:
    read = READERS[sys.argv[1]]

    def answer(task: dict[str, Any]) -> dict[str, Any]:
        begun = time.process_time()
        try:
            alerts = read(task["csv"])
        except Exception as error:  # a peer's own failure is a result here
            return {"alerts": [], "error": f"{type(error).__name__}: {error}"}
        return {"alerts": alerts, "seconds": time.process_time() - begun}

    return answered(answer)


if __name__ == "__main__":
    sys.exit(main())
