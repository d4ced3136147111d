"""Steps of a log's rows: as its column counts them, on and on where that begins anew with each epoch, or from a new start on."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

STEPS = (
    "step", "global_step", "_step", "trainer/global_step", "train/global_step", "iteration", "iter",
    "iterations", "steps", "global_iteration", "batch", "update", "num_updates",
)  # fmt: skip
"""Columns that count steps, the likeliest first; any case, blanks and dashes as underscores."""
TOTALS = ("global_step", "_step", "trainer/global_step", "train/global_step", "global_iteration", "num_updates")  # fmt: skip
"""Those of them that never count within an epoch."""
GOING_ON = 4
"""Steps that are written anew, rising, where a run was started again: fewer are summaries, or out of order."""
FEW = 10
"""Losses of an end of an epoch that are compared with those of the next one's beginning."""
CLOSER = 3
"""How many times closer the beginning of an epoch is to the end of the last one than to the first beginning."""

Numbers = Sequence[float | None]
Counts = Sequence[int | None]


def falls_of(steps: Sequence[int]) -> list[int]:
    """Return the places of the steps that are lower than the one before.

    >>> falls_of([1, 2, 1, 2, 2])
    [2]
    """
    return [i for i, (before, step) in enumerate(pairwise(steps), start=1) if step < before]


def begins_again(steps: Sequence[int]) -> list[int]:
    """Return the places from which on steps are written anew, as where a run was started again.

    They fall there, and then GOING_ON of them or more, rising, are steps that were written before.
    Where falls are few, fewer than steps between two of them, they may lie between such steps, too,
    as behind a checkpoint. Where they are many, rows are out of order, and to sort them loses nothing.

    >>> begins_again([0, 1, 2, 3, 4, 5, 1, 2, 3, 4]), begins_again([0, 1, 2, 3, 4, 5, 0, 5])
    ([6], [])
    """
    falls = falls_of(steps)
    if not falls or len(falls) * 2 * GOING_ON > len(steps) + 2 * GOING_ON:
        return []
    between = len(falls) ** 2 <= len(steps)
    found, standing = list[int](), sorted({*steps[: falls[0]]})
    for first, end in pairwise([*falls, len(steps)]):
        run = list(dict.fromkeys(steps[first:end]))
        under = run[: bisect_right(run, standing[-1])]
        low, high = bisect_left(standing, run[0]), bisect_right(standing, under[-1])
        if _written_over(standing[low:high], under, between=between) >= GOING_ON:
            found.append(first)
            standing[low:] = run
        else:
            standing[low:high] = sorted({*standing[low:high], *under})
            standing += run[len(under) :]
    return found


def _written_over(old: Sequence[int], new: Sequence[int], *, between: bool) -> int:
    """Return how many new steps are old ones, or have old ones between the last new one and them; all rise.

    >>> old, new = [10, 20, 30, 40], [10, 25, 26, 40]
    >>> _written_over(old, new, between=True), _written_over(old, new, between=False)
    (3, 2)
    """
    if not between:
        return len({*old} & {*new})
    passed = [0, *(bisect_right(old, step) for step in new)]
    return sum(now > before for before, now in pairwise(passed))


def falls_only(epochs: Numbers, counts: Counts) -> bool:
    """Tell whether rows stand from the last one to the first: steps, or epochs and steps in them, only fall.

    Rows that lack one of what is told at all are passed over. Epochs alone stand in several rows.

    >>> falls_only([None] * 3, [2, 1, 0]), falls_only([1, 1, 0], [1, 0, 1]), falls_only([1, 1, 0], [None] * 3)
    (True, True, True)
    """
    steps = [count for count in counts if count is not None]
    if steps and _falls(steps):
        return True
    columns = [column for column in (epochs, counts) if any(value is not None for value in column)]
    rows = [row for row in zip(*columns, strict=True) if None not in row]
    return _falls(rows) if steps else _falls(list(dict.fromkeys(rows)))


def _falls(values: Sequence[Any]) -> bool:
    return len(values) > 1 and all(b < a for a, b in pairwise(values))


def rows_in_order(epochs: Numbers) -> list[int]:
    """Return the step of each row where no column counts them: 1, 2, …, set back where the epoch falls.

    Rows that look back set nothing back: they are less than half of those they would write over,
    and less than GOING_ON.

    >>> rows_in_order([0, 0, 1, 1, 2, 0, 0, 1])
    [1, 2, 3, 4, 5, 1, 2, 3]
    """
    told = [epoch for epoch in epochs if epoch is not None]
    firsts = list[tuple[float, int]]()  # each epoch that rose, and its first row's step
    steps, seen = list[int](), -1
    for epoch in epochs:
        step = steps[-1] + 1 if steps else 1
        if epoch is not None:
            seen += 1
            before = told[seen - 1] if seen else epoch
            if epoch < before:
                anew = next((first for known, first in firsts if known >= epoch), step)
                again = _rising_below(told[seen : seen + GOING_ON], before)
                if again > 1 and again >= min(GOING_ON, (step - anew) / 2):
                    step = anew
                    firsts = [first for first in firsts if first[0] < epoch]
            if not firsts or epoch > firsts[-1][0]:
                firsts.append((epoch, step))
        steps.append(step)
    return steps


