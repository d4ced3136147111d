"""The run has become slower than it was.

What: the last four blocks of steps (each at least 50 steps and 10 seconds long) train 25 % fewer
samples a second than the run's best did, fewer than the slowest fifth of the blocks before, and
3.5 of their deviations fewer than their median: where the pace goes up and down by itself, as on a
machine that is shared, nothing has changed. The
slowest tenth of the steps of a block is left out of it: checkpoints, and what we measure. Validation
is no part of a step. Windows begin anew where the number of samples in a step changes.
Why: the same training takes a third longer; a device that throttles, a disk that fills up or a
neighbour do not mend themselves.
Source: change points of samples/s against the run's best (−25 % for 50 steps); the lengths in seconds
are ours: what other processes take comes and goes within seconds, so that steps of 3 ms tell nothing
in fifty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import Window
from ..words import number, percent

FAMILY = "train"
KEPT_BLOCKS = 24
PARTS = ("step_seconds", "data_seconds", "wait_seconds")


@dataclass(frozen=True, slots=True)
class Block:
    """Some steps in a row: seconds and samples of a usual step, and what of it was waiting."""

    first: int
    last: int
    samples: float
    step: float
    data: float
    wait: float

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.step if self.step > 0 else 0.0


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Close the blocks that are long enough; windows are too short for them where steps are.

    `blocks`: [first, last step, samples, seconds, of them waiting for data, for other ranks] of
    each; `begun`: the step behind which the open block began, and its seconds so far; `best`: the
    most samples a second of any block.
    """
    numbers, kept = context.thresholds, context.memory
    blocks: list[list[float]] = list(kept.get("blocks", []))
    best = float(kept.get("best", 0.0))
    begun = max(int(kept.get("begun", context.start + numbers.warm_up)), window.since)
    seen = max(int(kept.get("seen", begun)), begun)
    seconds = float(kept.get("seconds", 0.0)) if begun == kept.get("begun") else 0.0
    new = window.history.column("train", "step_seconds", seen, window.step).finite
    seconds += float(new.values.sum())
    long_enough = window.step - begun >= numbers.window and seconds >= numbers["block_seconds"]
    if long_enough:
        block = _block(window, begun)
        if block is not None:
            if blocks and not _alike(blocks[-1][2], block[2]):
                blocks, best = [], 0.0  # another batch size: another pace
            blocks = [*blocks, block][-KEPT_BLOCKS:]
            best = max(best, Block(*block).rate)  # type: ignore[arg-type]
        begun, seconds = window.step, 0.0
    return {"blocks": blocks, "begun": begun, "seen": window.step, "seconds": seconds, "best": best}


def _block(window: Window, begun: int) -> list[float] | None:
    """Return a usual step behind `begun`: the mean of all but the slowest tenth, as JSON."""
    columns = [window.history.column("train", name, begun, window.step) for name in PARTS]
    samples = window.history.column("train", "samples", begun, window.step)
    known = np.isfinite(columns[0].values) & (columns[0].values > 0)
    if known.sum() < 10:
        return None
    times = columns[0].values[known]
    usual = np.argsort(times, kind="stable")[: max(1, int(0.9 * len(times)))]
    waits = [
        np.nan_to_num(part.values[known][usual]).mean() if len(part) == len(known) else 0.0
        for part in columns[1:]
    ]
    counts = samples.values[known][usual] if len(samples) == len(known) else np.empty(0)
    counts = counts[np.isfinite(counts)]
    size = float(np.median(counts)) if len(counts) else 1.0
    return [begun + 1, window.step, size, float(times[usual].mean()), *map(float, waits)]


