"""Curves of a log: a value for each step, of which the last start of a run counts where it was started again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from .log_names import EPOCHS, loss_of, plain_name
from .log_steps import begins_again, falls_of

LARGEST = 2**53
"""No step is larger: it would be no exact number any more."""
ALONG = 1.1
"""A curve counts steps of another kind where its last is beyond the leading curve's by more than this factor."""

_End = tuple[int, int]
"""A moment, and the step at and behind which nothing counts that was written before it."""


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
        self._begun: list[_End] = []  # where the writer says that it begins again

    def __bool__(self) -> bool:
        return bool(self._curves)

    def at(self, step: int) -> None:
        """Begin a moment at a step."""
        self._steps.append(step)

    def begin_again(self, step: int) -> None:
        """End what was written so far of a step and later ones: the writer says that it goes on from there."""
        self._begun.append((len(self._steps), step))
        self.at(step)

    def add(self, name: str, value: float) -> None:
        """Add the value of a curve to the moment that began last."""
        moments, values = self._curves.setdefault(name, ([], []))
        moments.append(len(self._steps) - 1)
        values.append(value)

    def settle(self, log: Log, *, lead: str | None = None, together: bool) -> None:
        """Put the curves into `log`: of a step the value that came last, and nothing of earlier starts.

        Where a run was started again is told by the steps of one curve, the leading one: a
        validation may be written late, or once more, and an epoch stands in rows of any kind.

        Args:
            log: gets the curves, and remarks on what was left out or is out of order.
            lead: the name of the leading curve; None finds the loss by name, else the longest curve.
            together: all curves count the same steps; else each may count what it likes.
        """
        lead = lead if lead in self._curves else self._leading()
        if lead is None:
            return
        found = self._restarts(lead)
        again = dropped = often = 0
        for name in self._curves:
            settled = _Settled()
            ends = found if together or name == lead else self._ends(name, lead, found)
            self._put(name, sorted({*ends, *self._begun}), settled)
            if settled.curve:
                log.curves[name] = dict(sorted(settled.curve.items()))
            again, dropped = again + settled.again, dropped + len(settled.gone)
            often = max(often, len({end for end, _ in settled.gone}))
        falls = len(falls_of(self._steps_of(lead)))
        log.remark(0 if often else falls, "row looks back to an earlier step: it was sorted in",
                   "rows look back to an earlier step: they were sorted in")  # fmt: skip
        _remark_restarts(log, often, dropped)
        log.remark(again, "value came again for its step: the last one counts",
                   "values came again for their steps: the last ones count")  # fmt: skip

    def _leading(self) -> str | None:
        """Return the name of the loss, else of the longest curve that is no epoch."""
        lengths = {name: values for name, (_, values) in self._curves.items()}
        others = [name for name in lengths if plain_name(name) not in EPOCHS] or list(lengths)
        return loss_of(lengths) or max(others, key=lambda name: len(lengths[name]), default=None)

    def _steps_of(self, name: str) -> list[int]:
        return [self._steps[moment] for moment in self._curves[name][0]]

    def _restarts(self, name: str) -> list[_End]:
        """Return where a curve was written anew, from the first moment on that is of the new start."""
        moments, steps, found = self._curves[name][0], self._steps_of(name), list[_End]()
        for i in begins_again(steps):
            # what is written with it, such as a rate, may stand before its first value
            since = range(moments[i - 1] + 1, moments[i])
            first = next((m for m in since if self._steps[m] <= steps[i]), moments[i])
            found.append((first, steps[i]))
        return found

    def _ends(self, name: str, lead: str, found: Iterable[_End]) -> set[_End]:
        """Return where a curve ends that may count other steps than the leading one: epochs, or samples."""
        if max(self._steps_of(name)) > ALONG * max(self._steps_of(lead)) + 1:
            return set(self._restarts(name))
        return {*found, *self._restarts(name)} if found else set()

    def _put(self, name: str, ends: list[_End], settled: _Settled) -> None:
        """Put the values of a curve that no end comes behind, the last one of each step."""
        steps = [step for _, step in ends]
        floors = [*accumulate(reversed(steps), min, initial=math.inf)][::-1]
        place = 0  # of the next end
        for moment, value in zip(*self._curves[name], strict=True):
            while place < len(ends) and ends[place][0] <= moment:
                place += 1
            step = self._steps[moment]
            if step < floors[place]:
                settled.put(step, value)
            else:
                end = next(i for i in range(place, len(ends)) if steps[i] <= step)
                settled.gone.add((end, step))


class _Settled:
    """A curve as its last start left it."""

    def __init__(self) -> None:
        self.curve: dict[int, float] = {}
        self.again = 0
        self.gone: set[tuple[int, int]] = set()
        """The number of the end, and the step, of each value that was left out."""

    def put(self, step: int, value: float) -> None:
        self.again += step in self.curve and repr(self.curve[step]) != repr(value)
        self.curve[step] = value


def _remark_restarts(log: Log, often: int, dropped: int) -> None:
    times = "once" if often == 1 else f"{often:,} times"
    if dropped:
        log.remarks.append(
            f"steps begin again {times}, as where a run was started again or several processes write: "
            f"what came last counts, {dropped:,} earlier value{' is' if dropped == 1 else 's are'} left out"
        )
