"""Batching: what the noise scale says of the batch, and the batch to set with its learning rate."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from ..store import Evidence, Recommendation
from ..store.noise import student
from ..store.schemas import Json
from .advice import current_rate, first_step
from .medians import median_of
from .rule import Context
from .snippets import batch_snippet, optimizer_snippet
from .windows import Window
from .words import count, number, percent, rounded

LEAST_PAIRS = 5
"""Fewer cosines of consecutive gradients tell too little of their own spread where they are near zero."""
ZIGZAG = -0.1
"""Gradients that point against each other more than this tell of a valley's walls, not of noise."""
SMOOTH_OVER = 30
"""Losses in a row whose bends tell whether batches differ."""
PAIRS_SPAN = 600
"""Steps back from which pairs tell of the present."""
WHOLE = 4
"""A batch over one of so many parts of the data set is no draw from it any more."""
LARGEST = 8
"""A batch is raised by at most this factor at once: the noise scale moves meanwhile."""
HALF_AS_MUCH = 0.5
"""A rate is raised by this share of what a handful of samples grows by."""
SMALLEST = 16
"""And lowered by at most this one."""


@dataclass(frozen=True, slots=True)
class NoiseOverBatch:
    """The noise scale against the batch of a step, both in samples.

    `scale` and `high` are NaN where only a lower bound is known; `cosine` where it is not by pairs of
    gradients that it is known.
    """

    batch: float
    scale: float
    low: float
    high: float
    step: int
    limit: float
    cosine: float = math.nan

    @property
    def known(self) -> float:
        """The noise scale, or its lower bound where no more is known."""
        return self.scale if math.isfinite(self.scale) else self.low

    def evidence(self) -> Evidence:
        """Return what was seen, in words."""
        share = percent(1 - 1 / (1 + self.known / self.batch))
        if math.isfinite(self.cosine):
            text = (
                f"the gradients of two steps in a row have a cosine of {number(self.cosine)} in the "
                f"mean: {share} of each step or more is noise of a batch of {number(self.batch)}"
            )
            limit = 1 / (1 + self.limit / self.batch)
            return Evidence(text, "gradients", "grad_cosine", self.step, self.cosine, limit)
        if math.isfinite(self.scale):
            text = (
                f"noise scale {number(self.scale)} ({number(self.low)}–{number(self.high)}), batch "
                f"{number(self.batch)}: about {share} of each step is noise"
            )
        else:
            text = (
                f"noise scale at least {number(self.low)}, batch {number(self.batch)}: {share} of "
                "each step or more is noise"
            )
        return Evidence(text, "noise", "noise_scale", self.step, self.known, self.limit)


@dataclass(frozen=True, slots=True)
class NoiseByPairs:
    """The noise scale over the batch, by the mean cosine of consecutive gradients: 95 % interval.

    `high` is infinite where the cosine cannot be told from zero. `span`: steps from the first to the last.
    """

    mean: float
    low: float
    high: float
    step: int
    count: int
    span: int


def _parts_of_one_set(context: Context) -> bool:
    """Tell whether a few batches make the data set: their noise is the same, or one lacks the other's."""
    rows, batch = context.meta.training_samples, context.obstacles.noise.batch
    return bool(rows and batch and batch > rows / WHOLE)


def by_pairs(
    window: Window, context: Context, *, least: int = LEAST_PAIRS, after: float = 0.0
) -> NoiseByPairs | None:
    """Return what pairs of gradients say of the noise, None where they are few or zigzag.

    `least`: fewer than these tell nothing. `after`: none up to this step counts.

    Two gradients over B samples each, at nearly the same weights, share the true gradient alone: their
    cosine is |G|² / (|G|² + tr Σ / B) in the mean, which is 1 / (1 + noise scale / B). Steps that
    overshoot lower it, so that it tells of too much noise only where it does not lie under zero. Two
    batches that are all of the data set, or large parts of it, are no two draws.
    """
    found = window.samples("gradients", "grad_cosine", span=PAIRS_SPAN).finite
    cosines = found.values[found.steps > after]
    if len(cosines) < least or _parts_of_one_set(context):
        return None
    mean = float(cosines.mean())
    error = float(cosines.std(ddof=1)) / math.sqrt(len(cosines))
    error *= float(student(len(cosines) - 1))
    if mean + error < 0 or mean < ZIGZAG:
        return None
    most, low = min(max(mean + error, 1e-9), 1.0), mean - error
    high = 1 / low - 1 if low > 0 else math.inf
    steps = found.steps[found.steps > after]
    span = int(steps[-1] - steps[0])
    return NoiseByPairs(mean, 1 / most - 1, high, int(steps[-1]), len(cosines), span)


def is_smooth(window: Window, batch: float) -> bool:
    """Tell whether the losses bend by far less than batches of so many samples would make them.

    Then each step has the same samples, all of them, which is a choice. A mean over B losses that differ
    by a third of it and more has a deviation of 0.3 / sqrt(B); a thirtieth of that is none.
    """
    losses = window.samples("train", "loss", count=SMOOTH_OVER).finite.values
    if len(losses) < SMOOTH_OVER:
        return False
    bends = np.abs(np.diff(losses, 2))
    apart = median_of(bends) / (0.6745 * math.sqrt(6))
    return apart < 0.01 / math.sqrt(batch) * abs(median_of(losses))


