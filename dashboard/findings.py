"""What the Findings page asks of one finding: its charts, and the numbers of its rule."""

from __future__ import annotations

from typing import Any

from ..diagnostics import catalogue
from ..diagnostics.evidence import evidence_charts
from ..diagnostics.overriding import numbers_in_force
from ..diagnostics.ranges import SEVERITIES, allowed
from ..store import ConfigError, Store
from ..store.schemas import plain

MEANING = {
    "severity": "how bad a finding of it is, where the rule does not say worse",
    "warm_up": "steps at the beginning that are not judged",
    "window": "steps or samples that are looked at together",
    "span": "steps after which a sample is too old to judge by",
    "k": "breaches among the last n checks that make a finding",
    "n": "checks that are counted; calm ones in a row that end a finding",
    "fire": "the threshold of a breach",
    "clear": "strength, against the threshold, under which a check is calm",
    "cool_down": "steps of silence after a setting was changed",
    "min_samples": "samples that it needs to judge at all",
    "cadence": "steps between two checks",
}
"""What the numbers mean that every rule has."""


def evidence_of(store: Store, run: str, finding: str) -> dict[str, Any]:
    """Return `{"finding", "charts"}` of docs/shapes.md.

    Raises UnknownRunError, and ConfigError where the run has no such finding.
    """
    for found in store.findings(run):
        if found.id == finding:
            body = found.to_json()
            charts = [chart.to_json() for chart in evidence_charts(store, run, body)]
            return {"finding": finding, "charts": charts}
    raise ConfigError(f"this run has no finding {finding[:80]!r}; the page lists those it has")


def numbers_of(store: Store, run: str, rule: str) -> dict[str, Any]:
    """Return a rule's numbers as `{"rule", "document", "numbers": [...]}` of docs/shapes.md.

    Raises UnknownRunError, and ConfigError where there is no such rule.
    """
    info = next((row for row in catalogue() if row.id == rule), None)
    if info is None:
        raise ConfigError(f"there is no rule {rule[:80]!r}; `otoscope rules` lists them")
    store.run(run)
    changed = numbers_in_force(store, run)
    numbers = {
        name: changed.get(f"{rule}.{name}", default) for name, default in info.thresholds.items()
    }
    rows = [
        {
            "name": name,
            "what": MEANING.get(name, ""),
            "default": default,
            "value": numbers[name],
            "range": str(allowed(rule, name, numbers) or ""),
            "choices": list(SEVERITIES) if name == "severity" else None,
        }
        for name, default in info.thresholds.items()
    ]
    return plain({"rule": rule, "document": info.what, "numbers": rows})
