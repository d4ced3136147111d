"""The memory of the process grows without end.

What: over ten windows of 100 steps each the memory (of the process, or what is allocated on its
GPU) is larger in each than in the one before, but for one; by more than 1 % in 100 steps, by more
than 64 MB in all, and in the later half at least half as fast as in the earlier. Caches that fill up,
an allocator that warms up and a first plateau slow down, and do not count.
Why: the run ends when the memory does, in the middle of the night.
Source: Amazon SageMaker's rule of growing GPU memory knows averages alone and is fooled by a warm-up;
the usual cause is a loss that is kept with its graph: `losses.append(loss)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ..medians import median_of
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import Samples, Window
from ..words import number, percent

FAMILY = "system"
KINDS = {"rss_bytes": "memory of the process", "gpu_memory_bytes": "memory on its GPU"}


@dataclass(frozen=True, slots=True)
class Growth:
    """How one memory of one rank grew: medians of the windows, in bytes, and their last step."""

    rank: int
    column: str
    medians: np.ndarray
    first_step: int
    last_step: int
    strength: float

    @property
    def each(self) -> float:
        """Bytes from one window to the next."""
        return float(np.median(np.diff(self.medians)))


def judge(window: Window, context: Context) -> Verdict:
    """Breach where some memory grew steadily over all windows."""
    numbers = context.thresholds
    found: list[Growth] = []
    seen = 0
    for column in KINDS:
        own = window.samples("system", column, span=numbers.span)
        ranks = window.ranks("system", column, span=numbers.span) or {0: own}
        for rank, samples in ranks.items():
            seen += len(samples)
            growth = _growth(rank, column, samples.finite, window.step, context)
            if growth is not None:
                found.append(growth)
    if not found:
        return unknown(
            "no memory was measured" if not seen else "fewer than ten windows of memory samples"
        )
    worst = max(found, key=lambda growth: growth.strength)
    if worst.strength <= 1:
        return fine(worst.strength)
    return breach(worst.strength, _case(context, worst, found))


def _growth(rank: int, column: str, samples: Samples, step: int, context: Context) -> Growth | None:
    """Return the growth over the windows up to a step, None where one of them has no sample."""
    numbers = context.thresholds
    size, windows = numbers.window, int(numbers["windows"])
    places = windows - 1 - (step - samples.steps) // size
    medians = np.full(windows, np.nan)
    for place in range(windows):
        inside = samples.values[places == place]
        if len(inside):
            medians[place] = median_of(inside)
    if not np.isfinite(medians).all():
        return None
    rises = np.diff(medians)
    half = len(rises) // 2
    early, late = float(rises[:half].mean()), float(rises[-half:].mean())
    whole = float(medians[-1] - medians[0])
    share = whole / (windows - 1) / max(float(medians[0]), 1.0) * 100 / size
    strength = share / numbers.fire
    steady = (rises > 0).sum() >= len(rises) - 1 and late >= numbers["goes_on"] * early
    # one leap is a buffer that was made once
    leap = float(rises.max()) > numbers["leap"] * whole
    if not steady or leap or whole < numbers["least_bytes"]:
        strength = min(strength, 0.9)
    return Growth(rank, column, medians, step - windows * size + 1, step, max(0.0, strength))


def _case(context: Context, worst: Growth, found: list[Growth]) -> Case:
    first, last = worst.medians[0] / 1e6, worst.medians[-1] / 1e6
    alike = [g for g in found if g.column == worst.column and g.strength > 1]
    ranks = tuple(sorted(growth.rank for growth in alike)) if context.meta.world_size > 1 else ()
    per = worst.each / 1e6
    where = f" of rank {worst.rank}" if ranks else ""
    suffix = f"@{worst.rank}" if ranks else ""
    ahead = 10_000
    text = (
        f"{KINDS[worst.column]}{where}: {number(first)} MB, {number(last)} MB after "
        f"{worst.last_step - worst.first_step + 1:,} steps, larger in each window of 100 steps"
    )
    gpu = worst.column == "gpu_memory_bytes"
    return Case(
        title=f"The {KINDS[worst.column]} grows by {number(per)} MB in 100 steps, without end",
        why=f"At this pace it takes {number(per * ahead / 100)} MB more in the next {ahead:,} steps; "
        "when there is no more of it the run is killed.",
        because=(
            Evidence(
                text,
                "system",
                f"{worst.column}{suffix}",
                worst.last_step,
                float(worst.medians[-1]),
            ),
        ),
        recommendation=Recommendation(
            parameter="inspect",
            current=None,
            proposed=[worst.rank] if ranks else [worst.first_step],
            basis="from your run",
            formula=f"({number(last)} − {number(first)}) MB in {len(worst.medians)} windows: "
            f"{percent(worst.strength * context.thresholds.fire)} in 100 steps",
            snippet="losses.append(loss.item())  # not loss: it keeps the graph of its whole step"
            if gpu
            else "losses.append(loss.item())  # not loss, which keeps its step's graph\n"
            "# else: lists and caches that only grow, in the data set too (workers copy them)",
            effect="the memory stays as it is after the first hundred steps",
            verify="no growth over the next 1,000 steps",
            risk="none",
        ),
        may_be_normal="A data set that is cached in memory as it is read: it ends with the first "
        "epoch.",
        ranks=ranks,
        onset=worst.first_step,
    )