def noise_over_batch(window: Window, context: Context, times: float) -> NoiseOverBatch | None:
    """Return the noise where it is over `times` the batch with confidence, None where it is not.

    Where the gradient cannot be told from zero, the noise scale has no upper bound, but a lower one.
    Where the noise was not measured often enough, pairs of gradients tell.
    """
    noise = context.obstacles.noise
    if not noise.batch:
        return None
    limit = times * noise.batch
    found = noise.estimator.estimate()
    low = found.low if math.isfinite(found.low) else noise.estimator.at_least()
    if low > limit:
        return NoiseOverBatch(noise.batch, found.scale, low, found.high, noise.step, limit)
    pairs = None if math.isfinite(low) else by_pairs(window, context)
    if pairs is None or not pairs.low * noise.batch > limit:
        return None
    low = pairs.low * noise.batch
    return NoiseOverBatch(noise.batch, math.nan, low, math.nan, pairs.step, limit, pairs.mean)


def larger_batch(window: Window, context: Context, noise: NoiseOverBatch) -> list[dict[str, Json]]:
    """Return the alternative of a larger batch with its learning rate, or none.

    B* = min(noise scale, 8 B) in whole micro-batches; lr × min(B*/B, (1 + B_n/B) / (1 + B_n/B*)) for
    SGD, × sqrt(B*/B) for Adam and its kin. Source: McCandlish et al. 2018.
    """
    accumulated, ranks = _parts(context)
    micro = max(noise.batch / accumulated, 1.0)
    # a batch of all the samples has no noise to average any more
    most = float(context.meta.training_samples or math.inf)
    target = min(noise.known, LARGEST * noise.batch, most)
    micros = round(target / micro) if target < most else int(most // micro)
    if micros <= accumulated:
        return []
    batch = micros * micro
    rate, scale = current_rate(window, context), noise.known
    grown = batch / noise.batch
    factor = (
        math.sqrt(grown)
        if context.adaptive
        else min(grown, (1 + scale / noise.batch) / (1 + scale / batch))
    )
    value = rounded(rate * factor)
    more = (batch + scale) / (noise.batch + scale)
    fewer = (1 + scale / noise.batch) / (1 + scale / batch)
    how = "sqrt(B*/B)" if context.adaptive else "min(B*/B, (1 + noise/B) / (1 + noise/B*))"
    advice = Recommendation(
        parameter="accumulate_grad_batches" if accumulated > 1 else "batch_size",
        current=accumulated if accumulated > 1 else round(noise.batch / ranks),
        proposed=micros if accumulated > 1 else round(batch / ranks),
        basis="derived",
        formula=f"B* = min(noise scale {number(scale)}, {LARGEST} × {number(noise.batch)}) = "
        f"{number(batch)} samples{_over(ranks)}; lr {number(rate)} × {how} = {number(value)}",
        snippet=f"{batch_snippet(context, micros, accumulated, round(batch / ranks))}\n"
        f"{optimizer_snippet(context, value)}",
        effect=f"{number(fewer)} times fewer steps, {number(more)} times the samples: worth it where "
        "the machine has room left or more devices are at hand",
        verify="less than half of a step is noise",
        risk="costs more samples in all; the noise scale always rises late in training",
        also=[{"parameter": "lr", "proposed": value}],
    )
    return [asdict(advice)]


def batch_of_handful(window: Window, context: Context, batch: float) -> Recommendation:
    """Return the advice to take eight times as many samples a step, with the rate that goes with it.

    Where nearly all of a step is noise, lr grows with the batch: the same way in fewer steps. By half as much,
    as other steps' signal is in the noise, too: of six runs of two samples eight times the rate set three back
    by 0.2 to 1.9 of their gap, four times the rate closed up to 0.57 of five and lost 0.18 of one. And as far as
    the first step stays under `update_peak`, over which no run falls. A step of so few samples takes
    hardly less time than one of eight times as many. Source: McCandlish et al. 2018.
    """
    accumulated, ranks = _parts(context)
    most = float(context.meta.training_samples or math.inf)
    own = max(int(min(LARGEST * batch, most) / (accumulated * ranks)), 1)
    grown = own * accumulated * ranks / batch
    rate, size = current_rate(window, context), first_step(context)
    room = context.rates["update_peak"] / size if size > 0 else math.sqrt(grown)
    factor = min(max(HALF_AS_MUCH * grown, 1.0), max(room, 1.0))
    value = rounded(rate * factor)
    return Recommendation(
        parameter="batch_size",
        current=round(batch / (accumulated * ranks)),
        proposed=own,
        basis="rule of thumb",
        formula=f"{number(LARGEST)} × {number(batch)} = {number(own * accumulated * ranks)} samples"
        f"{_over(ranks)}; lr {number(rate)} × {number(factor)} = {number(value)}",
        snippet=f"{batch_snippet(context, accumulated, 1, own)}\n"
        f"{optimizer_snippet(context, value)}",
        effect=f"{number(grown)} times as many samples agree on each step, which takes hardly longer",
        verify="the loss of 200 steps lies under that of the 200 before by more than 5 %",
        risk="where the floor is reached already, more samples bring nothing",
        also=[{"parameter": "lr", "proposed": value}],
    )


def _parts(context: Context) -> tuple[int, int]:
    """Return how many batches of a loader make a step: accumulated ones, and ranks."""
    told = context.meta
    return max(int(told.accumulate_grad_batches or 1), 1), max(int(told.world_size or 1), 1)


def _over(ranks: int) -> str:
    return f" over {ranks} ranks" if ranks > 1 else ""


def smaller_batch(context: Context, batch: float, scale: float) -> tuple[int, float]:
    """Return the batch at which two thirds of a step are signal, and the share of samples it saves.

    It is lowered by a factor of 16 at most at once: where hardly any noise is left, two thirds of a
    single sample are signal, and nobody trains with that.
    """
    ranks = max(int(context.meta.world_size or 1), 1)
    target = max(round(max(2 * scale, batch / SMALLEST) / ranks), 1) * ranks
    return target, 1 - (target + scale) / (batch + scale)


def steps_of(samples: int) -> str:
    """Return how often the noise was measured, in words."""
    return count(samples, "sample")
