"""The batch is larger than its noise asks for: samples are spent that bring nothing.

What: the upper bound of the noise scale stands under a quarter of the batch for 200 steps after the
first tenth of the run; where the noise was sampled too rarely, the cosine of consecutive gradients
bounds it: of three pairs, as they lie near one another where there is hardly any noise, and at once where
these are from over 150 steps. Not where losses go as smoothly as those of all samples at once, which is a
choice. An opportunity, not a fault.
Why: beyond the noise scale a larger batch hardly makes a step better, and every sample in it costs.
Source: McCandlish et al. 2018; the noise scale is small at the start of every run and grows, so the
first tenth does not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...store import Evidence, Recommendation
from ..batching import by_pairs, is_smooth, smaller_batch, steps_of
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import batch_snippet
from ..windows import Window
from ..words import number, percent

FAMILY = "train"


@dataclass(frozen=True, slots=True)
class _Known:
    """The noise scale, its upper bound, and where they are from; `lasts`: it tells of many steps by itself."""

    scale: float
    high: float
    because: Evidence
    lasts: bool = False


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the noise scale stands far under the batch with confidence."""
    numbers, noise = context.thresholds, context.obstacles.noise
    total = context.meta.max_steps
    if isinstance(total, int) and window.step < numbers["first"] * total:
        return unknown("the noise scale is small at the start of every run")
    if not noise.batch:
        return unknown("how many samples make a step was not recorded")
    found = _known(window, context)
    if isinstance(found, str):
        return unknown(found)
    target, saved = smaller_batch(context, noise.batch, found.scale)
    if not found.high < numbers.fire * noise.batch or target >= noise.batch:
        return fine(numbers.fire * noise.batch / max(found.high, 1e-9))
    strength = numbers.fire * noise.batch / max(found.high, 1e-9)
    case = Case(
        title=f"The batch of {number(noise.batch)} is larger than its noise asks for",
        why="Beyond the noise scale a larger batch hardly makes a step better, and every sample in "
        "it costs.",
        because=(found.because,),
        recommendation=_advice(context, noise.batch, found.scale, target, saved),
        may_be_normal="A machine that takes no longer for the larger batch; the noise scale grows "
        "during training, so that a batch too large now may be right later.",
    )
    return breach(strength, case, certain=found.lasts)


def _known(window: Window, context: Context) -> _Known | str:
    """Return the noise scale by the noise probe, else by pairs of gradients; else why it is not known."""
    numbers, noise = context.thresholds, context.obstacles.noise
    batch, limit = float(noise.batch or 0), numbers.fire * float(noise.batch or 0)
    samples = noise.estimator.samples
    share = f"batch {number(batch)}: {{}} of a step is noise"
    if samples >= numbers.min_samples:
        found = noise.estimator.estimate()
        if not math.isfinite(found.high):
            return "the noise scale has no upper bound yet"
        text = (
            f"noise scale {number(found.scale)} ({number(found.low)}–{number(found.high)}) in "
            f"{steps_of(samples)}, {share.format(percent(1 - 1 / (1 + found.scale / batch)))}"
        )
        because = Evidence(text, "noise", "noise_scale", noise.step, found.scale, limit)
        return _Known(found.scale, found.high, because)
    total = context.meta.max_steps
    after = context.start + numbers["first"] * total if isinstance(total, int) else 0.0
    pairs = by_pairs(window, context, least=int(numbers["pairs"]), after=after)
    if pairs is None or not math.isfinite(pairs.high):
        return f"noise was measured in {steps_of(samples)} only"
    if is_smooth(window, batch):
        return "the losses show no noise of batches: each step seems to have all samples"
    text = (
        f"the gradients of two steps in a row have a cosine of {number(pairs.mean)} in the mean of "
        f"{pairs.count}, {share.format(percent(1 - pairs.mean))} at most"
    )
    least = 1 / (1 + numbers.fire)
    because = Evidence(text, "gradients", "grad_cosine", pairs.step, pairs.mean, least)
    lasts = pairs.span >= numbers["lasts"]
    return _Known((1 / pairs.mean - 1) * batch, pairs.high * batch, because, lasts)


def _advice(
    context: Context, batch: float, scale: float, target: int, saved: float
) -> Recommendation:
    accumulated = max(int(context.meta.accumulate_grad_batches or 1), 1)
    ranks = max(int(context.meta.world_size or 1), 1)
    micro = batch / accumulated
    fewer = max(round(target / micro), 1)
    by_micro = accumulated > 1 and fewer < accumulated
    own = max(round(target / (accumulated * ranks)), 1)  # what each rank's loader gives at once
    return Recommendation(
        parameter="accumulate_grad_batches" if by_micro else "batch_size",
        current=accumulated if by_micro else round(micro / ranks),
        proposed=fewer if by_micro else own,
        basis="derived",
        formula=f"twice the noise scale of {number(scale)}",
        snippet=batch_snippet(context, fewer, accumulated if by_micro else 1, own),
        effect=f"the same loss after {percent(saved)} fewer samples, in "
        f"{number((1 + scale / target) / (1 + scale / batch))} times the steps",
        verify="a third of a step is noise, and the loss falls as far over the same samples",
        risk="more steps: slower by the clock where a step takes as long as before",
    )
