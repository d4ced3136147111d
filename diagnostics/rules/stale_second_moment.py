"""Adam's second moment is stale: it still holds the small gradients of before, so steps are too long.

What: the square root of mean g² over mean of its running mean stands over 4, for some layer, in 3 of
8 samples, or over 8 in one, and the loss stands over its usual then, and not because of that single batch, whose
echo a run digests. Not in the first 20 steps, nor in those behind a restart of the schedule, whose longer steps
gradients grow by. It began with the first of these whose step was longer than usual: what went up before that was
not of its making.
Why: Adam divides by the root of that running mean, which forgets in 1/(1 − β₂) steps: gradients that
grow at once meet a divisor that is too small, and the update spikes before the loss does.
Source: Cohen et al. 2022 (adaptive methods at the edge), Wortsman et al. 2023 (spikes 1 to 8 steps
after a ratio over 2.3); measured: at most 3.4 in 58 healthy runs, 18 with inputs × 25 for 10 steps.
"""

from __future__ import annotations

import numpy as np

from ...store import Evidence, Recommendation
from ..advice import betas_of, current_rate, remembers_long, shorter_memory
from ..blocks import Made
from ..medians import median_of, quantiles_of
from ..ratios import update_ratios
from ..rule import Case, Context, Later, Verdict, breach, fine, unknown
from ..snippets import optimizer_with
from ..windows import LayerSamples, Table, Window
from ..words import count, listing, number, rounded

FAMILY = "train"
BEFORE = 30
"""Losses, and steps, that tell what was usual before the gradients grew."""
FEW = 5
NEAR = 20
"""Losses that tell whether the loss left its usual."""
LONGER = 1.2
"""A step is longer than usual by so many times the median of at least `FEW` before."""


def judge(window: Window, context: Context) -> Verdict:
    """Breach where several samples, or one beyond doubt, stand over the limit."""
    numbers = context.thresholds
    if not context.adaptive:
        return unknown(f"{context.optimizer_name} has no second moment")
    found = window.derived(
        "gradients", "largest adam_ratio", _largest, count=numbers.window, span=numbers.span
    )
    if found is None:
        return unknown("the second moment was not measured often enough")
    # before its tenth step the running mean is that of a handful of gradients; and a rate that leaps, as at the
    # restart of a schedule, moves the weights to where all gradients are larger for a while
    largest, settled = found.values[:, 0], window.since + int(numbers["settled"])
    known = np.isfinite(largest) & (found.steps > settled)
    if known.sum() < numbers.min_samples:
        return unknown("the second moment was not measured often enough")
    worst = largest[known]
    if not worst.max() > min(numbers.fire, numbers["alone"]):
        return fine(min(float(worst.max()) / numbers.fire, 0.75))
    layers = window.layers("gradients", "adam_ratio", count=numbers.window, span=numbers.span)
    values = np.where(np.isfinite(layers.values[known]), layers.values[known], np.nan)
    seen = LayerSamples(layers.steps[known], values, layers.layers)
    high = _episode(worst > numbers.fire)
    enough = int(high.sum()) >= numbers["several"] and not _loss_falls(window, seen.steps[high])
    alone = worst.max() > numbers["alone"]
    if not (enough or (alone and _loss_is_up(window, context, seen, worst))):
        return fine(min(float(worst.max()) / numbers.fire, 0.75))
    onset = _onset(window, seen.steps[high])
    thumb = remembers_long(context, numbers["second_beta"])
    case = Later(
        lambda: _case(context, window, seen, worst),
        "rule of thumb" if thumb else "from your run",
        onset=onset,
    )
    return breach(float(worst.max()) / numbers.fire, case)


def _largest(table: Table) -> Made | None:
    """Return how the largest ratio of a sample is made, NaN of none.

    A layer without any gradient has no second moment: infinite, and not stale.
    """
    places, _ = table.of_layers("adam_ratio", None)

    def make(table: Table, low: int, high: int) -> np.ndarray:
        rows = table.rows[low:high, places].astype(np.float64)
        return np.fmax.reduce(np.where(np.isfinite(rows), rows, np.nan), axis=1, initial=np.nan)[
            :, None
        ]

    return make, 1


def _episode(high: np.ndarray) -> np.ndarray:
    """Return which samples over the limit are of the last episode, most of whose samples are.

    One that stood out by chance some samples before is not where it began.
    """
    found = np.flatnonzero(high)
    for first in found:
        if high[first : found[-1] + 1].mean() > 0.5:
            return high & (np.arange(len(high)) >= first)
    return high


