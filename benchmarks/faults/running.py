"""Running the bench: tasks over the cores, one torch thread each, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from otoscope.store.errors import OtoscopeError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .card import row_of
from .case import Case
from .efficacy import endings
from .runs import OUT, judged

TOLD = 20
"""Fewer items than this go by without a word where there is no terminal."""


class BenchError(OtoscopeError):
    """Raised when runs of the bench failed; those that did not are kept."""


@dataclass(frozen=True)
class Task:
    """One case, one seed, one column; `fresh` trains anew what an older recorder recorded."""

    case: Case
    seed: int
    column: str
    fresh: bool = False
    advice: Any = None


def done(task: Task) -> dict[str, Any]:
    """Record and judge one run; returns its row."""
    told = judged(task.case, task.seed, task.column, fresh=task.fresh)
    return row_of(task.case, task.seed, task.column, told)


def ended(task: Task) -> dict[str, Any]:
    """Train what a recommendation is measured by; returns how each training ended."""
    return {**endings(task.case, task.seed, task.advice), "column": task.column}


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how many of `total` are done, each time that what it gives is called.

    A bar on a terminal; elsewhere a line at every tenth.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=not sys.stderr.isatty(),
    )
    shown, count = bar.add_task(what, total=total), 0

    def advance() -> None:
        nonlocal count
        count += 1
        bar.advance(shown)
        if bar.disable and total >= TOLD and count * 10 // total > (count - 1) * 10 // total:
            print(f"  {what}: {count} of {total}", file=sys.stderr, flush=True)

    with bar:
        yield advance


def over_cores(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    jobs: int,
    what: str,
    failed: list[str] | None = None,
) -> list[Any]:
    """Return the results of items in their order; each core takes the next that is left.

    Where a list of the `failed` is given, they are told there, and their result is None. Else
    BenchError is raised once all are done.
    """
    results: dict[int, Any] = {}
    tolerated = failed is not None
    failed = [] if failed is None else failed
    os.environ["OMP_NUM_THREADS"] = "1"
    # else `otoscope up` would take every run of the bench in, beside the reader's own
    os.environ["OTOSCOPE_HOME"] = str(OUT / "home")
    # spawned: a fork of a process in which torch has run threads can hang
    context = multiprocessing.get_context("spawn")
    with (
        progress(what, len(items)) as advance,
        ProcessPoolExecutor(max(1, jobs), mp_context=context) as pool,
    ):
        futures = {pool.submit(work, item): number for number, item in enumerate(items)}
        try:
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    results[futures[future]] = future.result()
                else:
                    failed.append(f"{items[futures[future]].case.name}: {error!r}")
                advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed and not tolerated:
        raise BenchError(
            f"{len(failed)} of {len(items)} runs failed, the others are kept: " + "\n".join(failed)
        )
    return [results.get(number) for number in range(len(items))]


def advised(tasks: Sequence[Task], rows: Sequence[dict[str, Any]]) -> list[Task]:
    """Return what efficacy has to train: every fault that a setting can mend, with its advice."""
    return [
        Task(task.case, task.seed, task.column, advice=row["advice"])
        for task, row in zip(tasks, rows, strict=True)
        if task.case.kind == "fault" and task.case.mend and task.case.healthy is not None
    ]
