"""Single batches stand far out of the others: a few samples may be corrupt.

What: in a run of several processes the loss of one rank is ten times that of any other in the same
step, at two steps or more of the last 256; or at three of them it stands out by six deviations of what
ranks differ by around that step, while no other rank ever does. In a run of one
process, single steps whose loss is
ten times that of the five before and behind it, and as often in each of the last three epochs, one to
four times: samples come up once an epoch, chance does not. A loss under half of the run's first does
not count (under a quarter beside other ranks): near zero a hard batch is ten times the others by nature.
Which samples they are is not recorded, since no loader tells it without being changed: the steps and
ranks are named.
Why: one wrong label or an overflow in the data throws back what hundreds of batches have taught.
Source: measured on digits nets with 1 % corrupt rows; in 27 runs of clean ranks no step of a loss that
counts lies over 3.9 deviations, bad batches at 9 to 26; PaLM skips the batches of a spike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..spikes import lone_spikes
from ..windows import Window
from ..words import count, number

FAMILY = "train"
SHOWN = 8
"""Steps that are named, the last ones."""
MIDDLE = 0.6745
"""Median of the absolute value of a Gaussian, in its deviations."""
AROUND = 20
"""Steps before and behind, of which is told how far ranks differ by chance."""
LEAST = 1e-3
"""Ranks that hold the same loss to this share differ by rounding."""


@dataclass(frozen=True, slots=True)
class Outliers:
    """Steps whose loss stands out, the rank of each (-1 where there is one process), and losses."""

    steps: list[int]
    ranks: list[int]
    losses: list[float]
    usual: float
    how: str


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the loss of single batches stands out again and again."""
    floor = context.thresholds["of_start"] * abs(context.facts.loss_start)
    if not floor > 0:
        return unknown("the loss at the start is not known, or is zero")
    if context.meta.world_size > 1:
        found = _of_ranks(window, context, floor)
    else:
        found = _of_epochs(window, context, floor)
    if isinstance(found, str):
        return unknown(found)
    if found is None:
        return fine()
    return breach(1.5, _case(context, found))


def _of_ranks(window: Window, context: Context, floor: float) -> Outliers | str | None:
    losses = window.across("train", "loss")
    if len(losses) < context.thresholds.min_samples:
        return "too few losses of each rank"
    values = np.where(np.isfinite(losses.values), losses.values, -np.inf)
    order = np.sort(values, axis=1)
    highest, next_one = order[:, -1], order[:, -2]
    known = np.isfinite(highest) & np.isfinite(next_one)
    out = known & (highest > context.thresholds.fire * np.abs(next_one)) & (highest > floor)
    places = np.flatnonzero(out)
    how = f"over {number(context.thresholds.fire)} times that of any other rank in the same step"
    if len(places) < context.thresholds["times"]:
        places = _of_one_rank(values, highest, next_one, known, context)
        how = "beyond what ranks differ by, as no other rank's ever is"
    if not len(places):
        return None
    ranks = [losses.ranks[i] for i in values[places].argmax(axis=1)]
    return Outliers(
        losses.steps[places].tolist(),
        ranks,
        highest[places].tolist(),
        float(np.median(next_one[known])),
        how,
    )


def _of_one_rank(
    values: np.ndarray,
    highest: np.ndarray,
    next_one: np.ndarray,
    known: np.ndarray,
    context: Context,
) -> np.ndarray:
    """Return the places at which one rank, and no other, stands out of how far ranks differ.

    Hard batches come to every rank alike; what comes to a single one again and again is in its data.
    """
    numbers = context.thresholds
    floor = numbers["of_start_apart"] * abs(context.facts.loss_start)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.log(np.where(known & (next_one > 0), highest / next_one, np.nan))
    rows = np.flatnonzero(np.isfinite(apart))
    if len(rows) < numbers.min_samples:
        return np.empty(0, np.int64)
    out = (apart[rows] > numbers["spreads"] * _usual(apart[rows])) & (highest[rows] > floor)
    places = rows[out]
    whose = values[places].argmax(axis=1)
    one = len(places) >= numbers["times_apart"] and (whose == whose[0]).all()
    return places if one else np.empty(0, np.int64)


def _usual(apart: np.ndarray) -> np.ndarray:
    """Return the deviation of the ranks' difference around each step: it grows as the loss falls."""
    padded = np.pad(apart, AROUND, mode="reflect")
    beside = np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1)
    return np.maximum(np.median(beside, axis=1) / MIDDLE, LEAST)


def _of_epochs(window: Window, context: Context, floor: float) -> Outliers | str | None:
    losses = window.samples("train", "loss")
    epochs = window.samples("train", "epoch")
    if len(epochs) != len(losses) or not np.isfinite(epochs.values).any():
        return "which epoch a step belongs to was not recorded"
    known = np.isfinite(losses.values) & np.isfinite(epochs.values)
    steps, values, epoch = losses.steps[known], losses.values[known], epochs.values[known]
    whole = np.unique(epoch)[1:-1]  # the first is cut off by the window, the last is not over
    least = int(context.thresholds["epochs"])
    if len(whole) < least:
        return f"fewer than {least} whole epochs in the window"
    spikes = lone_spikes(values, context.thresholds.fire, floor)
    times = [int((epoch[spikes] == one).sum()) for one in whole[-least:]]
    if not 1 <= times[0] <= context.thresholds["most"] or len(set(times)) > 1:
        return None
    mine = [i for i in spikes if epoch[i] in whole[-least:]]
    return Outliers(
        [int(steps[i]) for i in mine],
        [],
        [float(values[i]) for i in mine],
        float(np.median(values)),
        f"over {number(context.thresholds.fire)} times that of the steps around, "
        f"{count(times[0], 'time')} in each of {least} epochs",
    )


def _case(context: Context, found: Outliers) -> Case:
    ranks = tuple(sorted(set(found.ranks)))
    last = ", ".join(
        f"{step:,}" + (f" (rank {found.ranks[i]})" if found.ranks else "")
        for i, step in list(enumerate(found.steps))[-5:]
    )
    worst = int(np.argmax(found.losses))
    shown = sorted({worst, *range(len(found.steps))[-SHOWN:]})
    others = [
        Evidence(
            f"loss {number(found.losses[i])} at step {found.steps[i]:,}",
            step=found.steps[i],
            value=found.losses[i],
        )
        for i in shown
        if i != worst
    ]
    return Case(
        title=f"The loss leaps at {count(len(found.steps), 'single step')}: look at their samples",
        why="A loss that is high at single steps and at once back again is the batch's, not the "
        "model's: a wrong label, a corrupt file, numbers that overflowed.",
        because=(
            Evidence(
                f"loss {number(found.losses[worst])} at step {found.steps[worst]:,}, {found.how}; "
                f"usual is {number(found.usual)}. Steps: {last}",
                "train",
                "loss",
                found.steps[worst],
                found.losses[worst],
                context.thresholds.fire * found.usual,
            ),
            *others,
        ),
        recommendation=Recommendation(
            parameter="inspect",
            current=None,
            proposed=[found.steps[i] for i in shown],
            basis="from your run",
            formula="steps whose loss stands out",
            snippet="per_sample = torch.nn.functional.cross_entropy(logits, y, reduction='none')\n"
            "print(per_sample.topk(3))  # over the whole training set, once: the corrupt ones lead",
            effect="without these samples the loss makes no leaps",
            verify="no such step in the next epoch",
            risk="rare samples that are right are hard, too: look at them before taking them out",
        ),
        may_be_normal="Rare classes, or sequences of very unequal length.",
        ranks=ranks,
        onset=found.steps[0],
    )
