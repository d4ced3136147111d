"""Curves of a log: a value for each step, of which the last start of a run counts where it was started again."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

GOING_ON = 4
"""Steps that follow one another after a fall to a step that is new: fewer are rows out of order."""
LARGEST = 2**53
"""No step is larger: it would be no exact number any more."""


@dataclass(slots=True)
class Log:
    """The curves of one run by name, {step: value} each; `times` in epoch s by step, where told.

    `remarks`: what of the file could not be used, or was read otherwise than it stands there.
    """

    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def remark(self, count: int, one: str, many: str) -> None:
        """Remark how many there are of something, if any."""
        if count:
            self.remarks.append(f"{count:,} {one if count == 1 else many}")


class Writing:
    """What was written to a log, moment by moment: at which step, and which values of which curves."""

    def __init__(self) -> None:
        self._steps: list[int] = []  # of each moment
        self._curves: dict[str, tuple[list[int], list[float]]] = {}  # moments, values
        self._begun: list[int] = []  # moments at which the writer says that it begins again

    def __bool__(self) -> bool:
        return bool(self._curves)

    def at(self, step: int) -> None:
        """Begin a moment at a step."""
        self._steps.append(step)

    def begin_again(self, step: int) -> None:
        """End what was written so far of a step and later ones: the writer says that it goes on from there."""
        self._begun.append(len(self._steps))
        self.at(step)

    def add(self, name: str, value: float) -> None:
        """Add the value of a curve to the moment that began last."""
        moments, values = self._curves.setdefault(name, ([], []))
        moments.append(len(self._steps) - 1)
        values.append(value)

    def settle(self, log: Log, *, together: bool) -> None:
        """Put the curves into `log`: of a step the value that came last, and nothing of earlier starts.

        Args:
            log: gets the curves, and remarks on what was left out.
            together: all curves count the same steps, so that what begins again ends them all.
        """
        restarts = {
            name: self._restarts(moments, together=together)
            for name, (moments, _) in self._curves.items()
        }
        of_all = set().union(*restarts.values()) if together else set[int]()
        again = dropped = often = 0
        for name, (moments, values) in self._curves.items():
            ends = sorted(of_all | restarts[name] | {*self._begun})
            settled = _Settled()
            for moment, value in zip(moments, values, strict=True):
                while settled.ended < len(ends) and ends[settled.ended] <= moment:
                    settled.end(self._steps[ends[settled.ended]])
                settled.put(self._steps[moment], value)
            for moment in ends[settled.ended :]:
                settled.end(self._steps[moment])
            if settled.curve:
                log.curves[name] = settled.curve
            again, dropped = again + settled.again, dropped + settled.dropped
            often = max(often, settled.often)
        _remark_restarts(log, often, dropped)
        log.remark(again, "value came again for its step: the last one counts",
                   "values came again for their steps: the last ones count")  # fmt: skip

    def _restarts(self, moments: Sequence[int], *, together: bool) -> set[int]:
        """Return the moments from which on a curve was written anew: it falls, and goes on from there."""
        steps = [self._steps[moment] for moment in moments]
        known, found = set[int](), set[int]()
        for i in range(1, len(steps)):
            known.add(steps[i - 1])
            if steps[i] < steps[i - 1] and _goes_on(steps, i, steps[i] in known):
                # what is written with it, such as a rate, may stand before its first value
                since = range(moments[i - 1] + 1, moments[i]) if together else ()
                found.add(next((m for m in since if self._steps[m] <= steps[i]), moments[i]))
        return found


class _Settled:
    """A curve as its last start left it."""

    def __init__(self) -> None:
        self.curve: dict[int, float] = {}
        self._order: list[int] = []  # its steps, rising
        self.again = self.dropped = self.often = 0
        self.ended = 0
        """How many times `end` was called; `often` counts those that ended anything."""

    def put(self, step: int, value: float) -> None:
        if step not in self.curve:
            insort(self._order, step)
        self.again += step in self.curve and repr(self.curve[step]) != repr(value)
        self.curve[step] = value

    def end(self, step: int) -> None:
        """Leave out what stands at a step and later ones."""
        place = bisect_left(self._order, step)
        gone = self._order[place:]
        del self._order[place:]
        for old in gone:
            del self.curve[old]
        self.ended += 1
        self.often += bool(gone)
        self.dropped += len(gone)


def _remark_restarts(log: Log, often: int, dropped: int) -> None:
    times = "once" if often == 1 else f"{often:,} times"
    if dropped:
        log.remarks.append(
            f"steps begin again {times}, as where a run was started again or several processes write: "
            f"what came last counts, {dropped:,} earlier value{' is' if dropped == 1 else 's are'} left out"
        )


def _goes_on(steps: Sequence[int], place: int, is_known: bool) -> bool:
    """Tell whether steps rise from a place on: one that stands alone is a summary, or out of order."""
    if is_known:
        return place + 1 < len(steps) and steps[place + 1] >= steps[place]
    after = steps[place : place + GOING_ON + 1]
    return len(after) > GOING_ON and all(b > a for a, b in pairwise(after))
