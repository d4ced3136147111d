"""How a peer's alerts count: found, of the right kind, first; false alarms; per net."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..faults.card import INFO_RULES, interval
from ..faults.case import Case
from .alert import Alert


def row_of(
    case: Case, seed: int, steps: int, alerts: Sequence[Alert], error: str = ""
) -> dict[str, Any]:
    """Return what one run came to; `alerts` are in the order in which the peer tells them.

    A run over which a peer failed before it said anything is not judged, and counts in no share. In a faulty run only what was said from the onset on counts. A peer's info counts where our
    rule for the fault would be an info, too; nowhere is it an alarm.
    """
    loud = [alert for alert in alerts if alert.severity != "info"]
    row: dict[str, Any] = {
        "case": case.name,
        "kind": case.kind,
        "net": case.net,
        "expect": list(case.expect),
        "seed": seed,
        "steps": steps,
        "alerts": [[alert.name, alert.step, alert.severity] for alert in alerts],
        "error": error,
        "judged": not error or bool(loud),
    }
    if case.kind != "fault":
        row["alarms"] = len(loud)
        return row
    heard = list(alerts) if set(case.expect) & INFO_RULES else loud
    since = [alert for alert in heard if not alert.until or alert.until >= case.onset]
    right = [alert for alert in since if set(alert.faults) & set(case.expect)]
    row["alarmed"] = bool(since)
    row["right"] = bool(right)
    row["first"] = bool(since) and set(since[0].faults) & set(case.expect) != set()
    if right and right[0].step:
        row["delay"] = max(0, min(alert.step for alert in right) - case.onset)
    return row


def figures(
    rows: Sequence[Mapping[str, Any]], known: Iterable[str] | None = None
) -> dict[str, Any]:
    """Return one peer's figures; `known` are the faults that it looks for, None if all of them."""
    told = len(rows)
    rows = [row for row in rows if row["judged"]]
    faults = [row for row in rows if row["kind"] == "fault"]
    well = [row for row in rows if row["kind"] != "fault"]
    looked = faults if known is None else [r for r in faults if set(r["expect"]) & set(known)]
    delays = [row["delay"] for row in faults if "delay" in row]
    steps = sum(row["steps"] for row in well)
    flagged = sum(row["alarms"] > 0 for row in well)
    alarms = sum(row["alarms"] for row in well)
    return {
        "not_judged": told - len(rows),
        "faulty_runs": len(faults),
        "alarmed": share(faults, lambda row: row["alarmed"]),
        "right_kind": share(faults, lambda row: row["right"]),
        "right_kind_interval": interval(sum(row["right"] for row in faults), len(faults)),
        "right_first": share(faults, lambda row: row["first"]),
        "looked_for_runs": len(looked),
        "right_of_looked_for": share(looked, lambda row: row["right"]),
        "delay_median": float(np.median(delays)) if delays else None,
        "healthy_runs": len(well),
        "healthy_steps": steps,
        "flagged": flagged,
        "flagged_share": flagged / len(well) if well else None,
        "flagged_interval": interval(flagged, len(well)),
        "alarms_a_run": alarms / len(well) if well else None,
        "alarms_per_1000_steps": 1000 * alarms / steps if steps else None,
    }


def share(
    rows: Sequence[Mapping[str, Any]], holds: Callable[[Mapping[str, Any]], bool]
) -> float | None:
    return sum(map(bool, map(holds, rows))) / len(rows) if rows else None


def per_net(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return, of each net: faulty runs named right, faulty runs, healthy ones flagged, healthy ones.

    The last two are the alarms and the steps of the healthy ones.
    """
    told: dict[str, list[int]] = {}
    for row in rows:
        if not row["judged"]:
            continue
        counts = told.setdefault(row["net"], [0] * 6)
        if row["kind"] == "fault":
            counts[0] += row["right"]
            counts[1] += 1
        else:
            counts[2] += row["alarms"] > 0
            counts[3] += 1
            counts[4] += row["alarms"]
            counts[5] += row["steps"]
    return dict(sorted(told.items()))
