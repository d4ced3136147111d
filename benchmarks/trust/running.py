"""Runs the three experiments cell by cell, prints their tables, and writes result and page."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from otoscope.store.schemas import plain

from . import edge, gain, newton, noise
from .finished import FOLDER, KEPT, Finished, digest
from .page import PAGE, RESULT, page, tables

EXPERIMENTS: dict[str, ModuleType] = {
    "edge": edge,
    "gain": gain,
    "newton": newton,
    "noise": noise,
}
SHARED = ("subjects.py", "training.py", "branching.py")


def version(name: str) -> str:
    """Return what changes when an experiment's own code does."""
    return digest(FOLDER / file for file in (*SHARED, f"{name}.py"))


def run(name: str, quick: bool, kept: Path) -> list[dict[str, Any]]:
    """Return the rows of an experiment; those that are known are not measured again."""
    experiment = EXPERIMENTS[name]
    finished = Finished(kept / f"trust-{name}.json", version(name))
    cells = experiment.cells(quick)
    rows = []
    for place, cell in enumerate(cells, 1):
        words = [str(getattr(part, "name", part)) for part in cell]
        _progress(f"{name} {place}/{len(cells)}: {' '.join(words)}")
        rows.append(
            finished.get(" ".join([name, *words]), lambda cell=cell: experiment.measured(*cell))
        )
    _progress("")
    return rows


def summarised(experiment: ModuleType, rows: Any) -> Any:
    """Return the summary of rows as they are written: what is not known is null there."""
    return plain(experiment.summary(known(rows)))


def known(value: Any) -> Any:
    """Return rows with numbers in the place of null and of infinities in words.

    >>> known({"a": None, "b": ["Infinity", 1.0]})
    {'a': nan, 'b': [inf, 1.0]}
    """
    if isinstance(value, dict):
        return {key: known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [known(item) for item in value]
    if value is None or value in ("Infinity", "-Infinity"):
        return float("nan" if value is None else value)
    return value


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust")
    parser.add_argument("--quick", action="store_true", help="a few nets; writes nothing")
    parser.add_argument("--only", choices=sorted(EXPERIMENTS))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    logging.getLogger("otoscope").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*batching rule.*")
    begun = time.time()
    result: dict[str, Any] = {}
    if RESULT.exists() and not options.quick:
        result = json.loads(RESULT.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("OTOSCOPE_HOME", str(Path(folder) / "home"))
        kept = Path(folder) if options.quick else KEPT
        for name, experiment in EXPERIMENTS.items():
            if options.only in (None, name):
                rows = run(name, options.quick, kept)
                rows = plain(rows)
                result[name] = {"summary": summarised(experiment, rows), "each": rows}
    for name, table in tables(result).items():
        print(f"trust: {name}\n{table}\n")
    print(f"  ({time.time() - begun:.0f} s)")
    if not options.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if set(result) == set(EXPERIMENTS):
            PAGE.write_text(page(result), encoding="utf-8")
    return 0
