"""The place of a fold in its run: the last point judged, where windows begin, and what was missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

KEPT_GAPS = 20


@dataclass(slots=True)
class Place:
    """Where a fold stands: the last point judged, and where the windows begin."""

    attempt: int = 0
    step: int = 0
    start: int = 0
    since: int = 0
    why_since: str = ""
    events: str = "0-0"
    points: int = 0
    missed: list[list[int]] = field(default_factory=list)
    """[attempt, first step, last step] of samples that were lost, or not kept any more."""

    def miss(self, gap: list[int]) -> None:
        """Note samples that were lost: [attempt, first step, last step]."""
        self.missed = joined(self.missed, gap)[-KEPT_GAPS:]


def joined(gaps: Sequence[list[int]], new: list[int]) -> list[list[int]]:
    """Return gaps with a further one, each [attempt, first, last]; those that touch are one.

    >>> joined([[1, 1, 4], [1, 9, 9]], [1, 5, 7])
    [[1, 1, 7], [1, 9, 9]]
    """
    found: list[list[int]] = []
    for gap in sorted([*gaps, new]):
        if found and found[-1][0] == gap[0] and gap[1] <= found[-1][2] + 1:
            found[-1] = [gap[0], found[-1][1], max(found[-1][2], gap[2])]
        else:
            found.append(gap)
    return found