def _alike(before: float, now: float) -> bool:
    return abs(now - before) <= 0.02 * max(abs(before), abs(now))


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the last blocks are slower than any that went before."""
    numbers = context.thresholds
    blocks = [Block(int(row[0]), int(row[1]), *row[2:]) for row in context.memory.get("blocks", [])]
    recent = int(numbers["blocks"])
    if len(blocks) < recent + int(numbers["blocks_before"]):
        return unknown(
            "a change of pace is told by blocks of "
            f"{numbers['block_seconds']:.0f} s; {len(blocks)} of "
            f"{recent + int(numbers['blocks_before'])} are over"
        )
    if not min(block.rate for block in blocks) > 0:
        return unknown("how many samples a step has is not known")
    before, now = blocks[:-recent], blocks[-recent:]
    rates = np.array([block.rate for block in before])
    best = float(context.memory["best"])
    fastest = max(block.rate for block in now)
    usual_low = float(np.quantile(rates, numbers["usual"]))
    logs = np.log(rates)
    spread = 1.4826 * float(np.median(np.abs(logs - np.median(logs))))
    unlikely = float(np.exp(np.median(logs) - numbers["deviations"] * spread))
    limit = min((1 - numbers.fire) * best, numbers["margin"] * usual_low, unlikely)
    drop = 1 - float(np.median([block.rate for block in now])) / best
    if fastest >= limit:
        return fine(min(drop / numbers.fire, 0.9))
    return breach(drop / numbers.fire, _case(context, before, now, best))


def _case(context: Context, before: list[Block], now: list[Block], best: float) -> Case:
    usual = sorted(before, key=lambda block: block.rate)[len(before) // 2]
    block = sorted(now, key=lambda block: block.rate)[len(now) // 2]
    rate, drop = block.rate, 1 - block.rate / best
    cause, look = _cause(context, usual, block)
    whole = usual.samples != 1.0
    unit = "samples" if whole else "steps"
    return Case(
        title=f"The run trains {percent(drop)} fewer {unit} a second than it did",
        why=f"Since step {now[0].first:,} a step takes {1000 * block.step:.3g} ms in place of "
        f"{1000 * usual.step:.3g}: the same training takes {block.step / usual.step:.2g} times as long.",
        because=(
            Evidence(
                f"{number(rate)} {unit} a second; the best so far was {number(best)}",
                "train",
                "step_seconds",
                block.last,
                block.step,
                usual.step / (1 - context.thresholds.fire),
            ),
            Evidence(cause, step=block.last, value=block.step),
        ),
        recommendation=Recommendation(
            parameter="inspect",
            current=None,
            proposed=[now[0].first],
            basis="from your run",
            formula=f"first step of the slow part; {number(rate)} / {number(best)} {unit} a second",
            snippet=f"# what began near step {now[0].first:,}? {look}",
            effect=f"up to {best / rate:.2g} times as many steps in an hour",
            verify=f"over {number((1 - context.thresholds.fire) * best)} {unit} a second again",
            risk="none",
        ),
        may_be_normal="Longer sequences or larger pictures on purpose (a curriculum), layers that "
        "were set free, or another job on a machine that is shared.",
        onset=now[0].first,
    )


def _cause(context: Context, usual: Block, block: Block) -> tuple[str, str]:
    """Return what of the step has grown, where it covers most of the difference; what to look at."""
    gap, covers = block.step - usual.step, context.thresholds["covers"]
    if block.data - usual.data >= covers * gap:
        return (
            f"waiting for data grew from {1000 * usual.data:.3g} to {1000 * block.data:.3g} ms",
            "The disk, the network, the loader's workers and the memory for its cache.",
        )
    if block.wait - usual.wait >= covers * gap:
        return (
            f"waiting for other ranks grew from {1000 * usual.wait:.3g} to "
            f"{1000 * block.wait:.3g} ms",
            "The network between the machines, or a rank that has become slow.",
        )
    if context.meta.world_size <= 1 and gap - (block.data - usual.data) >= covers * gap:
        return (
            f"computing a step takes {1000 * gap:.3g} ms longer",
            "The device's clock and temperature, who else uses it, swapping, and larger inputs.",
        )
    return "no single part of the step covers the difference", "Look at device, loader and network."
