"""Curves of a log: a value for each step, of which the last start of a run counts where it was started again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from .log_names import EPOCHS, loss_of, plain_name
from .log_steps import GOING_ON, begins_again, falls_of

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
        found, untrained = self._restarts(lead), self._untrained(lead)
        all_settled = list[_Settled]()
        for name in self._curves:
            ends = found if together or name == lead else self._ends(name, lead, found)
            settled = self._settled(name, sorted({*ends, *self._begun}), untrained)
            if settled.curve:
                log.curves[name] = dict(sorted(settled.curve.items()))
            all_settled.append(settled)
        _remark(log, all_settled, len(falls_of(self._steps_of(lead))))

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

    def _untrained(self, lead: str) -> set[int]:
        """Return the moments of processes that did not train, as of a test at the end: they count no step but 0.

        All that looks back between two moments of the leading curve, or behind its last one, is
        written at step 0, and that curve goes on behind it, not from there.
        """
        found, steps = set[int](), [*self._steps_of(lead), math.inf]
        bounds = pairwise([*self._curves[lead][0], len(self._steps)])
        for i, (first, end) in enumerate(bounds, start=1):
            if i >= GOING_ON and steps[i] >= steps[i - 1]:
                back = [m for m in range(first + 1, end) if self._steps[m] < steps[i - 1]]
                found.update(back if not any(self._steps[m] for m in back) else ())
        return found

    def _ends(self, name: str, lead: str, found: Iterable[_End]) -> set[_End]:
        """Return where a curve ends that may count other steps than the leading one: epochs, or samples."""
        if max(self._steps_of(name)) > ALONG * max(self._steps_of(lead)) + 1:
            return set(self._restarts(name))
        return {*found, *self._restarts(name)} if found else set()

    def _settled(self, name: str, ends: list[_End], untrained: set[int]) -> _Settled:
        """Return the values of a curve that no end comes behind, the last one of each step."""
        settled, steps = _Settled(), [step for _, step in ends]
        floors = [*accumulate(reversed(steps), min, initial=math.inf)][::-1]
        place = 0  # of the next end
        for moment, value in zip(*self._curves[name], strict=True):
            while place < len(ends) and ends[place][0] <= moment:
                place += 1
            step = self._steps[moment]
            if step >= floors[place]:
                end = next(i for i in range(place, len(ends)) if steps[i] <= step)
                settled.gone.add((end, step))
            elif moment in untrained and any(settled.curve):  # it has been beyond step 0
                settled.left_out += 1
            else:
                settled.again += step in settled.curve and repr(settled.curve[step]) != repr(value)
                settled.curve[step] = value
        return settled


@dataclass(slots=True)
class _Settled:
    """A curve as its last start left it.

    `again`: values that replaced one of their step; `left_out`: those of what did not train;
    `gone`: the number of the end, and the step, of each value that an earlier start wrote.
    """

    curve: dict[int, float] = field(default_factory=dict)
    again: int = 0
    left_out: int = 0
    gone: set[tuple[int, int]] = field(default_factory=set)


def _remark(log: Log, settled: Sequence[_Settled], falls: int) -> None:
    """Remark what was left out of curves, or replaced, and where their rows are out of order."""
    often = max(len({end for end, _ in one.gone}) for one in settled)
    dropped = sum(len(one.gone) for one in settled)
    times = "once" if often == 1 else f"{often:,} times"
    log.remark(0 if often else falls, "row looks back to an earlier step: it was sorted in",
               "rows look back to an earlier step: they were sorted in")  # fmt: skip
    if dropped:
        log.remarks.append(
            f"steps begin again {times}, as where a run was started again or several processes write: "
            f"what came last counts, {dropped:,} earlier value{' is' if dropped == 1 else 's are'} left out"
        )
    log.remark(sum(one.left_out for one in settled),
               "value at step 0 was left out: what wrote it so late did not train",
               "values at step 0 were left out: what wrote them so late did not train")  # fmt: skip
    log.remark(sum(one.again for one in settled),
               "value came again for its step: the last one counts",
               "values came again for their steps: the last ones count")  # fmt: skip
