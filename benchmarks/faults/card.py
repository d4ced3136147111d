"""The score card: what was found, how soon, what was said of healthy runs, and per rule and net."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import beta

from .case import Case

INFO_RULES = frozenset(
    [
        "missing_warmup",
        "ill_conditioned",
        "update_imbalance",
        "batch_too_large",
        "outlier_batch",
        "batch_too_small",
        "activation_drift",
        "lost_samples",
        "clipping_too_tight",
    ]
)
"""Rules that may say what they say as an info; of all others only a warning counts as found."""


def row_of(case: Case, seed: int, column: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one judged run came to."""
    findings: Sequence[Mapping[str, Any]] = told["report"]["findings"]
    hidden = {item for finding in findings for item in finding["caused"]}
    loud = [item for item in findings if item["severity"] != "info"]
    quiet = bool(set(case.expect) & INFO_RULES)
    heard = list(findings) if quiet else loud
    roots = [item for item in heard if item["id"] not in hidden]
    named = [item for item in heard if item["rule"] in case.expect]
    row: dict[str, Any] = {
        "case": case.name,
        "kind": case.kind,
        "set": case.set,
        "net": case.net,
        "seed": seed,
        "column": column,
        "expect": list(case.expect),
        "tempts": list(case.tempts),
        "steps": int(case.body["steps"]),
        "rules": [item["rule"] for item in roots],
        "judged": len(told["report"]["judged"]),
        "not_judged": told["report"]["not_judged"],
        "old": told["old"],
    }
    if case.kind == "fault":
        row["found"] = bool(named)
        row["first"] = bool(roots) and roots[0]["rule"] in case.expect
        if named:
            soonest = min(told["fired"][item["rule"]] for item in named)
            row["delay"] = max(0, soonest - case.onset)
        row["fired"] = {item["rule"]: item["state"] for item in loud}
        row["advice"] = roots[0]["recommendation"] if roots else None
        row["by"] = roots[0]["rule"] if roots else None
    else:
        keys = ("rule", "severity", "first_step", "title", "recommendation")
        row["alarms"] = [{key: item[key] for key in keys} for item in loud]
        row["infos"] = [item["rule"] for item in findings if item["severity"] == "info"]
        row["tempted"] = [item["rule"] for item in findings if item["rule"] in case.tempts]
    return row


def interval(hits: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Clopper–Pearson interval of a share.

    >>> [round(end, 4) for end in interval(0, 312)]
    [0.0, 0.0118]
    """
    if not of:
        return 0.0, 1.0
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, of - hits)) if hits < of else 1.0
    return low, high


def on_faults(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return recall, right cause first and delay over rows of faults."""
    found, first = sum(row["found"] for row in rows), sum(row["first"] for row in rows)
    delays = [row["delay"] for row in rows if "delay" in row]
    share: Callable[[int], float] = lambda hits: hits / len(rows) if rows else math.nan  # noqa: E731
    return {
        "runs": len(rows),
        "cases": len({row["case"] for row in rows}),
        "recall": share(found),
        "recall_interval": interval(found, len(rows)),
        "right_cause_first": share(first),
        "first_interval": interval(first, len(rows)),
        "delay_median": float(np.median(delays)) if delays else math.nan,
        "delay_p90": float(np.quantile(delays, 0.9)) if delays else math.nan,
    }


def on_healthy(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the false alarms over rows of healthy and look-alike runs."""
    steps = sum(row["steps"] for row in rows)
    alarms = [alarm for row in rows for alarm in row["alarms"]]
    flagged = sum(bool(row["alarms"]) for row in rows)
    low, high = interval(flagged, len(rows))
    return {
        "runs": len(rows),
        "cases": len({row["case"] for row in rows}),
        "steps": steps,
        "alarms": len(alarms),
        "criticals": sum(alarm["severity"] == "critical" for alarm in alarms),
        "runs_with_an_alarm": flagged,
        "alarms_per_1000_steps": 1000 * len(alarms) / steps if steps else math.nan,
        "runs_per_100": 100 * flagged / len(rows) if rows else math.nan,
        "runs_per_100_interval": [100 * low, 100 * high],
        "infos_a_run": float(np.mean([len(row["infos"]) for row in rows])) if rows else math.nan,
        "rules_judged_a_run": float(np.mean([row["judged"] for row in rows])) if rows else math.nan,
    }


def by(
    rows: Iterable[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], Iterable[str]]
) -> dict[str, list[Any]]:
    """Return rows by what a key says of them, in the order of its names."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        for name in key(row):
            groups.setdefault(name, []).append(row)
    return dict(sorted(groups.items()))


def card(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the score card of one set and column."""
    faults = [row for row in rows if row["kind"] == "fault"]
    well = [row for row in rows if row["kind"] != "fault"]
    told: dict[str, Any] = {"old": sum(bool(row.get("old")) for row in rows)}
    if faults:
        told["faults"] = on_faults(faults)
        told["by_rule"] = {
            rule: on_faults(some)
            for rule, some in by(faults, lambda row: row["expect"][:1]).items()
        }
        told["by_net"] = {
            net: on_faults(some) for net, some in by(faults, lambda r: [r["net"]]).items()
        }
        told["missed"] = by((r for r in faults if not r["first"]), lambda r: [r["case"]])
    if well:
        told["healthy"] = on_healthy(well)
        alarms = by(well, lambda row: [alarm["rule"] for alarm in row["alarms"]])
        told["alarms_by_rule"] = {rule: len(some) for rule, some in alarms.items()}
        told["alarmed"] = {
            rule: sorted({row["case"] for row in some}) for rule, some in alarms.items()
        }
        told["tempted"] = [
            [row["case"], row["seed"], row["tempted"]] for row in well if row["tempted"]
        ]
    return told
