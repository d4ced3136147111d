"""Noting: what a step leaves in which nothing is due, in one line, entered later with others.

Between two matrix products every line of Python runs with cold caches, some 15 times as long as in a
loop. So most steps pass through here alone: they ask whether anything waits, and leave a note.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from .budget import Budget
from .journal import Journal
from .ledger import Row
from .probes.probe import AFTERMATH
from .probes.throughput import Throughput
from .sampling import TENDED, Sampling

PAID_OVER = 32
"""Steps over which the cost of steps that leave together is spread, be they one or 64."""

UNTIMED = 10e-6
"""Seconds of a noted step that nobody times: being asked before it, torch's calling us behind it, and
what a short way through cold caches takes more than the clocks at its ends tell (`benchmarks/steps.py`)."""

Note = tuple[int, float, Sequence[float], float, float, float, float, float, float, float]
"""Step, loss, learning rates, samples, seconds of data, epoch; by the clock: the end of the step before,
when ours began, when it ended; seconds spent earlier in the step."""


class Noting:
    """The part of a recorder that a step passes in which no probe samples and nothing leaves."""

    _journal: Journal
    _budget: Budget
    _sampling: Sampling
    _throughput: Throughput

    def __init__(self) -> None:
        self._notes: list[Note] = []
        self._alone = True
        """Whether no other rank is waited for."""
        self._calm = False
        """Whether the step under way measures nothing, and keeps no batch."""
        self._calm_before = 0.0
        """The first step that may have something to measure, or to let leave."""
        self._lrs: Sequence[float] = []
        self._stepped = False
        self._spent = 0.0
        self._last_end = math.nan
        self.dispatch = 0.0
        """Seconds that whoever calls us spends on it in a step: a cost of ours too."""
        self._owed = 0.0

    def is_calm(self, now: float) -> bool:
        """Tell whether the coming step needs no `before_step`; `now` is `time.perf_counter()`.

        Nothing is due in it, nothing has happened that belongs to it, and no rows leave yet.
        """
        journal = self._journal
        return now < journal.calm_until and journal.step + 1 < self._calm_before

    def _calm_down(self) -> None:
        """Find out until when the steps to come have nothing to do, behind a `before_step`."""
        sampling = self._sampling
        looks_from = sampling.looks_from
        looks = looks_from <= self._journal.step + 1
        self._calm = self._alone and not (looks or sampling.is_armed)
        self._calm_before = min(self._budget.next_step, looks_from) if self._calm else 0.0

    def note(self, loss: object, samples: float, data: float, epoch: float, begun: float) -> bool:
        """Close a step that measured nothing; False where it takes an `end_step`.

        `loss` is that of its only micro-batch, `data` the seconds that it waited for data, `begun`
        the reading of `time.perf_counter` since when the time is ours.
        """
        journal = self._journal
        step = journal.step + 1
        if not (self._calm and self._stepped and step % TENDED and type(loss) is torch.Tensor):
            return False
        if loss.ndim or not loss.is_cpu or type(value := loss.item()) is not float:
            return False
        journal.step = step
        end = time.perf_counter()
        self._notes.append(
            (step, value, self._lrs, samples, data, epoch, self._last_end, begun, end, self._spent)
        )
        self._stepped, self._spent, self._last_end = False, 0.0, end
        return True

    def _enter(self) -> None:
        """Make rows of the steps that were only noted, and put them into the books."""
        if not self._notes:
            return
        notes, self._notes = self._notes, []
        wall = time.time() - time.perf_counter()
        for step, loss, lrs, samples, data, epoch, before, begun, end, spent in notes:
            within = self.dispatch + spent + UNTIMED + self._paid() + end - begun
            told = [
                samples or math.nan,
                begun - before,
                data,
                math.nan,
                math.nan,
                0.0,
                within,
                epoch,
            ]
            values = self._throughput.plain(loss, lrs, told)
            self._budget.ended(end - before, AFTERMATH * max(0.0, within))
            self._journal.done(Row(step, end + wall, values, (), lrs))

    def _paid(self) -> float:
        """Return what this step bears of what it cost to let steps leave."""
        paid = self._owed / PAID_OVER
        self._owed -= paid
        return paid
