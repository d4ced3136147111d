"""The fault bench: what Otoscope finds in ill runs, what it says of healthy ones, what its advice mends.

    python -m benchmarks.faults [--only NAME] [--set tuning] [--column defaults] [--seeds 3] [--jobs 2]

Runs are kept in benchmarks/out: what was trained is judged anew when rules or their numbers change,
and trained again only with `--fresh` (where recorder or bench changed) or `--again`. An interrupted
bench goes on where it was. benchmarks/faults/README.md says how a case is written.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence

from .case import KINDS, SETS, load_cases
from .running import Task, everything, shown
from .runs import OUT
from .training import COLUMNS


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--only", default="", help="cases whose name, area or expected rule holds this"
    )
    parser.add_argument("--set", choices=SETS, nargs="+", default=["tuning"])
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--column", choices=list(COLUMNS), nargs="+", default=list(COLUMNS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--fresh", action="store_true", help="train anew what an older recorder recorded"
    )
    parser.add_argument("--again", action="store_true", help="forget every kept run first")
    options = parser.parse_args(argv)
    if options.again:
        shutil.rmtree(OUT, ignore_errors=True)
    cases = [
        case
        for case in load_cases()
        if case.set in options.set
        and case.kind in options.kind
        and any(options.only in text for text in (case.name, case.area, *case.expect, *case.tempts))
    ]
    if not cases:
        parser.error(f"no case holds {options.only!r} in {', '.join(options.set)}")
    tasks = [
        Task(case, seed, column)
        for column in options.column
        for case in cases
        for seed in range(options.seeds)
    ]
    rows = everything(tasks, jobs=options.jobs, fresh=options.fresh)
    print(shown(rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
