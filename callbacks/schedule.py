"""The schedule of a learning rate: when it warms up, decays, rests or jumps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

REST = 50
"""Steps without a change after which a learning rate counts as constant."""

JUMP = 2.0


@dataclass(slots=True)
class Change:
    """What an `lr` event tells: the learning rate before and after, and the phase it is in now."""

    before: float
    after: float
    phase: str


@dataclass(slots=True)
class Schedule:
    """Watches one parameter group's learning rate and names its phase.

    A schedule that moves once an epoch is in one phase, not in two a step: it counts as constant
    only after three of its own intervals.

    >>> schedule = Schedule()
    >>> changes = [schedule.observe(step, lr) for step, lr in enumerate([0.1, 0.2, 0.3, 0.2])]
    >>> [change.phase for change in changes if change]
    ['warmup', 'decay']
    """

    phase: str = "constant"
    _last: float | None = None
    _changed_at: int = 0
    _interval: int = 0

    def observe(self, step: int, lr: float) -> Change | None:
        """Take the learning rate of a step; returns a change of phase or a jump beyond × 2."""
        last, self._last = self._last, lr
        if last is None:
            self._changed_at = step
            return None
        if lr == last:
            quiet = step - self._changed_at
            if self.phase != "constant" and quiet > max(REST, 3 * self._interval):
                self.phase = "constant"
                return Change(last, lr, self.phase)
            return None
        self._interval, self._changed_at = step - self._changed_at, step
        phase = "warmup" if lr > last else "decay"
        if phase != self.phase:
            self.phase = phase
            return Change(last, lr, phase)
        if phase == "decay" and abs(lr) * JUMP < abs(last):
            return Change(last, lr, phase)
        return None


class Schedules:
    """Those of all parameter groups of a run.

    >>> schedules = Schedules(2)
    >>> [schedules.observe(step, lrs) for step, lrs in enumerate([[0.1, 0.2], [0.1, 0.4]])][-1]
    [(1, Change(before=0.2, after=0.4, phase='warmup'))]
    """

    def __init__(self, count: int) -> None:
        self._all = [Schedule() for _ in range(count)]
        self._last: Sequence[float] = ()
        self._rests = False

    def observe(self, step: int, lrs: Sequence[float]) -> list[tuple[int, Change]]:
        """Take the learning rates of a step; returns (place, change) of those that changed."""
        if self._rests and lrs == self._last:  # in nearly every step
            return []
        found: list[tuple[int, Change]] = []
        for place, (schedule, lr) in enumerate(zip(self._all, lrs, strict=True)):
            change = schedule.observe(step, lr) if math.isfinite(lr) else None
            if change is not None:
                found.append((place, change))
        self._last, self._rests = lrs, all(one.phase == "constant" for one in self._all)
        return found
