"""Soundness: a recommendation is applied unedited, so its numbers must be there and change something."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..store import Recommendation
from ..store.schemas import Json

UNKNOWN = "what is set now was not recorded, so that no new value can be computed from it"
SAME = "what would be set is what is set already"


def sound(advice: Recommendation, step: int) -> Recommendation:
    """Return the advice if it can be applied, else one to look at what is set.

    Logs of others have no learning rate, and a rate of zero has no third: a rule's formula then ends
    in NaN, or where it began. `step` is the one to look at. Alternatives that cannot be applied are
    left out.
    """
    why = _fault(advice.proposed, advice.current)
    alternatives = [
        other
        for other in advice.alternatives
        if _fault(other.get("proposed"), other.get("current")) is None
    ]
    also = [other for other in advice.also if _fault(other.get("proposed"), None) is None]
    if why is None:
        if len(alternatives) == len(advice.alternatives) and len(also) == len(advice.also):
            return advice
        return replace(advice, alternatives=alternatives, also=also)
    return Recommendation(
        parameter="inspect",
        current=None,
        proposed=[step],
        basis="rule of thumb",
        formula=f"{advice.parameter}: {why}",
        snippet=f"# which {advice.parameter} is in force at step {step:,}?",
        effect=advice.effect if why == UNKNOWN else "",
        verify=advice.verify,
        risk=advice.risk,
        alternatives=alternatives,
    )


def _fault(proposed: Json, current: Json) -> str | None:
    if not _finite(proposed):
        return UNKNOWN
    return SAME if proposed == current and proposed is not None else None


def _finite(value: Json) -> bool:
    """Tell whether no number in it is NaN or infinite.

    >>> _finite({"step": 3, "then": {"lr": float("nan")}}), _finite([1, 2.0])
    (False, True)
    """
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(_finite(item) for item in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(_finite(item) for item in value)
    return True
