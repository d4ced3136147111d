"""The training waits for its data: the loader is slower than the model.

What: in three evaluations in a row waiting for data takes more than 30 % of the time of the last
100 steps, and more than 10 ms a step: a shorter wait is what it costs to hand a batch over, and
further workers would not shorten it. Judged in blocks of 20 steps, of which the lower
quartile counts: workers deliver in bursts, so that single steps wait for all of them, an epoch's first
batch waits for the workers to start, and what other programs take of the machine comes and goes.
Why: the accelerator is paid for and idle; no setting of the model makes up for it.
Source: tf.data and PyTorch loaders hide the loading behind the step only while (time to load a
batch) / workers is below the time of a step, which gives the number of workers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import huggingface, own_loop
from ..windows import Window
from ..words import count, number, percent

FAMILY = "train"
BESIDE = " What callbacks that stand behind Otoscope do at the end of a step counts as waiting, too: put it last."


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of a usual step: all of it, waiting for data, and what is left for the training."""

    step: float
    data: float
    compute: float
    last_step: int

    @property
    def share(self) -> float:
        """Share of the step that goes into waiting for data."""
        return self.data / self.step if self.step > 0 else 0.0

    @property
    def gain(self) -> float:
        """How many times as fast the training could be without that wait."""
        return self.step / max(self.step - self.data, 1e-3 * self.step, 1e-9)


def judge(window: Window, context: Context) -> Verdict:
    """Breach where waiting for data takes a large part of each step."""
    numbers = context.thresholds
    pace = _pace(window, context)
    if isinstance(pace, str):
        return unknown(pace)
    strength = pace.share / numbers.fire
    if pace.data < numbers["least_seconds"]:
        return fine(min(strength, 0.5))
    if strength <= 1:
        return fine(strength)
    return breach(strength, _case(context, pace))


def _pace(window: Window, context: Context) -> Pace | str:
    """Return the pace of the last steps, or why it is not known."""
    numbers = context.thresholds
    data = window.samples("train", "data_seconds", count=numbers.window, span=numbers.span)
    steps = window.samples("train", "step_seconds", count=numbers.window, span=numbers.span)
    ours = window.samples("train", "overhead_seconds", count=numbers.window, span=numbers.span)
    if len(data) != len(steps) or not np.isfinite(data.values).any():
        return "how long steps wait for their data was not recorded"
    known = np.isfinite(data.values) & np.isfinite(steps.values)
    if known.sum() < numbers.min_samples:
        return f"fewer than {numbers.min_samples} timed steps since the windows began"
    spent = np.where(np.isfinite(ours.values), ours.values, 0.0) if len(ours) == len(data) else 0.0
    size = int(numbers["block"])
    rows = np.stack([steps.values, data.values, steps.values - data.values - spent])[:, known]
    whole = rows.shape[1] // size
    blocks = rows[:, -whole * size :].reshape(3, whole, size).mean(axis=2)
    # one whole block, so that its parts belong together; that at the lower quartile, since what others
    # take of the machine comes and goes, and a loader that is too slow is so in every block
    shares = blocks[1] / np.maximum(blocks[0], 1e-12)
    low = int(np.argsort(shares, kind="stable")[(whole - 1) // 4])
    step, waited, compute = blocks[:, low].tolist()
    return Pace(step, waited, max(compute, 1e-6), int(data.steps[-1]))


def workers_for(workers: int, waited: float, compute: float) -> int:
    """Return how many workers load as fast as the training computes.

    Without any, loading a batch takes `waited`; w of them take w · (waited + compute) for one.

    >>> workers_for(0, 0.30, 0.10), workers_for(2, 0.10, 0.10)
    (3, 4)
    """
    load = waited if workers == 0 else workers * (waited + compute)
    return max(workers + 1, math.ceil(load / compute - 1e-6))


def _case(context: Context, pace: Pace) -> Case:
    limit = context.thresholds.fire
    because = [
        Evidence(
            f"{percent(pace.share)} of each step is waiting for data: {1000 * pace.data:.3g} of "
            f"{1000 * pace.step:.3g} ms",
            "train",
            "data_seconds",
            pace.last_step,
            pace.data,
            limit * pace.step,
        )
    ]
    return Case(
        title=f"The training waits for its data in {percent(pace.share)} of the time",
        why="The loader is slower than the model: what computes is idle meanwhile. Training "
        f"could be up to {pace.gain:.2g} times as fast.",
        because=tuple(because),
        recommendation=_advice(context, pace),
        may_be_normal="Data that come over a slow network or are made on the fly by another "
        "program; the first epoch of data that are cached later."
        + (BESIDE if huggingface(context) else ""),
    )


def _advice(context: Context, pace: Pace) -> Recommendation:
    workers, cores = context.meta.num_workers, context.meta.cpu_count
    wanted = None if workers is None else workers_for(workers, pace.data, pace.compute)
    if workers is None or wanted is None or (cores is not None and workers >= cores):
        return _inspect(workers, cores, pace)
    value = wanted if cores is None else min(wanted, cores)
    whole = workers * (pace.data + pace.compute) if workers else pace.data
    formula = (
        f"loading a batch takes {number(whole)} s of one process, computing a step "
        f"{number(pace.compute)} s: {number(whole)} / {number(pace.compute)} = {wanted}"
    )
    if value < wanted:
        formula += f", at most the {count(value, 'core')} that are there"
    return Recommendation(
        parameter="num_workers",
        current=workers,
        proposed=value,
        basis="derived",
        formula=formula,
        snippet=_snippet(context, value),
        effect="the next batches are loaded while a step computes",
        verify=f"waiting for data under {percent(context.thresholds.fire / 3)} of a step after "
        "100 steps",
        risk="each worker holds a copy of the data set object in memory"
        + ("; " + _not_enough(value, wanted) if value < wanted else ""),
    )


def _not_enough(value: int, wanted: int) -> str:
    return f"{value} of {wanted} workers shorten the wait, and do not end it"


def _snippet(context: Context, workers: int) -> str:
    if huggingface(context):
        return f"arguments = TrainingArguments(dataloader_num_workers={workers})  # beside your own"
    size = context.meta.batch_size
    batch = f", batch_size={size}" if size else ""
    line = (
        f"DataLoader(dataset{batch}, shuffle=True, num_workers={workers}, "
        "persistent_workers=True, pin_memory=torch.cuda.is_available())"
    )
    if own_loop(context):
        return f"loader = {line}"
    return f"def train_dataloader(self):\n    return {line}"


def _inspect(workers: int | None, cores: int | None, pace: Pace) -> Recommendation:
    if workers is None:
        formula = "nobody told how many processes load the data"
    else:
        formula = f"{count(workers, 'worker')} on {count(cores or 0, 'core')}: more would not help"
    return Recommendation(
        parameter="inspect",
        current=None,
        proposed=[pace.last_step],
        basis="from your run",
        formula=formula,
        snippet="# time dataset[i] for a hundred i: decoding, disk or network? Decode ahead and keep\n"
        "# the result, read larger files in order, or move augmentation onto the device",
        effect=f"up to {pace.gain:.2g} times as many steps in an hour",
        verify="waiting for data under a tenth of a step",
        risk="none",
    )
