"""Runs as machines make them: frames of pace and memory, of one rank or several, without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from otoscope.diagnostics import judge
from otoscope.store import Column, Event, Frame, MemoryHome, Schema, Store

RUN = "machines-01"
TRAIN = {
    "loss": "mean",
    "samples": "sum",
    "step_seconds": "each",
    "data_seconds": "each",
    "wait_seconds": "each",
    "overhead_seconds": "each",
}
USUAL = {
    "loss": 1.0,
    "samples": 64.0,
    "step_seconds": 0.1,
    "data_seconds": 0.002,
    "wait_seconds": np.nan,
    "overhead_seconds": 0.0005,
}
TRAIN_SCHEMA = Schema("train", tuple(Column.of(n, ranks=r) for n, r in TRAIN.items()))  # type: ignore[arg-type]

Told = Callable[[int, int], Mapping[str, float]]
"""(rank, step) → what differs from USUAL."""


def frames_of(steps: range, told: Told, ranks: int = 1, attempt: int = 1) -> list[Frame]:
    frames = []
    for step in steps:
        for rank in range(ranks):
            values = {**USUAL, **told(rank, step)}
            vector = np.array([values[name] for name in TRAIN], np.float32)
            schema = TRAIN_SCHEMA.hash
            frames.append(Frame("train", rank, attempt, step, 1e9 + step, schema, vector))
    return frames


def family_of(
    family: str, steps: Sequence[int], told: Told, ranks: int = 1
) -> tuple[Schema, list[Frame]]:
    """Return schema and frames of a family whose columns are those that are told of."""
    names = list(told(0, steps[0]))
    schema = Schema(family, tuple(Column.of(name, ranks="each") for name in names))
    frames = [
        Frame(
            family, rank, 1, step, 1e9, schema.hash, np.array(list(told(rank, step).values()), "f4")
        )
        for step in steps
        for rank in range(ranks)
    ]
    return schema, frames


def run_of(
    steps: int,
    told: Told = lambda rank, step: {},
    *,
    ranks: int = 1,
    others: Sequence[tuple[Schema, list[Frame]]] = (),
    events: Sequence[Event] = (),
    **meta: Any,
) -> dict[str, Any]:
    """Return what is judged of such a run, by all rules."""
    home = MemoryHome()
    home.write_meta(
        RUN, {"name": "machines", "world_size": ranks, "progress": {"step": steps}, **meta}
    )
    home.add_schema(RUN, TRAIN_SCHEMA)
    begun = Event("started", body={"world_size": ranks, "start_step": 0})
    frames = frames_of(range(1, steps + 1), told, ranks)
    for schema, more in others:
        home.add_schema(RUN, schema)
        frames = more + frames
    home.append(RUN, frames, [begun, *events])
    return judge(Store(home), RUN)


def finding(
    judged: Mapping[str, Any], rule: str, state: str | None = None
) -> dict[str, Any] | None:
    """Return the first finding of a rule, None where it has none; `state`: in that state alone."""
    for item in judged["findings"]:
        if item["rule"] == rule and state in (None, item["state"]):
            return item
    return None
