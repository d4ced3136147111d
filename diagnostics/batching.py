"""Batching: what the noise scale says of the batch, and the batch to set with its learning rate."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from ..store import Evidence, Recommendation
from ..store.schemas import Json
from .advice import current_rate
from .rule import Context
from .snippets import batch_snippet, optimizer_snippet
from .windows import Window
from .words import count, number, percent, rounded

LARGEST = 8
"""A batch is raised by at most this factor at once: the noise scale moves meanwhile."""


@dataclass(frozen=True, slots=True)
class NoiseOverBatch:
    """The noise scale against the batch of a step, both in samples.

    `scale` and `high` are NaN where only a lower bound is known.
    """

    batch: float
    scale: float
    low: float
    high: float
    step: int
    samples: int
    limit: float

    @property
    def known(self) -> float:
        """The noise scale, or its lower bound where no more is known."""
        return self.scale if math.isfinite(self.scale) else self.low

    def evidence(self) -> Evidence:
        """Return what was seen, in words."""
        share = percent(1 - 1 / (1 + self.known / self.batch))
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


def noise_over_batch(context: Context, times: float) -> NoiseOverBatch | None:
    """Return the noise where it is over `times` the batch with confidence, None where it is not.

    Where the gradient cannot be told from zero, the noise scale has no upper bound, but a lower one.
    """
    noise = context.obstacles.noise
    if not noise.batch or not noise.estimator.samples:
        return None
    found = noise.estimator.estimate()
    low = found.low if math.isfinite(found.low) else noise.estimator.at_least()
    if not low > times * noise.batch:
        return None
    return NoiseOverBatch(
        noise.batch,
        found.scale,
        low,
        found.high,
        noise.step,
        noise.estimator.samples,
        times * noise.batch,
    )


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


def _parts(context: Context) -> tuple[int, int]:
    """Return how many batches of a loader make a step: accumulated ones, and ranks."""
    told = context.meta
    return max(int(told.accumulate_grad_batches or 1), 1), max(int(told.world_size or 1), 1)


def _over(ranks: int) -> str:
    return f" over {ranks} ranks" if ranks > 1 else ""


def smaller_batch(context: Context, batch: float, scale: float) -> tuple[int, float]:
    """Return the batch at which two thirds of a step are signal, and the share of samples it saves."""
    ranks = max(int(context.meta.world_size or 1), 1)
    target = max(round(2 * scale / ranks), 1) * ranks
    return target, 1 - (target + scale) / (batch + scale)


def steps_of(samples: int) -> str:
    """Return how often the noise was measured, in words."""
    return count(samples, "sample")
