"""Efficacy: the recommended value applied to a fresh run, beside nothing, folk remedies and the twin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .advice import FOLK, NoSettingError, applied
from .case import Case
from .runs import OUT, trained

MENDED = 0.8
"""Share of the gap to the healthy twin that counts as mended."""
CLEAR_GAP = 5.0
"""Standard errors that the gap must exceed before a share of it means anything."""
WORSE = 2.0
"""Standard errors at which a run that followed the advice counts as worse than one left alone."""


def endings(case: Case, seed: int, advice: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the validation losses at the end: left alone, healthy, folk remedies, and as advised.

    None is worse than the twin before its first step: a loss of 1e9 is as useless as one of 100.
    """
    assert case.healthy is not None
    healthy = trained(case.healthy, seed, OUT)
    untrained = float(healthy["first"])

    def worth(ended: Mapping[str, Any]) -> float:
        last = float(ended["last"]) if ended["last"] is not None else math.nan
        return min(last, untrained) if math.isfinite(last) else untrained

    row: dict[str, Any] = {
        "case": case.name,
        "seed": seed,
        "healthy": worth(healthy),
        "nothing": worth(trained(case.body, seed, OUT)),
        "folk": {
            name: worth(trained(change(case.body), seed, OUT)) for name, change in FOLK.items()
        },
        "advised": None,
        "why_not": "nothing was recommended",
    }
    if advice is not None:
        try:
            row["advised"], row["why_not"] = (
                worth(trained(applied(case.body, advice), seed, OUT)),
                "",
            )
        except NoSettingError as error:
            row["why_not"] = str(error)
        row["parameter"], row["proposed"] = advice["parameter"], advice["proposed"]
        row["basis"] = advice["basis"]
    return row


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; 0 of fewer than two values."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the seeds of one case come to.

    `closed` is the share of the gap between doing nothing and the healthy twin, of medians over
    seeds; where nothing was recommended, nothing is done. NaN where the gap is not clear.
    """
    nothing = [row["nothing"] for row in rows]
    healthy = [row["healthy"] for row in rows]
    advised = [row["nothing"] if row["advised"] is None else row["advised"] for row in rows]
    gap = float(np.median(nothing) - np.median(healthy))
    error = math.hypot(standard_error(nothing), standard_error(healthy))
    clear = gap > CLEAR_GAP * error and gap > 0
    share: Callable[[Sequence[float]], float] = lambda ends: (  # noqa: E731
        float((np.median(nothing) - np.median(ends)) / gap) if clear else math.nan
    )
    lost = np.array(advised) - np.array(nothing)
    folk = {name: share([row["folk"][name] for row in rows]) for name in FOLK}
    return {
        "case": rows[0]["case"],
        "seeds": len(rows),
        "gap": gap,
        "gap_error": error,
        "clear": clear,
        "healthy": float(np.median(healthy)),
        "nothing": float(np.median(nothing)),
        "advised": float(np.median(advised)),
        "closed": share(advised),
        "folk": folk,
        "mended": clear and share(advised) >= MENDED,
        "folk_mended": {name: clear and closed >= MENDED for name, closed in folk.items()},
        "worse": bool(lost.mean() > max(WORSE * standard_error(lost.tolist()), 1e-6)),
        "parameters": sorted({str(row.get("parameter", "-")) for row in rows}),
        "why_not": sorted({row["why_not"] for row in rows} - {""}),
    }


def figures(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures over the cases whose gap is clear."""
    clear = [case for case in cases if case["clear"]]
    closed = [case["closed"] for case in clear]
    hard = [case for case in clear if not any(case["folk_mended"].values())]
    told: dict[str, Any] = {
        "cases": len(clear),
        "left_out": [case["case"] for case in cases if not case["clear"]],
        "mended": _share(case["mended"] for case in clear),
        "closed_median": float(np.median(closed)) if closed else math.nan,
        "worse": sum(case["worse"] for case in cases),
        "no_folk_remedy_mends": len(hard),
        "of_these_mended": _share(case["mended"] for case in hard),
        "folk": {},
    }
    for name in FOLK:
        ends = [case["folk"][name] for case in clear]
        told["folk"][name] = {
            "mended": _share(case["folk_mended"][name] for case in clear),
            "closed_median": float(np.median(ends)) if ends else math.nan,
        }
    return told


def _share(hits: Any) -> float:
    values = [bool(hit) for hit in hits]
    return sum(values) / len(values) if values else math.nan
