"""Null rates: how often a finding of an untouched faulty run went away by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "diagnostics" / "null_rates.toml"
HEAD = """# How often each rule's finding went away by itself in faulty runs that nobody touched: the share that
# "helped" has to beat. Written by `python -m benchmarks.faults --full`; runs: those in which the rule
# fired, gone: those of them in which it was resolved when the run ended.
"""


def rates(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return for each rule the runs in which it fired, and those of them where it went away.

    >>> rates([{"kind": "fault", "fired": {"plateau": "resolved"}}])
    {'plateau': (1, 1)}
    """
    counted: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row["kind"] != "fault":
            continue
        for rule, state in row["fired"].items():
            runs, gone = counted.get(rule, (0, 0))
            counted[rule] = (runs + 1, gone + (state == "resolved"))
    return dict(sorted(counted.items()))


def text(counted: Mapping[str, tuple[int, int]]) -> str:
    """Return the file's text."""
    parts = [
        f"\n[{rule}]\nruns = {runs}\ngone = {gone}\n" for rule, (runs, gone) in counted.items()
    ]
    return HEAD + "".join(parts)


def write(rows: Sequence[Mapping[str, Any]]) -> None:
    FILE.write_text(text(rates(rows)), encoding="utf-8")
