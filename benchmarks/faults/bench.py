"""The fault bench: what Otoscope finds in ill runs, what it says of healthy ones, what its advice mends.

    python -m benchmarks.faults [--only NAME] [--set tuning] [--column defaults] [--seeds 3] [--jobs 2]
    python -m benchmarks.faults --full      # tuning; held-out in both columns, efficacy; the page
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
from collections.abc import Mapping, Sequence
from typing import Any

from otoscope.store.schemas import plain

from . import efficacy, null_rates, printed, warned
from .card import by, card
from .case import KINDS, SETS, Case, load_cases
from .page import PAGE, RESULT, page
from .quick import FLOORS, fallen, quick_tasks
from .running import Task, advised, done, ended, over_cores
from .runs import OUT
from .training import COLUMNS

HELD_OUT_SEEDS = {"fault": 3, "healthy": 5, "look-alike": 5}
"""Of a held-out case, where nothing else is asked for; of every other case it is SEEDS."""
SEEDS = 3


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
    if options.published:
        options.set = ["published"]
    tasks = _asked(options)
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
    alarmed: list[dict[str, Any]] = []
    if options.efficacy or options.full or options.published:
        said = [
            task
            for task in warned.tasks_of(tasks, rows)
            if not options.full or _is_held_out(task.case)
        ]
        alarmed = over_cores(warned.followed, said, options.jobs, "following false alarms", failed)
        alarmed = [row for row in alarmed if row is not None]
    if options.efficacy or options.full:
        mendable = advised(tasks, rows)
        if options.full:
            mendable = [task for task in mendable if _is_held_out(task.case)]
        repaired = over_cores(ended, mendable, options.jobs, "following the advice", failed)
        repaired = [row for row in repaired if row is not None]
    told = cards(rows, repaired, alarmed)
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


def _asked(options: argparse.Namespace) -> list[Task]:
    """Return what is to be run, as the options say."""
    cases = load_cases()
    if options.quick:
        return quick_tasks(cases)
    if not options.full:
        asked = [case for case in cases if _is_asked(case, options)]
        return _tasks(asked, options.column, options.seeds, options.fresh)
    tuning = [case for case in cases if case.set == "tuning"]
    held = [case for case in cases if _is_held_out(case)]
    return [
        *_tasks(tuning, ["defaults"], options.seeds, options.fresh),
        *_tasks(held, list(COLUMNS), options.seeds, options.fresh),
    ]


def _tasks(
    cases: Sequence[Case], columns: Sequence[str], seeds: int | None, fresh: bool
) -> list[Task]:
    return [
        Task(case, seed, column, fresh)
        for column in columns
        for case in cases
        for seed in range(seeds or (HELD_OUT_SEEDS[case.kind] if _is_held_out(case) else SEEDS))
    ]


def _is_held_out(case: Case) -> bool:
    return case.set == "held-out"


def _is_asked(case: Case, options: argparse.Namespace) -> bool:
    texts = (case.name, case.area, *case.expect, *case.tempts)
    return (
        case.set in options.set
        and case.kind in options.kind
        and any(options.only in text for text in texts)
    )


def cards(
    rows: Sequence[dict[str, Any]],
    repaired: Sequence[dict[str, Any]],
    alarmed: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return a score card for each set and column, with what the advice mended, of well runs, too."""
    told: dict[str, Any] = {}
    sets = {row["case"]: row["set"] for row in rows}
    for name, some in by(rows, lambda row: [f"{row['set']}, {row['column']}"]).items():
        body = {"seeds": _seeds(some), **card(some)}
        mine = [row for row in repaired if f"{sets[row['case']]}, {row['column']}" == name]
        if mine:
            cases = [efficacy.summary(each) for each in by(mine, lambda r: [r["case"]]).values()]
            body["efficacy"], body["mending"] = efficacy.figures(cases), cases
        heard = [row for row in alarmed if f"{row['set']}, {row['column']}" == name]
        if heard:
            body["warned"], body["alarms"] = warned.summary(heard), heard
        told[name] = body
    return told


def _seeds(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the seeds of a case, by kind."""
    kinds = by(rows, lambda row: [row["kind"]])
    return {kind: 1 + max(row["seed"] for row in some) for kind, some in kinds.items()}


def _write(told: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Lay the new cards over the kept ones, and write result and page.

    What the advice mended is kept where the same cases were judged again without following it.
    """
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    cards = before.get("cards", {})
    told = {name: {**_kept(cards.get(name, {}), card), **card} for name, card in told.items()}
    body = plain({"cards": {**cards, **told}})
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(body), encoding="utf-8")
    print(f"\nwritten: {RESULT.name}, docs/{PAGE.name}")


def _kept(before: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    same = before.get("by_net", {}).keys() == card.get("by_net", {}).keys()
    keys = ("efficacy", "mending")
    if before.get("healthy", {}).get("runs_with_an_alarm"):
        keys += ("warned", "alarms")
    return {key: before[key] for key in keys if same and key in before}


def _under_floors(told: dict[str, Any]) -> bool:
    below = fallen(told)
    for line in below:
        print(f"UNDER ITS FLOOR: {line}")
    print(f"\nfloors: {', '.join(f'{key} {value:g}' for key, value in FLOORS.items())}")
    return bool(below)
