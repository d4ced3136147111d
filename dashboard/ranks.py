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
    shown = sorted(states, key=lambda rank: (states[rank] in ("live", "left"), rank))[:SHOWN]
    known = set(shown)
    last = _last_steps(store, info, [stream for stream in streams if stream.rank in known])
    rows: list[dict[str, Any]] = []
    for rank in shown:
        seen = meta.heartbeat.get(str(rank), 0.0)
        age = round(max(0.0, now - seen), 1) if seen >= meta.began else None
        row = {"rank": rank, "state": states[rank], "age_seconds": age, "step": last.get(rank)}
        rows.append(row)
    if last and len(states) <= MEASURED:
        _add_pace(store, info, rows, min(last.values()))
    return rows


def _last_steps(store: Store, info: RunInfo, streams: list[StreamName]) -> dict[int, int]:
    """Return the last step of each rank, asked in one round trip: a page asks every second."""
    train = [s for s in streams if (s.family, s.attempt) == ("train", info.attempt)]
    found = store.home.extents(info.id, train, tiers=False) if train else {}
    return {s.rank: extents[0].last for s, extents in found.items() if extents[0] is not None}


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
