"""Runs that their author holds for well and that were warned of: what became of them, alone and as advised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .advice import NoSettingError, applied
from .running import Task
from .runs import OUT, trained

LEARNED = 0.02
"""Share of its first validation loss by which a run must have come down to have learned anything."""


def tasks_of(tasks: Sequence[Task], rows: Sequence[Mapping[str, Any]]) -> list[Task]:
    """Return the tasks of the runs that are well and were warned of, each with its alarm."""
    return [
        Task(task.case, task.seed, task.column, advice=row["alarms"][0])
        for task, row in zip(tasks, rows, strict=True)
        if task.case.kind != "fault" and row["alarms"]
    ]


def followed(task: Task) -> dict[str, Any]:
    """Return one alarm, and the validation losses: before the first step, left alone, and as advised.

    Where only a person can act on the advice, `why_not` says so; a loss that is no number is None.
    """
    alarm = task.advice
    left = trained(task.case.body, task.seed, OUT)
    row = {
        "case": task.case.name,
        "seed": task.seed,
        "set": task.case.set,
        "column": task.column,
        **{key: alarm[key] for key in ("rule", "severity", "first_step")},
        "first": left["first"],
        "nothing": left["last"],
        "advised": None,
        "parameter": alarm["recommendation"]["parameter"],
        "proposed": alarm["recommendation"]["proposed"],
    }
    try:
        row["advised"] = trained(applied(task.case.body, alarm["recommendation"]), task.seed, OUT)[
            "last"
        ]
    except NoSettingError as error:
        row["why_not"] = str(error)
    return row


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return of how many warned runs nothing had been learned, and how many ended lower or higher as advised.

    Lower and higher by more than `LEARNED` of the first loss; an ending that is no number is as high as any.
    """
    untaught = [row for row in rows if not _end(row, "nothing") < (1 - LEARNED) * row["first"]]
    moved = [
        (_end(row, "nothing") - _end(row, "advised")) / row["first"]
        for row in rows
        if "why_not" not in row
    ]
    return {
        "runs": len(rows),
        "untaught": len(untaught),
        "lower": sum(share > LEARNED for share in moved),
        "higher": sum(share < -LEARNED for share in moved),
    }


def _end(row: Mapping[str, Any], key: str) -> float:
    """Return how a run ended, never over its first loss: what blew up is as useless as what stood still."""
    end = float("inf") if row[key] is None else float(row[key])
    return min(end, float(row["first"]))
