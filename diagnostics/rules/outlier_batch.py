"""Single batches stand far out of the others: a few samples may be corrupt.

What: in a run of several processes the loss of one rank is ten times that of any other in the same
step, at two steps or more of the last 256. In a run of one process, single steps whose loss is
ten times that of the five before and behind it, and as often in each of the last three epochs, one to
four times: samples come up once an epoch, chance does not. A loss under half of the run's first does
not count: near zero a hard batch is ten times the others by nature. Which samples they are is not
recorded, since no loader tells it without being changed: the steps and ranks are named.
Why: one wrong label or an overflow in the data throws back what hundreds of batches have taught.
Source: measured on digits nets with 1 % corrupt rows; PaLM skips the batches of a spike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ..facts import lone_spikes
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import Window
from ..words import count, number

FAMILY = "train"
SHOWN = 8
"""Steps that are named, the last ones."""


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
    if len(places) < context.thresholds["times"]:
        return None
    ranks = [losses.ranks[i] for i in values[places].argmax(axis=1)]
    return Outliers(
        losses.steps[places].tolist(),
        ranks,
        highest[places].tolist(),
        float(np.median(next_one[known])),
        "that of any other rank in the same step",
    )


def _of_epochs(window: Window, context: Context, floor: float) -> Outliers | str | None:
    losses = window.samples("train", "loss")
    epochs = window.samples("train", "epoch")
    if len(epochs) != len(losses) or not np.isfinite(epochs.values).any():
        return "which epoch a step belongs to is not known in a loop of your own"
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
        f"that of the steps around, {count(times[0], 'time')} in each of {least} epochs",
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
                f"loss {number(found.losses[worst])} at step {found.steps[worst]:,}, over "
                f"{number(context.thresholds.fire)} times {found.how}; usual is "
                f"{number(found.usual)}. Steps: {last}",
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
