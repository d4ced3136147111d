"""Runs every benchmark in turn: `python -m benchmarks [NAME …]`; each prints and writes its result."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import time
from collections.abc import Sequence
from pathlib import Path

APART = ("faults", "long_runs", "peers")
"""Run when they are named: they take an hour, twenty minutes, and other tools from the network."""


def names() -> list[str]:
    """Return the benchmarks of this folder, by file name."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in found if not module.name.startswith("_"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}")
    asked = parser.parse_args(argv).names or [name for name in names() if name not in APART]
    unknown = [name for name in asked if name not in names()]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(names())}")
    failed = []
    for name in asked:
        begun = time.perf_counter()
        if importlib.import_module(f"benchmarks.{name}").main([]):
            failed.append(name)
        print(f"  ({name}: {time.perf_counter() - begun:.0f} s)\n", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
