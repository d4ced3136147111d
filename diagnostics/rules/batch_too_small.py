"""The batch is too small for what is left to learn: nearly all of a step is noise.

What: the lower bound of the noise scale stands over four times the batch for 200 steps, while the loss
makes no progress (less than 2 % in 200 steps, within two standard errors) far above its floor. Where
the gradient cannot be told from its noise, the noise scale has no upper bound, but a lower one, which
counts; where the noise was sampled too rarely, so does the cosine of consecutive gradients, which is
what the batch leaves of the signal. A warning where the loss is still over half of its start, else
information: the noise scale always rises late. A handful of samples, four or fewer, tell by their
losses alone, as information: the mean of 200 losses is no lower than that of the 200 before by more
than its noise, now and 50 steps ago, over half of the first loss, while single steps differ by an eighth of it and more; with Adam
and one or two samples over a tenth of it, while they differ by all of it.
Why: below the noise scale a step goes as far as its batch is large, and the average of many small
steps is what moves: smaller steps average more of the noise away, at no cost.
Source: McCandlish et al. 2018 (noise scale, time and samples); the price of a larger batch is
(B* + noise) / (B + noise) times the samples. Measured: 30 runs of one to four samples a step that
stood so improved by -10 to 6 % in 200 steps, within 1.5 standard errors; 70 that learn from as few by
12 % or more, from 2.3 standard errors on.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from ...store import Evidence, Recommendation
from ..advice import rate_times
from ..batching import (
    NoiseOverBatch,
    batch_of_handful,
    by_pairs,
    larger_batch,
    noise_over_batch,
    steps_of,
)
from ..guessing import remembered
from ..medians import median_of
from ..progress import Trend, course, scheduled
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import Window
from ..words import count, number, percent

FAMILY = "train"
FROM_START = True
remember = remembered
CREEPING = 1.5
"""Windows over which a slow fall is looked for."""


@dataclass(frozen=True, slots=True)
class _Stand:
    """A loss that stands: its mean, the relative improvement over the mean before, single losses' spread."""

    now: float
    improvement: float
    apart: float
    first_step: int


def judge(window: Window, context: Context) -> Verdict:
    """Breach where noise stands far over the batch and the loss makes no progress."""
    verdict = _by_noise(window, context)
    noise, numbers = context.obstacles.noise, context.thresholds
    few = bool(noise.batch) and float(noise.batch or 0) <= numbers["handful"]
    if verdict.kind == "breach" or not few or _is_calm(context):
        return verdict
    stand = _stand(window, context)
    if isinstance(stand, str):
        return verdict if verdict.kind == "fine" else unknown(f"{verdict.why}, and {stand}")
    if stand is None:
        return fine(0.5)
    # two looks at so many losses are enough: the next ones would hold most of the same
    stood = isinstance(_stand(window, context, behind=numbers.cadence), _Stand)
    case = _case_of_handful(window, context, stand, float(noise.batch or 0))
    return breach(1.0, case, certain=stood)


def _is_calm(context: Context) -> bool:
    """Tell whether the noise scale is known, and not so far over the batch."""
    noise = context.obstacles.noise
    if noise.estimator.samples < context.thresholds.min_samples or not noise.batch:
        return False
    return bool(noise.estimator.estimate().high < context.thresholds.fire * noise.batch)


def _stand(window: Window, context: Context, behind: int = 0) -> _Stand | str | None:
    """Return how the losses of a handful of samples stand, None where they fall, or why it is not known.

    `behind`: so many steps ago.
    """
    numbers, facts = context.thresholds, context.facts
    half, window = numbers.window, replace(window, step=window.step - behind)
    losses = window.samples("train", "loss", count=2 * half, span=2 * numbers.span).finite
    if len(losses) < 2 * half * 0.95:
        return "fewer losses than tell of so few samples"
    schedule = scheduled(window, context, 2 * half, 2 * numbers.span, numbers["decay"])
    if schedule is not None:
        return schedule
    # of so few samples the lowest of the first losses, which `loss_start` may be, is a lucky one
    begin, highest = median_of(facts.first_losses), max(facts.first_losses, default=math.nan)
    guess = context.memory.get("guess")
    if isinstance(guess, (int, float)) and highest < numbers["begun"] * guess:
        return None  # it had learned before: how much is left is not told by its first losses
    old, new = losses.values[:-half], losses.values[-half:]
    before, now = float(old.mean()), float(new.mean())
    # steps of Adam are as long by noise as by a gradient: of a sample or two they undo each other for ever
    lone = context.adaptive and float(context.obstacles.noise.batch or 0) <= numbers["lone"]
    if not (before > 0 and now > numbers["lone_left" if lone else "much_left"] * abs(begin)):
        return None
    error = math.sqrt(float(old.var()) / len(old) + float(new.var()) / len(new))
    improvement, apart = (before - now) / before, float(new.std()) / now
    far = now > numbers["much_left"] * abs(begin)
    # where they differ by more than their mean, means of 200 differ by a tenth of it anyway
    stands = improvement < numbers["seen"] or (lone and not far)
    stands = stands and before - now < numbers["errors"] * error
    if not stands or apart < numbers["apart" if far else "lone_apart"]:
        return None
    return _Stand(now, improvement, apart, int(losses.steps[0]))


