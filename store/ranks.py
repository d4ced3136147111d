"""Ranks: whether each process of a distributed run still trains, told from its own heartbeat."""

from __future__ import annotations

from typing import Literal

from .schemas import Meta

STALE_SECONDS = 15.0
LOST_SECONDS = 60.0
LOST_STEPS = 10.0
TOGETHER_SECONDS = 10.0
"""Ranks begin together, but not at the same moment: another may have begun before rank 0."""
ENDS_TOGETHER_SECONDS = 15.0
"""Ranks whose run has ended are given so long to say that they have."""

RankState = Literal["live", "stale", "lost", "left", "unheard"]


def age_state(age: float, step_seconds: float) -> Literal["live", "stale", "lost"]:
    """Return what a silence of so many seconds means, at steps of such a length.

    >>> age_state(3.0, 0.1), age_state(20.0, 0.1), age_state(100.0, 0.1), age_state(100.0, 60.0)
    ('live', 'stale', 'lost', 'live')
    """
    if age <= max(STALE_SECONDS, 3 * step_seconds):
        return "live"
    return "stale" if age <= max(LOST_SECONDS, LOST_STEPS * step_seconds) else "lost"


def step_seconds_of(meta: Meta) -> float:
    """Return the seconds of a step as the run told them, 0 where it did not."""
    return float(meta.progress.get("step_seconds") or 0.0)


def has_ended(meta: Meta) -> bool:
    """Tell whether the run's latest attempt has ended."""
    return bool(meta.ended and meta.ended.get("attempt", meta.attempt) == meta.attempt)


def rank_states(meta: Meta, now: float) -> dict[int, RankState]:
    """Return the state of every rank of the latest attempt; empty for a run of one process.

    `left` is a rank that ended as it should, `unheard` one that never told anything: perhaps
    nobody records there. A rank that has not left when its run has ended is lost, however short
    its silence: it was killed, and the others failed at its absence.

    >>> meta = Meta(world_size=2, began=10.0, heartbeat={"0": 100.0, "1": 30.0})
    >>> rank_states(meta, now=101.0)
    {0: 'live', 1: 'lost'}
    """
    if meta.world_size <= 1 or not meta.began:
        return {}
    return {rank: _state(meta, str(rank), now) for rank in range(meta.world_size)}


def _state(meta: Meta, rank: str, now: float) -> RankState:
    if meta.left.get(rank, 0.0) >= meta.began:
        return "left"
    seen = meta.heartbeat.get(rank, 0.0)
    if seen < meta.began - TOGETHER_SECONDS:
        return "unheard"
    if has_ended(meta):
        ended = float((meta.ended or {}).get("t") or 0.0)
        return "lost" if now - max(seen, ended) > ENDS_TOGETHER_SECONDS else "live"
    return age_state(now - seen, step_seconds_of(meta))


def lost_ranks(meta: Meta, now: float) -> list[int]:
    """Return the ranks that fell silent although others did not, or although the run has ended."""
    states = rank_states(meta, now)
    lost = [rank for rank, state in states.items() if state == "lost"]
    heard = [rank for rank, state in states.items() if state != "unheard"]
    return [] if len(lost) == len(heard) else lost
