"""Curves of a log: a value for each step, of which the last start of a run counts where it was started again."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

GOING_ON = 4
"""Steps that follow one another after a fall to a step that is new: fewer are rows out of order."""


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

    def __bool__(self) -> bool:
        return bool(self._curves)

    def at(self, step: int) -> None:
        """Begin a moment at a step."""
        self._steps.append(step)

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
        each = {name: self._restarts(moments) for name, (moments, _) in self._curves.items()}
        union = sorted(set().union(*each.values()))
        again = dropped = 0
        for name, (moments, values) in self._curves.items():
            curve, twice, left_out = self._settled(
                moments, values, union if together else each[name]
            )
            if curve:
                log.curves[name] = curve
            again, dropped = again + twice, dropped + left_out
        if dropped:
            often = len(union) if together else max(map(len, each.values()))
            log.remarks.append(
                f"steps begin again {'once' if often == 1 else f'{often:,} times'}, as where a run was "
                "started again or several processes write: what came last counts, "
                f"{dropped:,} earlier value{' is' if dropped == 1 else 's are'} left out"
            )
        log.remark(again, "value came again for its step: the last one counts",
                   "values came again for their steps: the last ones count")  # fmt: skip

    def _restarts(self, moments: Sequence[int]) -> list[int]:
        """Return the moments from which on a curve was written anew: it falls, and goes on from there."""
        steps = [self._steps[moment] for moment in moments]
        known, found = set[int](), list[int]()
        for i in range(1, len(steps)):
            known.add(steps[i - 1])
            if steps[i] < steps[i - 1] and _goes_on(steps, i, steps[i] in known):
                # what was written with it, such as a rate, may stand before the first value
                since = range(moments[i - 1] + 1, moments[i] + 1)
                found.append(next(m for m in since if self._steps[m] <= steps[i]))
        return found

    def _settled(
        self, moments: Sequence[int], values: Sequence[float], restarts: Sequence[int]
    ) -> tuple[dict[int, float], int, int]:
        """Return {step: value}, how many other values came again, and how many a restart ended."""
        curve, order = dict[int, float](), list[int]()
        again = dropped = done = 0
        for moment, value in zip([*moments, len(self._steps)], [*values, 0.0], strict=True):
            while done < len(restarts) and restarts[done] <= moment:
                cut = bisect_left(order, self._steps[restarts[done]])
                for step in order[cut:]:
                    del curve[step]
                dropped += len(order) - cut
                del order[cut:]
                done += 1
            if moment == len(self._steps):
                break
            step = self._steps[moment]
            if step not in curve:
                insort(order, step)
            again += step in curve and repr(curve[step]) != repr(value)
            curve[step] = value
        return curve, again, dropped


def _goes_on(steps: Sequence[int], place: int, is_known: bool) -> bool:
    """Tell whether steps rise from a place on: one that stands alone is a summary, or out of order."""
    if is_known:
        return place + 1 < len(steps) and steps[place + 1] >= steps[place]
    after = steps[place : place + GOING_ON + 1]
    return len(after) > GOING_ON and all(b > a for a, b in pairwise(after))
