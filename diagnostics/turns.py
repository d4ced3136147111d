"""Turns: whose run is judged next, so that live ones never wait for a backlog, nor it for them.

A run that trains gets a turn in every tick of the daemon. One that was recorded before, and that
nobody has judged yet, queues: of all that queue, the first ones share one turn a tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..store import Meta
from ..store.runs import last_seen

TURN = 200
"""Points that end a turn: 2,000 steps, half a second at 200 layers. A lease lasts ten."""

LEAST = 10
"""Points that a run counts for at least: to begin and to commit it takes as long as so many."""

LIVE_SECONDS = 60.0
"""A run that was heard of so lately trains, or its reader waits for its verdict."""


class Turns:
    """The runs that queue, first come, first served, with the time at which each was seen."""

    def __init__(self) -> None:
        self._waiting: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, run: object) -> bool:
        return run in self._waiting

    def queue(self) -> list[str]:
        """Return the runs that queue, the first one first."""
        return list(self._waiting)

    def queues(
        self, run: str, seen: float, known: bool, meta: Callable[[str], Meta], now: float
    ) -> bool:
        """Tell whether a run has to queue; one that does not loses its place in the queue.

        `known`: it was judged to its end before, so there is little to read; `meta` is asked for once
        as long as `seen` stays the same.
        """
        if self._waiting.get(run) == seen:
            return True
        if (known and run not in self._waiting) or is_live(meta(run), now):
            self.leave(run)
            return False
        self._waiting[run] = seen  # whoever queues already keeps the place
        return True

    def leave(self, run: str) -> None:
        """Take a run out of the queue."""
        self._waiting.pop(run, None)

    def keep(self, runs: Iterable[str] | Mapping[str, float]) -> None:
        """Let go of all runs but these: the others were deleted."""
        known = set(runs)
        self._waiting = {run: seen for run, seen in self._waiting.items() if run in known}


def is_live(meta: Meta, now: float) -> bool:
    """Tell whether a run was heard of lately, by its own heartbeat: when it was stored tells nothing.

    >>> is_live(Meta(heartbeat={"0": 100.0}), now=103.0), is_live(Meta(started=100.0), now=900.0)
    (True, False)
    """
    return now - last_seen(meta) < LIVE_SECONDS