def _by_noise(window: Window, context: Context) -> Verdict:
    """Judge by the noise scale, or by pairs of gradients."""
    numbers, noise = context.thresholds, context.obstacles.noise
    pairs, samples = by_pairs(window, context), noise.estimator.samples
    if not noise.batch or (samples < numbers.min_samples and pairs is None):
        return unknown(f"noise was measured in {steps_of(samples)} only")
    if samples >= numbers.min_samples and window.step - noise.step > numbers["young"]:
        return unknown(f"noise was last measured at step {noise.step:,}")
    found = noise_over_batch(window, context, numbers.fire)
    if found is None:
        known = noise.estimator.estimate().low
        if samples < numbers.min_samples and pairs is not None:
            known = pairs.low * noise.batch
        return fine(known / (numbers.fire * noise.batch) if math.isfinite(known) else 0.0)
    losses = window.samples("train", "loss", count=numbers.window, span=numbers.span).finite
    if len(losses) < numbers.window * 0.9:
        return unknown("too few losses since the windows began")
    schedule = scheduled(window, context, numbers.window, numbers.span, numbers["decay"])
    if schedule is not None:
        return unknown(schedule)
    trend = course(losses.steps, losses.values, int(numbers["block"]))
    start = abs(context.facts.loss_start)
    stuck = trend.improvement < numbers["improvement"] and trend.z < numbers["z"]
    if not stuck or _creeps(window, context) or trend.now < numbers["floor"] * start:
        return fine(0.5)
    much_left = trend.now > numbers["much_left"] * start
    strength = found.low / (numbers.fire * found.batch)
    return breach(strength, _case(window, context, found, trend, much_left))


def _creeps(window: Window, context: Context) -> bool:
    """Tell whether a mean of many losses lies under that before by what no noise explains: it learns, slowly."""
    numbers = context.thresholds
    many = int(CREEPING * numbers.window)
    losses = window.samples("train", "loss", count=many, span=2 * numbers.span).finite.values
    half = len(losses) // 2
    old, new = losses[:half], losses[half:]
    error = math.sqrt(float(old.var()) / len(old) + float(new.var()) / len(new))
    return float(old.mean() - new.mean()) > numbers["creeps"] * error


def _case_of_handful(window: Window, context: Context, stand: _Stand, batch: float) -> Case:
    numbers = context.thresholds
    text = (
        f"loss {number(stand.now)} in the mean of {numbers.window} steps, "
        f"{-100 * stand.improvement:+.1f} % against the {numbers.window} before"
    )
    limit = numbers["much_left"] * abs(context.facts.loss_start)
    flat = Evidence(text, "train", "loss", window.step, stand.now, limit)
    text = f"single steps of {count(round(batch), 'sample')} differ by {percent(stand.apart)} of the loss"
    apart = Evidence(text, "train", "loss", window.step, stand.apart, numbers["apart"])
    noise = noise_over_batch(window, context, numbers.fire)
    return Case(
        title=f"Stuck: {count(round(batch), 'sample')} in a step tell too little of what is left to learn",
        why="So few samples hardly agree on a direction: what one step learns the next ones undo.",
        because=(flat, apart) if noise is None else (flat, apart, noise.evidence()),
        recommendation=_advice_of_handful(window, context, batch),
        may_be_normal="The loss floor may be reached: labels that are wrong, targets that the inputs "
        "do not tell.",
        severity="info",
        not_measured=("noise scale: how large a batch would do",) if noise is None else (),
        onset=max(stand.first_step, context.start + 1),
    )


def _case(
    window: Window, context: Context, found: NoiseOverBatch, trend: Trend, much_left: bool
) -> Case:
    numbers = context.thresholds
    text = f"loss {number(trend.now)}, {-100 * trend.improvement:+.1f} % in {numbers.window} steps"
    flat = Evidence(text, "train", "loss", window.step, trend.now, None)
    title = "Stuck: the batch is too small for what is left to learn"
    return Case(
        title=title if much_left else "By now nearly all of a step is noise: the loss hardly falls",
        why="Nearly all of a step is noise: only the average of many steps moves towards the "
        "minimum, and long steps throw it back.",
        because=(found.evidence(), flat),
        recommendation=_advice(window, context, found),
        may_be_normal="The noise scale always rises late; the loss floor may be reached.",
        severity=None if much_left else "info",
        onset=max(trend.first_step, context.start + 1),
    )


def _advice(window: Window, context: Context, found: NoiseOverBatch) -> Recommendation:
    return rate_times(
        window,
        context,
        context.thresholds["thumb"],
        reason=": smaller steps average the noise, too, and cost nothing",
        effect="the loss falls to where the noise of smaller steps holds it, at no extra compute",
        verify="the loss falls by more than 2 % in 300 steps; no change means that it was not noise: "
        "look at dead or frozen layers",
        risk="slower where the loss would have gone on by itself",
        alternatives=larger_batch(window, context, found),
    )


def _advice_of_handful(window: Window, context: Context, batch: float) -> Recommendation:
    """Return more samples a step; with Adam, whose steps do not shrink with the gradient, a lower rate first.

    Of five runs of single samples 0.3 of the rate closed 0.07 to 0.69 of the gap; 16 samples at that rate, over
    as many samples, lost 1.72 and 0.3 of it in two.
    """
    more = batch_of_handful(window, context, batch)
    if not context.adaptive:
        return more
    return rate_times(
        window,
        context,
        context.thresholds["thumb"],
        reason=": smaller steps average the noise, too, and cost nothing",
        effect="the loss falls to where the noise of smaller steps holds it",
        verify="the loss of 200 steps lies under that of the 200 before by more than 5 %",
        risk="slower where the loss would have gone on by itself",
        alternatives=[asdict(more)],
    )
