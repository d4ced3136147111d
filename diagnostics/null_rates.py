"""Null rates: how often a finding went away by itself in runs of the bench that nobody touched."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from ..store.schemas import Json
from .proposals import value_words
from .words import percent


@cache
def _file() -> dict[str, dict[str, int]]:
    place = resources.files(__package__ or __name__).joinpath("null_rates.toml")
    counts = tomllib.loads(place.read_text(encoding="utf-8"))
    return {rule: {"runs": int(c["runs"]), "gone": int(c["gone"])} for rule, c in counts.items()}


def gone_by_itself(rule: str) -> dict[str, Json] | None:
    """Return `{"runs", "gone"}` of a rule, None where it was never counted."""
    counts = _file().get(rule)
    return dict(counts) if counts is not None and counts["runs"] > 0 else None


def null_words(counts: dict[str, Json] | None) -> str:
    """Return a null rate in words.

    >>> null_words({"runs": 40, "gone": 12})
    'in 12 of 40 untouched runs (30 %) it went away by itself'
    >>> null_words(None)
    'not known how often it goes away by itself'
    """
    if not counts:
        return "not known how often it goes away by itself"
    share = percent(counts["gone"] / counts["runs"])
    return (
        f"in {counts['gone']} of {counts['runs']} untouched runs ({share}) it went away by itself"
    )


def outcome_words(finding: dict[str, Json]) -> str:
    """Return what became of a finding's advice, in words; empty where nothing did.

    >>> change = {"parameter": "lr", "from": 0.1, "to": 0.03, "step": 300, "attempt": 1}
    >>> outcome_words({"outcome": "helped", "followed": change, "gone_by_itself": None})
    'helped: lr 0.1 → 0.03 at step 300; not known how often it goes away by itself'
    """
    change, outcome = finding.get("followed"), finding.get("outcome")
    if not change:
        return ""
    what = f"{change['parameter']} {_said(change, 'from')} → {_said(change, 'to')}"
    where = f"in run {change['run']}" if change.get("run") else f"at step {change['step']:,}"
    said = f"{outcome or 'being followed'}: {what} {where}"
    return f"{said}; {null_words(finding.get('gone_by_itself'))}"


def _said(change: dict[str, Json], end: str) -> str:
    value = change[end]
    return "none" if value is None else value_words(str(change["parameter"]), value)
