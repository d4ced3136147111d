"""One process of a distributed run is slower than the others, which wait for it in every step.

What: in three of four windows of 50 steps the same rank is busy 15 % longer than the others (time of
the step less its wait for their gradients), by more than 2 ms and by more than five of its own
median deviations; where there are many ranks, of theirs too. The slow rank is the one that waits
least. What we took of its steps is taken off, and of those of the others it is not. A cause is named
only where it covers 80 % of the difference.
Why: the averaged gradients are there when the slowest has brought its own: all ranks train at its
pace.
Source: the straggler scores of large training frameworks compare medians of compute time, with a
limit of 1.33 and no regard to noise; measured on simulated ranks with a spread of 5 %: 0 of 200 runs
flagged, a rank 1.3 times as slow flagged in every window.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import Window
from ..words import percent

FAMILY = "train"
COLUMNS = ("step_seconds", "wait_seconds", "data_seconds", "overhead_seconds")
PER_RANK_MAD = 5
"""Ranks from which on their own spread counts, too: of fewer it says nothing."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of each step and rank, [steps, ranks]; `busy` is the step without the wait.

    `least` is without all that we took of it, too: how much of that lay within the step, and not
    behind it, is not known, so that the truth is between the two.
    """

    steps: np.ndarray
    busy: np.ndarray
    least: np.ndarray
    data: np.ndarray
    wait: np.ndarray
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slow:
    """The slowest rank of a window: how long it was busy, and how long the others, in seconds."""

    rank: int
    busy: float
    others: float
    data: float
    wait: float
    waited: float
    first_step: int
    strength: float


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the same rank keeps the others waiting in most of the last windows."""
    numbers = context.thresholds
    if context.meta.world_size <= 1:
        return unknown("the run has one process")
    size, windows = numbers.window, int(numbers["windows"])
    times = _times(window, size * windows)
    if times is None:
        return unknown("how long each rank waits for the others is not measured here")
    if len(times.steps) < size * windows:
        return unknown(f"fewer than {size * windows} steps of all ranks since the windows began")
    slow = [
        _slowest(times, slice(first, first + size), context)
        for first in range(0, size * windows, size)
    ]
    if None in slow:
        return unknown("too few steps in which each rank's wait is known")
    found = [item for item in slow if item is not None]
    over = [item for item in found if item.strength > 1]
    ranks = [item.rank for item in over]
    rank = max(set(ranks), key=ranks.count) if ranks else -1
    if ranks.count(rank) < int(numbers["of_windows"]):
        return fine(0.9 if ranks else min(0.9, float(np.median([s.strength for s in found]))))
    mine = [item for item in over if item.rank == rank]
    typical = sorted(mine, key=lambda item: item.busy / item.others)[len(mine) // 2]
    return breach(typical.strength, _case(context, typical, mine[0].first_step, times))


def _times(window: Window, count: int) -> Times | None:
    step, wait, data, ours = (window.across("train", name, count=count) for name in COLUMNS)
    if not len(step) or wait.ranks != step.ranks or not np.isfinite(wait.values).any():
        return None
    if not len(ours):
        ours = step.__class__(step.steps, np.zeros_like(step.values), step.wrote, step.ranks)
    spent = np.where(np.isfinite(ours.values), ours.values, 0.0)
    busy = step.values - wait.values
    known = data.values if data.ranks == step.ranks else np.full_like(busy, np.nan)
    return Times(step.steps, busy, np.maximum(busy - spent, 0), known, wait.values, step.ranks)


def _slowest(times: Times, part: slice, context: Context) -> Slow | None:
    """Return the rank that is busy longest in a window, with its strength; None where unknown."""
    numbers, busy = context.thresholds, times.busy[part]
    known = np.isfinite(busy).all(axis=1)
    if known.sum() < numbers["least_known"]:
        return None
    busy, least, waits = busy[known], times.least[part][known], times.wait[part][known]
    usual = np.median(least, axis=0)
    place = int(np.argmax(usual))
    rest = np.delete(busy, place, axis=1)
    others = float(np.median(np.median(rest, axis=0)))
    excess = least[:, place] - np.median(rest, axis=1)
    gap = float(np.median(excess))
    noise = float(np.median(np.abs(excess - gap))) * 1.4826 / np.sqrt(len(excess))
    strength = gap / (max(others, 1e-9) * (numbers.fire - 1))
    limits = [numbers["least_seconds"], numbers["deviations"] * noise]
    if len(times.ranks) >= PER_RANK_MAD:
        spread = np.median(np.abs(np.median(rest, axis=0) - others))
        limits.append(numbers["deviations"] * float(spread))
    if gap <= max(limits):
        strength = min(strength, 0.9)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # a loop of one's own does not time its data
        data = np.nanmedian(times.data[part][known], axis=0)
    return Slow(
        rank=times.ranks[place],
        busy=others + gap,
        others=others,
        data=float(data[place] - np.median(np.delete(data, place))),
        wait=float(np.median(waits[:, place])),
        waited=float(np.median(np.delete(waits, place, axis=1))),
        first_step=int(times.steps[part][0]),
        strength=strength,
    )


def _cause(context: Context, slow: Slow, times: Times) -> tuple[str, str]:
    """Return what makes the rank slow, and what to look at; only what covers most of the gap."""
    covers = context.thresholds["covers"]
    gap = slow.busy - slow.others
    if not np.isfinite(slow.data):
        return "unattributed: how long it waits for its data is not known", "its loader and device"
    if slow.data >= covers * gap:
        return "its loader: it waits for its data", "its disk, its network and its loader's workers"
    if gap - slow.data >= covers * gap:
        return "its computation", "its device (clock, temperature, who else uses it) and its share"
    return "unattributed: partly its loader, partly its computation", "its loader and its device"


def _case(context: Context, slow: Slow, since: int, times: Times) -> Case:
    ratio = slow.busy / slow.others
    lost = 1 - slow.others / slow.busy
    host = context.meta.hosts.get(str(slow.rank))
    where = f"rank {slow.rank}" + (f" on {host}" if host else "")
    cause, look = _cause(context, slow, times)
    because = (
        Evidence(
            f"{where} is busy for {1000 * slow.busy:.3g} ms of a step, the others for "
            f"{1000 * slow.others:.3g} ms ({ratio:.2f} times as long)",
            "train",
            f"wait_seconds@{slow.rank}",
            int(times.steps[-1]),
            slow.wait,
        ),
        Evidence(
            f"it waits {1000 * slow.wait:.3g} ms for the others, they wait "
            f"{1000 * slow.waited:.3g} ms for it; {cause}",
            step=int(times.steps[-1]),
            value=ratio,
            threshold=context.thresholds.fire,
        ),
    )
    return Case(
        title=f"{where[0].upper()}{where[1:]} costs {percent(lost)} of every step",
        why="All ranks train at the pace of the slowest: the others wait for its gradients.",
        because=because,
        recommendation=Recommendation(
            parameter="inspect",
            current=None,
            proposed=[slow.rank],
            basis="from your run",
            formula=f"1 − {1000 * slow.others:.3g} / {1000 * slow.busy:.3g} ms = {percent(lost)}",
            snippet=f"# look at {where}: {look};\n# exchange it for another machine to see whether "
            "the slowness stays with it",
            effect=f"each step takes {percent(lost)} less once it is as fast as the others",
            verify="the ranks wait for each other equally long for 200 steps",
            risk="none",
        ),
        may_be_normal="Rank 0 does more on purpose (logging, an average of the weights), or its "
        "samples are longer than the others'.",
        severity="critical" if ratio >= context.thresholds["critical"] else None,
        ranks=(slow.rank,),
        onset=since,
        scope=f"rank:{slow.rank}",
    )