def _onset(window: Window, high: np.ndarray) -> int:
    """Return the first step of an episode that was longer than usual; its first one where none is known to be.

    Momentum averages gradients: a single one that stands out moves the weights no further than others do,
    and what the loss does next is not its doing.
    """
    steps, ratios = update_ratios(window.history, window.since, window.step)
    before = ratios[steps < high[0]][-BEFORE:]
    if len(before) < FEW:
        return int(high[0])
    longer = steps[ratios > LONGER * median_of(before)]
    found = high[np.isin(high, longer)]
    return int(found[0] if len(found) else high[0])


def _loss_falls(window: Window, high: np.ndarray) -> bool:
    """Tell whether the loss has gone down since the gradients grew: where a net begins to learn they do."""
    losses = window.samples("train", "loss").finite
    before = losses.values[losses.steps < high[0]][-BEFORE:]
    since = losses.values[losses.steps >= high[0]]
    return bool(len(before) and len(since) and median_of(since) < median_of(before))


def _loss_is_up(window: Window, context: Context, seen: LayerSamples, worst: np.ndarray) -> bool:
    """Tell whether the loss left its usual about the sample that stands out.

    Where that batch alone was high, the next one not and none half as high, what its step left behind goes by, or
    loss_spike tells it.
    """
    numbers, at = context.thresholds, int(seen.steps[int(np.argmax(worst))])
    losses = window.samples("train", "loss").finite
    before = losses.values[(losses.steps < at) & (losses.steps >= at - 100)]
    near = losses.values[(losses.steps >= at) & (losses.steps < at + NEAR)]
    if len(near) < 3 or len(before) < NEAR:
        return False
    usual, high = (float(value) for value in quantiles_of(before, 0.5, 0.9))
    least, rise = numbers["rise_of_start"] * context.facts.loss_scale, near[0] - usual
    behind = (near[1:] - usual) / rise if rise > least else np.ones(1)
    if behind[0] < numbers["single"] and behind.max() < numbers["others"]:
        return False
    return bool(quantiles_of(near, 0.75)[0] - high > least)


def _case(context: Context, window: Window, seen: LayerSamples, worst: np.ndarray) -> Case:
    numbers = context.thresholds
    top = int(np.argmax(worst))
    step, ratio = int(seen.steps[top]), float(worst[top])
    row = np.where(np.isfinite(seen.values[top]), seen.values[top], 0.0)
    layers = [seen.layers[i] for i in np.argsort(-row) if row[i] > numbers.fire][:3]
    over = _episode(worst > numbers.fire)
    high, onset = int(over.sum()), _onset(window, seen.steps[over])
    because = (
        Evidence(
            f"gradients of {listing(layers)} are {number(ratio)} times what the second moment "
            f"expects at step {step:,}; over {number(numbers.fire)} in {count(high, 'sample')}",
            "gradients",
            f"adam_ratio/{layers[0]}",
            step,
            ratio,
            numbers.fire,
        ),
    )
    return Case(
        title=f"Steps are up to {number(ratio)} times too long: the optimizer's memory of gradients "
        "is stale",
        why="The step is divided by a running mean of squared gradients that still holds the small "
        "ones of before: the update spikes, and the loss after it.",
        because=because,
        recommendation=_advice(window, context, ratio),
        may_be_normal="A change of the data or the loss on purpose; the first steps after a resume "
        "without the optimizer's state.",
        layers=tuple(layers),
        onset=onset,
    )


def _advice(window: Window, context: Context, ratio: float) -> Recommendation:
    shorter = shorter_memory(window, context, context.thresholds["second_beta"])
    if shorter is not None:
        return shorter
    rate, second = current_rate(window, context), betas_of(context)[1]
    value = rounded(rate / max(ratio, 1.0))
    return Recommendation(
        parameter="lr",
        current=rate,
        proposed=value,
        basis="from your run",
        formula=f"{number(rate)} / {number(ratio)}, for 1 / (1 − {number(second)}) = "
        f"{number(1 / (1 - second))} steps",
        snippet=optimizer_with(context, value),
        effect="steps keep their usual length until the running mean has followed",
        verify="the ratio is under 2.5 again, then set the old rate",
        risk="slower for as long as it is kept",
    )
