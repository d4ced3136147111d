"""Peers' rules and living packages on the runs of the fault bench, beside our own verdict.

    python -m benchmarks.peers                           # all: the tables, then what each costs a step
    python -m benchmarks.peers --set held-out --seeds 2  # one set
    python -m benchmarks.peers --part costs              # only what they cost: on a quiet machine
    python -m benchmarks.peers --only runmedic Otoscope --case adam    # printed, written nowhere
    python -m benchmarks.peers --minutes 20              # ask packages so long, of a fair sample
    python -m benchmarks.peers --kept                    # train nothing: what was recorded and answered

Makes the packages' own environment (benchmarks/out/peers-venv) the first time. Traces and answers are
kept in benchmarks/out/peers; an interrupted run goes on where it was. Our verdict is that on the fault
bench's recordings (`python -m benchmarks.faults`), which are made where there are none.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from otoscope.store.schemas import plain

from ..faults.case import SETS, Case, load_cases
from . import page
from .cost import costs, costs_on, readings
from .living import VERSIONS, installed
from .running import PEERS, How, Run, everything, laid_over

PARTS = ("tables", "costs")


def options_of(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--set", choices=SETS, nargs="+", default=["tuning", "held-out"])
    parser.add_argument("--case", default="", help="cases whose name or area holds this")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="for which packages are asked, of each set"
    )
    parser.add_argument("--kept", action="store_true", help="train nothing, ask nothing")
    parser.add_argument(
        "--again", action="store_true", help="ask a package anew about runs on which it failed"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = options_of(argv)
    before = json.loads(page.RESULT.read_text()) if page.RESULT.exists() else {}
    result: dict[str, Any] = {
        "versions": VERSIONS,
        "sets": before.get("sets", {}),
        "cost": before.get("cost", {}),
    }
    if "tables" in options.part:
        _tables(options, result)
    if options.case:
        return 0
    if "costs" in options.part and not options.kept:
        installed()
        _costs(options, result)
    page.RESULT.parent.mkdir(exist_ok=True)
    page.RESULT.write_text(json.dumps(plain(result), indent=1) + "\n", encoding="utf-8")
    page.PAGE.write_text(page.page(result), encoding="utf-8")
    print(f"\nwritten: {page.RESULT.name}, docs/{page.PAGE.name}")
    return 0


def cases_of(name: str, part: str = "") -> list[Case]:
    """Return the cases of a set that all can be asked about: one process, one optimizer, no loader."""
    return [
        case
        for case in load_cases()
        if case.set == name
        and int(case.body["ranks"]) == 1
        and case.body["loop"] == "plain"
        and "loader_seconds" not in (case.body["machine"] or {})
        and (part in case.name or part in case.area)
    ]


def _tables(options: argparse.Namespace, result: dict[str, Any]) -> None:
    how = How(options.jobs, options.kept, options.again, options.minutes)
    for name in options.set:
        cases = cases_of(name, options.case)
        runs = [Run(case, seed) for case in cases for seed in range(options.seeds)]
        # seed by seed and in no order of names: what was done when time is up is a fair sample
        runs.sort(key=lambda run: (run.seed, run.trace.name))
        runs = [run for run in runs if run.is_kept] if options.kept else runs
        if not runs:
            print(f"no case of {name} holds {options.case!r}", file=sys.stderr)
            continue
        told = everything(runs, options.only, how, _say)
        print(page.shown(name, told), flush=True)
        result["sets"][name] = laid_over(result["sets"].get(name, {}), page.without_rows(told))


def _costs(options: argparse.Namespace, result: dict[str, Any]) -> None:
    cost: dict[str, Any] = result["cost"]
    cost["nets"] = costs(_say)
    print(page.cost_table(cost["nets"], {}), flush=True)
    tuned = cases_of("tuning")
    cost["readings"] = readings(next(case for case in tuned if case.kind == "healthy"))
    if "held-out" in options.set:
        cost["held_out"] = costs_on(cases_of("held-out"), options.jobs, _say)


def _say(what: str) -> None:
    print(f"  … {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
