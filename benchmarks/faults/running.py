"""Running the bench: tasks over the cores, one torch thread each, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .card import card, row_of
from .case import Case
from .runs import judged


@dataclass(frozen=True)
class Task:
    """One case, one seed, one column."""

    case: Case
    seed: int
    column: str
    fresh: bool = False


def done(task: Task) -> dict[str, Any]:
    """Record and judge one run; returns its row."""
    told = judged(task.case, task.seed, task.column, fresh=task.fresh)
    return row_of(task.case, task.seed, task.column, told)


def over_cores(work: Callable[[Any], Any], items: Sequence[Any], jobs: int, what: str) -> list[Any]:
    """Return the results of items in their order; each core takes the next that is left."""
    results: dict[int, Any] = {}
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(file=sys.stderr), disable=not sys.stderr.isatty(),
    )  # fmt: skip
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # spawned: a fork of a process in which torch has run threads can hang
    context = multiprocessing.get_context("spawn")
    with bar, ProcessPoolExecutor(max(1, jobs), mp_context=context) as pool:
        shown = bar.add_task(what, total=len(items))
        futures = {pool.submit(work, item): number for number, item in enumerate(items)}
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                bar.advance(shown)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[number] for number in range(len(items))]


def everything(tasks: Iterable[Task], *, jobs: int, fresh: bool = False) -> list[dict[str, Any]]:
    """Return the rows of all tasks."""
    items = [Task(task.case, task.seed, task.column, fresh) for task in tasks]
    return over_cores(done, items, jobs, "recording and judging")


def shown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows, and the score card of each column, as they are printed."""
    lines = [line(row) for row in rows]
    for column in dict.fromkeys(row["column"] for row in rows):
        told = card([row for row in rows if row["column"] == column])
        lines.append(f"\n{column}")
        for part in ("faults", "healthy"):
            lines += [f"  {key:<26} {_figure(value)}" for key, value in told.get(part, {}).items()]
    old = sum(row["old"] for row in rows)
    if old:
        lines.append(f"\n{old} of {len(rows)} recordings were made by an older recorder: --fresh")
    return "\n".join(lines)


def line(row: Mapping[str, Any]) -> str:
    """Return one run in one line."""
    where = f"{row['case']:<30} seed {row['seed']} {row['column']:<8}"
    if row["kind"] == "fault":
        mark = "ok  " if row["first"] else "late" if row["found"] else "MISS"
        advice = row["advice"] or {}
        said = f"{advice.get('parameter', '-')} = {str(advice.get('proposed'))[:60]}"
        return f"{mark} {where} {', '.join(row['rules']) or 'nothing'} (want {'|'.join(row['expect'])}) after {row.get('delay', '-')}; {said}"
    alarms = "; ".join(f"{a['rule']} {a['severity']} at {a['first_step']}" for a in row["alarms"])
    if alarms:
        return f"FALSE {where} {alarms}"
    tempted = f" tempted: {', '.join(row['tempted'])}" if row["tempted"] else ""
    return f"{'tmpt' if tempted else 'ok  '} {where}{tempted} {', '.join(row['infos'])}"


def _figure(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " to ".join(_figure(item) for item in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
