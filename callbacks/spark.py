"""The spark: a whole run's loss in a few numbers, for the small curve in the list of runs."""

from __future__ import annotations

import math

MOST = 48
"""Numbers; a pair becomes one whenever there would be more."""


class Spark:
    """Means of the loss over bins of equal length, whose length doubles as the run grows.

    >>> spark = Spark(most=2)
    >>> for loss in (8.0, 6.0, 4.0, 2.0):
    ...     spark.add(loss)
    >>> spark.means()
    [7.0, 3.0]
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._length = 1
        self._bins: list[tuple[float, int]] = []
        self._seen = 0

    def add(self, loss: float) -> None:
        """Take the loss of the next step; one that is not finite leaves its bin as it is."""
        if self._seen == self._most * self._length:
            pairs = zip(self._bins[::2], self._bins[1::2], strict=True)
            self._bins = [(a + b, n + m) for (a, n), (b, m) in pairs]
            self._length *= 2
        if self._seen % self._length == 0:
            self._bins.append((0.0, 0))
        self._seen += 1
        if math.isfinite(loss):
            total, count = self._bins[-1]
            self._bins[-1] = (total + loss, count + 1)

    def means(self) -> list[float]:
        """Return the mean of each bin to four digits; NaN where none of its losses was finite."""
        return [float(f"{total / n:.4g}") if n else math.nan for total, n in self._bins]
