"""Stalls: a run that fell silent, which no further step tells; the clock does, in an event.

An event counts at the next point, and a run that stands still has none. So a stall counts as soon
as all steps up to it were read, and again, without effect, when it comes up in its order: a replay
that reads the steps behind it at once finds the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..store import Event
from .settings import whole

if TYPE_CHECKING:
    from .fold import Fold

RULE = "stalled"
KEPT = 20


def heed_stalls(fold: Fold, until: int | None = None) -> None:
    """Let stalls count that wait for a point which may never come, and ends that make up for them."""
    if not fold.place.attempt:
        return
    read = max(fold.marks().values(), default=fold.place.step)
    for number, step, _, event in list(fold.log.events):
        if number == fold.place.attempt and step <= (read if until is None else min(read, until)):
            heed_stall(fold, event)


def heed_stall(fold: Fold, event: Event) -> None:
    """Let one event count, once: `stalled` of a whole run, or its end."""
    memory = fold.memory.get(RULE, {})
    stalls = event.kind == "stalled" and event.body.get("whole") is True
    ends = event.kind == "finished" and event.rank == 0 and "stall" in memory
    seen = list(memory.get("seen", []))
    if not (stalls or ends) or event.id in seen:
        return
    seen = [*seen, event.id][-KEPT:]
    if ends:
        fold.memory[RULE] = {**memory, "seen": seen, "ended": True}
    else:
        seconds = event.body.get("seconds")
        stall = {
            "step": event.step,
            "seconds": float(seconds) if isinstance(seconds, (int, float)) else 0.0,
            "steps": _numbers(event.body.get("steps")),
            "silent": _numbers(event.body.get("silent")),
            "pause": whole(event.body.get("pause"), 0),
        }
        fold.memory[RULE] = {"stall": stall, "seen": seen}
    fold.judge_now(RULE, event.step)


def _numbers(told: object) -> dict[str, float]:
    """Return {rank: number} out of an event's body, which anyone may have written."""
    if not isinstance(told, dict):
        return {}
    return {
        str(rank): value
        for rank, value in told.items()
        if str(rank).isdecimal() and isinstance(value, (int, float))
    }
