"""The ledger: the steps of a run as they ended, made into frames of `train` some dozens at a time.

Between two matrix products every line of Python runs with cold caches and takes two to three times
as long as in a loop. So a step leaves a row here and nothing else, and the rows wait for company.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..store import Event, Frame
from ..store.schemas import Json
from .spark import Spark
from .transfer import Fill, Held, Pending

TOGETHER = 64
"""Rows that wait for each other at most."""
LONGEST_WAIT = 0.2
"""Seconds that a row waits at most, as long as steps go on; the sender lingers as long."""
BEGINNING = 8
"""Steps at the start of an attempt that do not wait, so that a run is seen as soon as it begins."""

Told = Mapping[int, Sequence[tuple[str, Mapping[str, Json]]]]
"""Events (kind, body) by the step that they belong to."""


@dataclass(slots=True)
class Row:
    """One step: the numbers of its frame, and its learning rates.

    `late` is what of the numbers is still on the device; `held` what else belongs to the step.
    """

    step: int
    time: float
    values: list[float]
    late: Sequence[Any]
    lrs: Sequence[float]
    held: Held | None = None


class Ledger:
    """Rows that wait, and what they add up to: last and best loss, the spark.

    Args:
        rank: of this process.
        closed: told of the rows that leave, in order; returns the events that they bring.
        seen: told of the numbers of steps, [steps, columns], as soon as the device gave them.
    """

    def __init__(
        self,
        rank: int,
        closed: Callable[[Sequence[Row]], Told],
        seen: Callable[[int, np.ndarray], None] = lambda step, numbers: None,
    ) -> None:
        self.rows: list[Row] = []
        self.loss_last = self.loss_best = math.nan
        self.spark = Spark()
        self._rank = rank
        self._closed = closed
        self._seen = seen
        self._count = 0
        self._settled_at = 0.0

    def add(self, row: Row) -> None:
        """Take the row of the step that ended."""
        self.rows.append(row)

    @property
    def rests_until(self) -> float:
        """The reading of `time.perf_counter` until which rows wait, as long as there are not too many."""
        return 0.0 if self._count < BEGINNING else self._settled_at + LONGEST_WAIT

    def is_due(self, now: float) -> bool:
        """Tell whether the rows have waited long enough, by `time.perf_counter`."""
        if now >= self.rests_until:
            return bool(self.rows)
        return len(self.rows) >= TOGETHER

    def settle(
        self, schema: str, attempt: int, fill: Fill, *, keep: int = 0
    ) -> list[Frame | Pending | Event]:
        """Return all rows but the last `keep` as frames and events, in the order they leave."""
        rows = self.rows[: len(self.rows) - keep]
        del self.rows[: len(rows)]
        self._settled_at = time.perf_counter()
        self._count += len(rows)
        if not rows:
            return []
        with np.errstate(over="ignore"):
            matrix = np.array([row.values for row in rows], dtype=np.float32)
        told = self._closed(rows)
        if not any(row.late for row in rows):
            self._saw(rows[-1].step, matrix)
        elif not all(row.late for row in rows):
            self._saw(rows[-1].step, matrix[[not row.late for row in rows]])
        items: list[Frame | Pending | Event] = []
        rank = self._rank
        for row, values in zip(rows, matrix, strict=True):
            frame = Frame("train", rank, attempt, row.step, row.time, schema, values)
            if row.held is None and not row.late and row.step not in told:
                items.append(frame)  # nearly every step
                continue
            held = row.held or Held()
            held.train.append(
                Pending(frame, row.late, self._filled(fill, row.step) if row.late else None)
            )
            held.events += [
                Event(kind, row.step, attempt, rank, row.time, dict(body))
                for kind, body in told.get(row.step, ())
            ]
            items += held.in_order()
        return items

    def _filled(self, fill: Fill, step: int) -> Fill:
        def filled(values: np.ndarray, arrays: list[np.ndarray]) -> None:
            fill(values, arrays)
            self._saw(step, values[None])

        return filled

    def _saw(self, step: int, numbers: np.ndarray) -> None:
        losses: list[float] = numbers[:, 0].tolist()
        self._seen(step, numbers)
        for loss in losses:
            self.spark.add(loss)
        if losses:
            self.loss_last = losses[-1]
            lowest = min((loss for loss in losses if math.isfinite(loss)), default=math.nan)
            if not lowest >= self.loss_best:
                self.loss_best = lowest if lowest == lowest else self.loss_best
