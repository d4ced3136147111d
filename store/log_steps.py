"""Steps of a table's rows: as its column counts them, or on and on where that begins anew with each epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

STEPS = (
    "step", "global_step", "_step", "trainer/global_step", "train/global_step", "iteration", "iter",
    "iterations", "steps", "global_iteration", "batch", "update", "num_updates",
)  # fmt: skip
"""Columns that count steps, the likeliest first; any case, blanks and dashes as underscores."""
TOTALS = ("global_step", "_step", "trainer/global_step", "train/global_step", "global_iteration", "num_updates")  # fmt: skip
"""Those of them that never count within an epoch."""
EPOCHS = ("epoch", "train_epoch", "train/epoch", "current_epoch", "epochs")
FEW = 10
"""Losses of an end of an epoch that are compared with those of the next one's beginning."""
CLOSER = 3
"""How many times closer the beginning of an epoch is to the end of the last one than to the first beginning."""

Numbers = Sequence[float | None]
Counts = Sequence[int | None]


def rows_in_order(epochs: Numbers) -> list[int]:
    """Return the step of each row where no column counts them: 1, 2, …, set back where the epoch falls.

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
            following = told[seen + 1] if seen + 1 < len(told) else epoch
            before = told[seen - 1] if seen else epoch
            if epoch < before and following < before:  # else one row that looks back
                while firsts and firsts[-1][0] >= epoch:
                    step = firsts.pop()[1]
            if not firsts or epoch > firsts[-1][0]:
                firsts.append((epoch, step))
        steps.append(step)
    return steps


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


def parts(counts: Counts) -> list[int]:
    """Return to which part each row belongs, from 0 on: one begins where the count returns to its lowest.

    >>> parts([0, 1, 2, 0, None, 1])
    [0, 0, 0, 1, 1, 1]
    """
    lowest = min((count for count in counts if count is not None), default=0)
    part, before, found = 0, lowest, list[int]()
    for count in counts:
        if count is not None:
            part += count == lowest < before
            before = count
        found.append(part)
    return found


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
