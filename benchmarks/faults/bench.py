"""The fault bench: what Otoscope finds in ill runs, what it says of healthy ones, what its advice mends.

    python -m benchmarks.faults [--only NAME] [--set tuning] [--column defaults] [--seeds 3] [--jobs 2]
    python -m benchmarks.faults --full      # every set but the published, efficacy, result and page
    python -m benchmarks.faults --quick     # a part, under 3 minutes; fails under the set floors
    python -m benchmarks.faults --published # the published pairs: judge them once, when tuning ended

Runs are kept in benchmarks/out: what was trained is judged anew when rules or their numbers change,
and trained again only with `--fresh` (where recorder or bench changed) or `--again`. An interrupted
bench goes on where it was. benchmarks/faults/README.md says how a case is written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from otoscope.store.schemas import plain

from . import efficacy, null_rates, printed
from .card import by, card
from .case import KINDS, SETS, Case, load_cases
from .page import PAGE, RESULT, page
from .quick import FLOORS, fallen, quick_tasks
from .running import Task, advised, done, ended, over_cores
from .runs import OUT
from .training import COLUMNS

FAULT_SEEDS, WELL_SEEDS = 5, 8


def options_of(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--only", default="", help="cases whose name, file or rules hold this")
    parser.add_argument("--set", choices=SETS, nargs="+", default=["tuning"])
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--column", choices=list(COLUMNS), nargs="+", default=list(COLUMNS))
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--efficacy", action="store_true", help="apply what is recommended, too")
    parser.add_argument(
        "--fresh", action="store_true", help="train anew what is of an older recorder"
    )
    parser.add_argument("--again", action="store_true", help="forget every kept run first")
    parser.add_argument("--full", action="store_true", help="all sets, efficacy, result and page")
    parser.add_argument("--quick", action="store_true", help="a part for CI, held to floors")
    parser.add_argument(
        "--published", action="store_true", help="the published pairs, into the result"
    )
    parser.add_argument(
        "--write", action="store_true", help="write result and page of what was run"
    )
    parser.add_argument(
        "--null-rates", action="store_true", help="write diagnostics/null_rates.toml"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = options_of(argv)
    if options.again:
        shutil.rmtree(OUT, ignore_errors=True)
    if options.full:
        options.set, options.efficacy = ["tuning", "held-out"], True
    if options.published:
        options.set = ["published"]
    tasks = quick_tasks(load_cases()) if options.quick else _tasks(options)
    if not tasks:
        print(f"no case holds {options.only!r} in {', '.join(options.set)}", file=sys.stderr)
        return 2
    failed: list[str] = []
    judged = over_cores(done, tasks, options.jobs, "recording and judging", failed)
    tasks = [task for task, row in zip(tasks, judged, strict=True) if row is not None]
    rows = [row for row in judged if row is not None]
    if not (options.full or options.published):
        print("\n".join(printed.line(row) for row in rows))
    repaired: list[dict[str, Any]] = []
    if options.efficacy:
        repaired = over_cores(
            ended, advised(tasks, rows), options.jobs, "following the advice", failed
        )
        repaired = [row for row in repaired if row is not None]
    told = cards(rows, repaired)
    for name, body in told.items():
        print("\n".join([*printed.card(name, body), *map(printed.mended, body.get("mending", ()))]))
    old = sum(row["old"] for row in rows)
    if old:
        print(f"\n{old} of {len(rows)} recordings were made by an older recorder: --fresh")
    if options.full or options.null_rates:
        null_rates.write(rows)
    if options.full or options.published or options.write:
        _write(told, rows)
    for line in failed:
        print(f"FAILED, and counted nowhere: {line}", file=sys.stderr)
    below = _under_floors(told) if options.quick else False
    return 1 if failed or below else 0


def _tasks(options: argparse.Namespace) -> list[Task]:
    cases = [case for case in load_cases() if _is_asked(case, options)]
    seeds = options.seeds or 3
    most = {"fault": FAULT_SEEDS, "healthy": WELL_SEEDS, "look-alike": WELL_SEEDS}
    return [
        Task(case, seed, column, options.fresh)
        for column in options.column
        for case in cases
        for seed in range(most[case.kind] if options.full and not options.seeds else seeds)
    ]


def _is_asked(case: Case, options: argparse.Namespace) -> bool:
    texts = (case.name, case.area, *case.expect, *case.tempts)
    return (
        case.set in options.set
        and case.kind in options.kind
        and any(options.only in text for text in texts)
    )


def cards(rows: Sequence[dict[str, Any]], repaired: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a score card for each set and column, with what the advice mended."""
    told: dict[str, Any] = {}
    sets = {row["case"]: row["set"] for row in rows}
    for name, some in by(rows, lambda row: [f"{row['set']}, {row['column']}"]).items():
        body = card(some)
        mine = [row for row in repaired if f"{sets[row['case']]}, {row['column']}" == name]
        if mine:
            cases = [efficacy.summary(each) for each in by(mine, lambda r: [r["case"]]).values()]
            body["efficacy"], body["mending"] = efficacy.figures(cases), cases
        told[name] = body
    return told


def _write(told: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Lay the new cards over the kept ones, and write result and page."""
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    seeds = {row["kind"]: 0 for row in rows}
    for row in rows:
        seeds[row["kind"]] = max(seeds[row["kind"]], row["seed"] + 1)
    cards = before.get("cards", {})
    told = {name: {**cards.get(name, {}), **card} for name, card in told.items()}
    body = plain(
        {
            "cards": {**cards, **told},
            "seeds": {**before.get("seeds", {}), **seeds},
        }
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(body), encoding="utf-8")
    print(f"\nwritten: {RESULT.name}, docs/{PAGE.name}")


def _under_floors(told: dict[str, Any]) -> bool:
    below = fallen(told)
    for line in below:
        print(f"UNDER ITS FLOOR: {line}")
    print(f"\nfloors: {', '.join(f'{key} {value:g}' for key, value in FLOORS.items())}")
    return bool(below)