def _rising_below(epochs: Sequence[float], limit: float) -> int:
    """Return how many epochs from the first on do not fall and are below a limit."""
    falls = (i for i, (a, b) in enumerate(pairwise(epochs), start=1) if b < a)
    rising = epochs[: next(falls, len(epochs))]
    return bisect_left(rising, limit)


def counts_within_epochs(counts: Counts, epochs: Numbers) -> bool:
    """Tell whether a column counts within epochs: it falls where the epoch rises, mostly.

    One that counts all steps rises there; it falls where a run was started again, and so does the epoch.
    """
    known = [
        (math.floor(epoch), count)
        for epoch, count in zip(epochs, counts, strict=True)
        if epoch is not None and count is not None
    ]
    rises = [(a, b) for (before, a), (now, b) in pairwise(known) if now > before]
    falls = sum(b < a for a, b in rises)
    is_constant = len({count for _, count in known}) == 1
    return bool(rises) and (2 * falls > len(rises) or is_constant)


def counted_on(counts: Counts, blank: Sequence[bool], epochs: Numbers) -> list[int | None]:
    """Return the step of each row where a column counts within epochs: its place among all of them.

    Rows whose count is blank belong to the one before; the same count of the same epoch is one step.

    >>> counted_on([0, 5, None, 0, 5], [False, False, True, False, False], [0, 0, 0, 1, 1])
    [1, 2, 2, 3, 4]
    """
    last: tuple[int, int] | None = None
    keys = list[tuple[int, int] | None]()
    for count, is_blank, epoch in zip(counts, blank, _carried(counts, epochs), strict=True):
        if count is not None and epoch is not None:
            last = (math.floor(epoch), count)
            keys.append(last)
        else:
            keys.append(last if is_blank else None)
    places = {key: place for place, key in enumerate(sorted(set(filter(None, keys))), start=1)}
    return [None if key is None else places[key] for key in keys]


def _carried(counts: Counts, epochs: Numbers) -> list[float | None]:
    """Return the epoch of each row: where it is not told that of the row before, of the next after a fall."""
    ahead, coming = list[float | None](), None
    for epoch in reversed(epochs):
        coming = coming if epoch is None else epoch
        ahead.append(coming)
    filled, epoch, before = list[float | None](), None, None
    for count, told, following in zip(counts, epochs, reversed(ahead), strict=True):
        has_fallen = count is not None and before is not None and count < before
        if told is not None:
            epoch = told
        elif epoch is None or has_fallen:
            epoch = following
        before = before if count is None else count
        filled.append(epoch)
    return filled


def parts(counts: Numbers) -> list[int]:
    """Return to which part each row belongs, from 0 on: one begins where the count returns to its lowest.

    >>> parts([0, 1, 2, 0, None, 1]), parts([2, 1, 0])
    ([0, 0, 0, 1, 1, 1], [0, 0, 0])
    """
    lowest = min((count for count in counts if count is not None), default=0)
    part, before, found, is_known = 0, lowest, list[int](), False
    for count in counts:
        if count is not None:
            part += is_known and count == lowest < before
            before, is_known = count, is_known or count == lowest
        found.append(part)
    return found


def counted_again(counts: Numbers, parts: Sequence[int]) -> list[bool]:
    """Tell of each count behind the first part whether it is none that is higher than those of the first one.

    >>> counted_again([0, 1, 2, 0, None, 3], [0, 0, 0, 1, 1, 1])
    [True, False]
    """
    told = [(part, count) for part, count in zip(parts, counts, strict=True) if count is not None]
    highest = max((count for part, count in told if part == 0), default=0)
    return [count <= highest for part, count in told if part > 0]


def go_on(losses: Numbers, parts: Sequence[int]) -> bool:
    """Tell whether parts are surely epochs of one run: of one length, and each begins as the last one ended.

    Not so where a run was started again, or several processes wrote one after another: there each
    part begins where the first one began.
    """
    values = [list[float]() for _ in range(parts[-1] + 1)]
    for loss, part in zip(losses, parts, strict=True):
        if loss is not None and math.isfinite(loss):
            values[part].append(loss)
    lengths = [parts.count(part) for part in range(len(values))]
    few = min(FEW, lengths[0] // 5)
    if not few or min(map(len, values)) < few:
        return False
    if lengths[-1] > lengths[0] or any(length != lengths[0] for length in lengths[:-1]):
        return False
    begin = median(values[0][:few])
    ends = [(median(a[-few:]), median(b[:few])) for a, b in pairwise(values)]
    return all(abs(now - before) * CLOSER < abs(now - begin) for before, now in ends)
