"""The list of runs: what each is, and whether it still trains, told from its own heartbeat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .findings import hidden_ids
from .ranks import age_state, has_ended, lost_ranks, step_seconds_of
from .schemas import Finding, Json, Meta, RunInfo, Status


def status_of(meta: Meta, labels: Mapping[str, Json], now: float) -> Status:
    """Return what state a run is in: ended, or by the age of its last sample.

    >>> status_of(Meta(heartbeat={"0": 100.0}), {}, now=103.0)
    'live'
    """
    if meta.ended and has_ended(meta):
        return "failed" if meta.ended.get("how") == "failed" else "finished"
    state = age_state(now - last_seen(meta), step_seconds_of(meta))
    # one that is heard of trains, whoever closed it: finished runs may be deleted
    return "finished" if labels.get("closed") and state == "lost" else state


def last_seen(meta: Meta) -> float:
    """Return when a run was last heard of, in epoch seconds."""
    return max([meta.started, *meta.heartbeat.values()], default=0.0)


def run_info(
    run: str,
    meta: Meta,
    labels: Mapping[str, Json],
    findings: Sequence[Finding],
    obstacles: Mapping[str, Json],
    now: float,
) -> RunInfo:
    """Return one row of the list of runs; what a person set comes before what the run said."""
    step = int(meta.progress.get("step") or 0)
    tags = labels.get("tags")  # whatever somebody wrote there: one run must not hide the others
    open_ = {"critical": 0, "warning": 0, "info": 0}
    hidden = hidden_ids(findings)
    for finding in findings:
        aside = finding.acknowledged or (finding.snoozed_until_step or 0) > step
        if finding.state == "firing" and finding.id not in hidden and not aside:
            open_[finding.severity] += 1
    return RunInfo(
        id=run,
        name=str(labels.get("name") or meta.name or run),
        status=status_of(meta, labels, now),
        attempt=meta.attempt,
        step=step,
        max_steps=meta.max_steps,
        started=meta.started,
        last_seen=last_seen(meta),
        world_size=meta.world_size,
        loss_last=_number(meta.progress.get("loss")),
        loss_best=_number(meta.progress.get("loss_best")),
        open=open_,
        tags=[str(tag) for tag in (tags if isinstance(tags, list) else meta.tags)],
        notes=str(labels.get("notes", meta.notes)),
        parent=meta.parent,
        spark=[_number(value) for value in meta.progress.get("spark") or []],
        obstacles=dict(obstacles),
        lost_ranks=lost_ranks(meta, now),
    )


def _number(value: Json) -> float:
    return math.nan if value is None else float(value)
