"""Answering: which earlier run this one answers, and what of its advice it was given."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..store.keys import RUN_ID
from ..store.schemas import Json

LONGEST_ADVICE = 32_768
"""Characters of advice that are kept: initial weights of 500 layers. The state of the run holds them."""


def parent_of(environment: Mapping[str, str]) -> str | None:
    """Return the run that this one answers, as `$OTOSCOPE_PARENT` names it.

    >>> parent_of({"OTOSCOPE_PARENT": "mlp-01jd4tq2"}), parent_of({"OTOSCOPE_PARENT": "?"})
    ('mlp-01jd4tq2', None)
    """
    told = environment.get("OTOSCOPE_PARENT", "")
    return told if RUN_ID.match(told) else None


def applied_of(environment: Mapping[str, str]) -> list[dict[str, Json]]:
    """Return what a script applied of its parent's advice, as `$OTOSCOPE_APPLIED` tells it.

    That is a recommendation as JSON, perhaps with `also`; what settings cannot show (an activation,
    how weights were drawn) is known of it alone. Nothing where no parent is named, or it is no advice.

    >>> told = {"OTOSCOPE_APPLIED": '{"parameter": "shuffle", "proposed": true}'}
    >>> applied_of({"OTOSCOPE_PARENT": "mlp-01jd4tq2", **told}), applied_of(told)
    ([{'parameter': 'shuffle', 'proposed': True}], [])
    """
    text = environment.get("OTOSCOPE_APPLIED", "")
    if not text or len(text) > LONGEST_ADVICE or parent_of(environment) is None:
        return []
    try:
        advice = json.loads(text)
    except (ValueError, RecursionError):
        return []
    also = advice.get("also") if isinstance(advice, dict) else None
    told = [advice, *(also if isinstance(also, list) else [])]
    return [
        {"parameter": item["parameter"], "proposed": item["proposed"]}
        for item in told
        if isinstance(item, dict) and isinstance(item.get("parameter"), str) and "proposed" in item
    ]
