"""The processes of a distributed run do not train one model, or train it on the same batches.

What: checksums of the weights, taken bit by bit on every rank at the same steps, differ in two
samples in a row: critical. Or, a warning, two ranks were given the same batch in three samples in a
row, each time another one. Buffers (batch norm's) and sharded weights are not compared; only samples
of steps that all ranks took count.
Why: weights that went apart never come together again; gradients averaged over them belong to
neither. And the same batch on two ranks is computed twice, for one.
Source: TrainCheck infers that parameters are equal across ranks and finds silent faults by it; under
DistributedDataParallel they are equal bit by bit, 20 steps without synchronizing leave them 2 % apart.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import own_loop
from ..windows import Window
from ..words import count, percent

FAMILY = "replicas"


@dataclass(frozen=True, slots=True)
class Sums:
    """Checksums of the steps that all ranks sampled: `weights` [steps, ranks, layers]."""

    steps: np.ndarray
    weights: np.ndarray
    batches: np.ndarray
    layers: tuple[str, ...]
    ranks: tuple[int, ...]


def judge(window: Window, context: Context) -> Verdict:
    """Breach where ranks hold other weights, or the same batches."""
    numbers = context.thresholds
    if context.meta.world_size <= 1:
        return unknown("the run has one process")
    sums = _sums(window, numbers.window, numbers.span)
    if sums is None or len(sums.steps) < numbers.min_samples:
        return unknown(f"fewer than {numbers.min_samples} samples of the same steps of all ranks")
    apart = (sums.weights != sums.weights[:, :1]).any(axis=(1, 2))
    if apart[-numbers.min_samples :].all():
        return breach(2.0, _desync(context, sums, apart))
    pair = _same_batches(sums, int(numbers["same_batches"]))
    if pair is not None:
        return breach(1.5, _shared(context, sums, pair))
    return fine(0.5 if apart[-1] else 0.0)


def _sums(window: Window, samples: int, span: int) -> Sums | None:
    table = window.history.by_rank.get("replicas")
    if table is None:
        return None
    names = [c for c in table.schema.columns if c.quantity == "checksum"]
    found = [window.across("replicas", column.name, span=span) for column in names]
    batches = window.across("replicas", "batch_checksum", span=span)
    if not found or not len(batches):
        return None
    whole = np.flatnonzero(batches.wrote.all(axis=1))[-samples:]
    weights = np.stack([one.values[whole] for one in found], axis=2)
    layers = tuple(column.layer or "" for column in names)
    return Sums(batches.steps[whole], weights, batches.values[whole], layers, batches.ranks)


def _same_batches(sums: Sums, least: int) -> tuple[int, int] | None:
    """Return two ranks that were given the same, ever changing batches, None where none were."""
    last = sums.batches[-least:]
    if len(last) < least or not np.isfinite(last).all():
        return None
    for place in range(1, len(sums.ranks)):
        for other in range(place):
            changing = len(set(last[:, place])) == least
            if changing and (last[:, place] == last[:, other]).all():
                return sums.ranks[other], sums.ranks[place]
    return None


def _odd_ranks(sums: Sums) -> tuple[int, ...]:
    """Return the ranks that do not hold what most hold; where all differ, all but the first."""
    held = [tuple(row) for row in sums.weights[-1]]
    most, times = Counter(held).most_common(1)[0]
    usual = most if times > 1 else held[0]
    return tuple(rank for rank, row in zip(sums.ranks, held, strict=True) if row != usual)


def _desync(context: Context, sums: Sums, apart: np.ndarray) -> Case:
    together = np.flatnonzero(~apart)
    first = int(together[-1]) + 1 if len(together) else 0
    ranks = _odd_ranks(sums)
    unlike = (sums.weights[-1] != sums.weights[-1, :1]).any(axis=0)
    layers = tuple(layer for layer, bad in zip(sums.layers, unlike, strict=True) if bad)
    step = int(sums.steps[first])
    since = (
        f"equal at step {int(sums.steps[first - 1]):,}, not at step {step:,}"
        if first
        else f"not equal at step {step:,}, the first that was looked at"
    )
    who = f"rank {ranks[0]}" if len(ranks) == 1 else count(len(ranks), "rank")
    wrap = (
        "model = torch.nn.parallel.DistributedDataParallel(model)  # and call this one, not the inner"
        if own_loop(context)
        else "trainer = Trainer(strategy='ddp')  # and no optimizer step of its own on single ranks"
    )
    return Case(
        title=f"The weights of {who} are not those of the others",
        why="The ranks train different models, and average gradients that belong to neither; a "
        "checkpoint holds one of them.",
        because=(
            Evidence(
                f"the weights are {since}; {percent(float(unlike.mean()))} of the layers differ, "
                f"the first of them is `{layers[0]}`",
                step=int(sums.steps[-1]),
                value=float(unlike.sum()),
                threshold=0.0,
            ),
        ),
        recommendation=Recommendation(
            parameter="inspect",
            current=None,
            proposed=list(ranks),
            basis="from your run",
            formula="ranks whose checksums are not those of the others",
            snippet=f"{wrap}\n# once, to bring them together: for p in model.parameters(): "
            "torch.distributed.broadcast(p.data, 0)",
            effect="all ranks hold the same weights after every step",
            verify="equal checksums in the next two samples",
            risk="what the other ranks learned alone is lost",
        ),
        may_be_normal="Local steps that are averaged from time to time on purpose, or a part of the "
        "model that each rank keeps for itself.",
        severity="critical",
        ranks=ranks,
        layers=layers,
        onset=step,
    )


def _shared(context: Context, sums: Sums, pair: tuple[int, int]) -> Case:
    size = context.meta.batch_size
    batch = f", batch_size={size}" if size else ""
    least = int(context.thresholds["same_batches"])
    steps = ", ".join(f"{step:,}" for step in sums.steps[-least:])
    world = len(sums.ranks)
    return Case(
        title=f"Ranks {pair[0]} and {pair[1]} train on the same batches",
        why="The same samples are computed twice; the gradient is that of one rank's batch, and an "
        "epoch is gone through more than once.",
        because=(
            Evidence(
                f"the batches of ranks {pair[0]} and {pair[1]} were equal, number by number, at "
                f"steps {steps}",
                step=int(sums.steps[-1]),
                value=float(least),
                threshold=float(least),
            ),
        ),
        recommendation=Recommendation(
            parameter="distributed_sampler",
            current=False,
            proposed=True,
            basis="from your run",
            formula="equal checksums of the batches of two ranks",
            snippet="sampler = torch.utils.data.distributed.DistributedSampler(dataset, shuffle=True)\n"
            f"loader = DataLoader(dataset{batch}, sampler=sampler)  # sampler.set_epoch(epoch) in each",
            effect=f"{world} times as many samples in each step",
            verify="other batches on each rank in the next samples",
            risk="the batch of a step grows by the number of ranks: the learning rate may have to, too",
        ),
        may_be_normal="Ranks that split the model, not the data.",
        severity="warning",
        ranks=pair,
        onset=int(sums.steps[-least]),
    )
