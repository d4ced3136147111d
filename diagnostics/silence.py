"""Silence: ranks that sent nothing for long by the daemon's clock, written as events.

The fold obeys events and reads no clock, so that a replay finds what the daemon found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..store import Event, Meta
from ..store.ranks import LOST_SECONDS, LOST_STEPS, has_ended, step_seconds_of
from ..store.schemas import Json
from .fold import Fold

PAUSE_SECONDS = 1800.0
"""A validation's batch, or a checkpoint on its way to a slow disk, may take so long."""

TOLD_RANKS = 64
"""Ranks of which an event tells what they did last."""

EXCLUDED_SECONDS = 30.0
"""A rank that sent nothing for so long, while another did, is waited for no longer."""


@dataclass
class Silence:
    """When each rank of a run was last seen to move; times are the daemon's, never the rank's."""

    marks: dict[tuple[int, int], tuple[int, float]] = field(default_factory=dict)
    """Of each (attempt, rank): its watermark, and when it moved last."""
    beats: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Of each rank: its heartbeat, and when it moved last."""
    told: set[tuple[int, float]] = field(default_factory=set)
    """(rank, heartbeat) of the silences that were told as `stalled`."""

    def excluded(self, fold: Fold, now: float) -> list[Event]:
        """Return an `excluded` event for every rank that is waited for no longer."""
        number = fold.place.attempt
        marks = fold.marks()
        for rank, mark in marks.items():
            if self.marks.get((number, rank), (None,))[0] != mark:
                self.marks[number, rank] = (mark, now)
        return [
            exclusion(number, rank, mark, now)
            for rank, mark in fold.lagging().items()
            if now - self.marks[number, rank][1] > EXCLUDED_SECONDS
        ]

    def stalled(
        self, meta: Meta, now: float, steps: Mapping[int, int] | None = None
    ) -> list[Event]:
        """Return a `stalled` event for every rank that fell silent for as long as makes it lost.

        In a pause (a validation, a checkpoint) that takes longer. `steps`: the last step of each rank
        that was read. `whole` of the event's body: the other ranks are silent too.
        """
        if has_ended(meta):
            return []
        events: list[Event] = []
        longest = max(LOST_SECONDS, LOST_STEPS * step_seconds_of(meta))
        pause = bool(meta.progress.get("pause"))
        longest = max(longest, PAUSE_SECONDS) if pause else longest
        step = max((steps or {}).values(), default=int(meta.progress.get("step") or 0))
        for name, beat in meta.heartbeat.items():
            rank = int(name) if name.isdecimal() else -1
            if not 0 <= rank < meta.world_size or meta.left.get(name, 0.0) >= beat:
                continue
            if self.beats.get(rank, (None,))[0] != beat:
                self.beats[rank] = (beat, now)
            silent = now - self.beats[rank][1]
            if silent > longest and (rank, beat) not in self.told:
                self.told.add((rank, beat))
                body: dict[str, Json] = {"rank": rank, "seconds": round(silent, 1)}
                body |= self._others(meta, now, longest, steps or {})
                body["pause"] = int(pause)
                # one silence is one event, whoever of several daemons tells it
                name = f"stalled-{meta.attempt}-{rank}-{beat:.3f}"
                events.append(Event("stalled", step, meta.attempt, rank, now, body, name))
        return events

    def _others(
        self, meta: Meta, now: float, longest: float, steps: Mapping[int, int]
    ) -> dict[str, Json]:
        """Return what each rank was doing last: its step, and for how long it has been silent."""
        here = [r for r in self.beats if meta.left.get(str(r), 0.0) < self.beats[r][0]]
        silent = {rank: now - self.beats[rank][1] for rank in here}
        # ranks that wait for each other fall silent at the same time, but not to the second
        last = sorted(silent, key=lambda rank: -silent[rank])[:TOLD_RANKS]
        return {
            "whole": min(silent.values(), default=0.0) > longest / 2,
            "silent": {str(rank): round(silent[rank], 1) for rank in last},
            "steps": {str(rank): steps[rank] for rank in sorted(steps)[:TOLD_RANKS]},
        }

    def watches(self, meta: Meta) -> bool:
        """Tell whether a silence of the run has yet to be told."""
        if has_ended(meta):
            return False
        known = {(rank, beat) for rank, (beat, _) in self.beats.items()}
        return not known or not known <= self.told


def exclusion(attempt: int, rank: int, mark: int, now: float) -> Event:
    """Return the event that a rank is not waited for from a step on."""
    body = {"rank": rank, "from_step": mark}
    return Event("excluded", mark, attempt, rank, now, body, f"excluded-{attempt}-{rank}-{mark}")


def last_steps(fold: Fold) -> dict[int, int]:
    """Return the last step of each rank that was read, those that are waited for no longer too."""
    return fold.log.attempt(fold.place.attempt).excluded | fold.marks()
