"""Ranks: what the page says of each process of a distributed run."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..store import Meta, RunInfo, Store, StreamName
from ..store.ranks import rank_states
from ..store.waits import own_waits, slowest_rank

MEASURED = 16
"""Ranks whose pace an answer tells; of more it tells the state alone."""
LAST_STEPS = 32
SHOWN = 64
"""Ranks in an answer: those that do not train first."""


def rank_rows(
    store: Store, info: RunInfo, meta: Meta, streams: list[StreamName], now: float
) -> list[dict[str, Any]]:
    """Return a row a rank: its state, its last step, how long a step takes it and how long it waits.

    `slowest` marks the rank that the others wait for. Empty for a run of one process.
    """
    states = rank_states(meta, now)
    last = {
        stream.rank: found[0]
        for stream in streams
        if (stream.family, stream.attempt) == ("train", info.attempt)
        and (found := store.home.last_id(info.id, stream)) is not None
    }
    rows: list[dict[str, Any]] = []
    for rank, state in states.items():
        seen = meta.heartbeat.get(str(rank), 0.0)
        age = round(max(0.0, now - seen), 1) if seen >= meta.began else None
        rows.append({"rank": rank, "state": state, "age_seconds": age, "step": last.get(rank)})
    if rows and last and len(last) <= MEASURED:
        _add_pace(store, info, rows, min(last.values()))
    rows.sort(key=lambda row: (row["state"] in ("live", "left"), row["rank"]))
    return rows[:SHOWN]


def _add_pace(store: Store, info: RunInfo, rows: list[dict[str, Any]], upto: int) -> None:
    names = ("wait_seconds", "overhead_seconds", "step_seconds")
    first = max(1, upto - LAST_STEPS)
    found = store.read(info.id, "train", names, start=first, stop=upto, attempt=info.attempt)
    ranks = sorted(int(name.partition("@")[2]) for name in found.columns if name.startswith("wait"))
    if not ranks or not len(found):
        return
    waits, spent, seconds = (
        np.stack([found.column(f"{name}@{rank}") for rank in ranks], axis=1) for name in names
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a rank of which nothing is known
        wait = np.nanmedian(own_waits(found.steps, waits, spent, seconds), axis=0)
        pace = np.nanmedian(seconds, axis=0)
    place = slowest_rank(wait, pace)
    paced = {
        rank: {
            "wait_seconds": _shown(wait[i]),
            "step_seconds": _shown(pace[i]),
            "slowest": place == i,
        }
        for i, rank in enumerate(ranks)
    }
    for row in rows:
        row |= paced.get(row["rank"], {})


def _shown(seconds: float) -> float | None:
    return float(f"{seconds:.3g}") if np.isfinite(seconds) else None
