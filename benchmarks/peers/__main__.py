"""Peers' rules and living packages on the runs of the fault bench, beside our own verdict.

    python -m benchmarks.peers [--only PEER …] [--set tuning held-out] [--case NAME] [--seeds 3]

Makes the peers' own environment (benchmarks/out/peers-venv) the first time. Traces and answers are
kept in benchmarks/out/peers; an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from otoscope.store.schemas import plain

from ..faults.case import SETS, load_cases
from . import page
from .cost import costs
from .living import VERSIONS
from .running import PEERS, Run, everything


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--set", choices=SETS, nargs="+", default=["tuning", "held-out"])
    parser.add_argument("--case", default="", help="cases whose name or area holds this")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--kept", action="store_true", help="judge what is traced and answered; no cost"
    )
    options = parser.parse_args(argv)
    told = {}
    for name in options.set:
        runs = [
            Run(case, seed)
            for case in load_cases()
            if case.set == name and int(case.body["ranks"]) == 1 and case.body["loop"] == "plain"
            and (options.case in case.name or options.case in case.area)
            for seed in range(options.seeds)
            if not options.kept or Run(case, seed).trace.exists()
        ]  # fmt: skip
        if not runs:
            print(f"no case of {name} holds {options.case!r}", file=sys.stderr)
            continue
        told[name] = everything(
            runs, options.only, jobs=options.jobs, say=_say, only_kept=options.kept
        )
        print(page.shown(name, told[name]), flush=True)
    if options.case:
        return 0
    costed = not options.kept and set(options.only) == set(PEERS)
    before = json.loads(page.RESULT.read_text()) if page.RESULT.exists() else {}
    sets = before.get("sets", {})
    for name, body in told.items():
        every = {**sets.get(name, {}), **page.without_rows(body)}
        sets[name] = {peer: every[peer] for peer in PEERS if peer in every}
    result = {
        "versions": VERSIONS,
        "sets": sets,
        "cost": costs(_say) if costed else before.get("cost", {}),
    }
    page.RESULT.parent.mkdir(exist_ok=True)
    page.RESULT.write_text(json.dumps(plain(result), indent=1) + "\n", encoding="utf-8")
    page.PAGE.write_text(page.page(result), encoding="utf-8")
    return 0


def _say(what: str) -> None:
    print(f"  … {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
