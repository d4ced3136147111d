"""The part of the bench that every change is held to, in less than three minutes on two cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .case import Case
from .running import Task

FLOORS = {"recall": 0.85, "right_cause_first": 0.8, "runs_with_an_alarm": 1}
"""The least share of faults found and named first, and the most runs with a false alarm. Lower than
the targets: a shared machine samples less, and one seed of each case is a small draw."""
DEAR = ("transformer", "text")
"""Nets and data whose runs take more than a few seconds."""


def quick_tasks(cases: Sequence[Case]) -> list[Task]:
    """Return one seed of every fifth tuning case that is well, of the defaults, the dear ones left out.

    The first fault that each rule is expected in first is always among them.
    """
    cheap = [c for c in cases if c.set == "tuning" and not _is_dear(c)]
    well = [case for case in cheap if case.kind != "fault"][::5]
    faults = [case for case in cheap if case.kind == "fault"]
    first = {case.expect[0]: case for case in reversed(faults)}
    return [Task(case, 0, "defaults") for case in (*well, *first.values())]


def _is_dear(case: Case) -> bool:
    return any(name in case.net for name in DEAR) or int(case.body["steps"]) > 1000


def fallen(told: Mapping[str, Any]) -> list[str]:
    """Return what is under its floor, in words."""
    below = []
    for name, card in told.items():
        faults, healthy = card.get("faults", {}), card.get("healthy", {})
        below += [
            f"{name}: {key} {faults[key]:.2f} of at least {FLOORS[key]:g}"
            for key in ("recall", "right_cause_first")
            if faults and faults[key] < FLOORS[key]
        ]
        key = "runs_with_an_alarm"
        if healthy and healthy[key] > FLOORS[key]:
            below.append(f"{name}: {healthy[key]} runs with a false alarm, at most {FLOORS[key]:g}")
    return below
