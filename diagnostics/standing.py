"""Standing: a loss that never left its start, and what tells that long steps hold it there.

Many a sound run stands at the loss of guessing for a hundred steps and then learns: first steps of 1 to
10 % of the weights are seen there as well. So a long step is no proof beside a loss that merely stands.
The loss itself must tell: it lies above its start, or was thrown up from it, by more than the noise of
batches; or the steps are so long that nothing of the initialization can be left; or half of all units
are dead, or no gradient comes back to half of the layers any more; or it goes on standing, and does not fall by as much as its noise would let one see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..store import Evidence
from .advice import first_step, sound_step
from .facts import BLOCK, mostly_dead
from .medians import median_of
from .rule import Context
from .windows import Window
from .words import number

HIGHEST = 3
"""Losses whose mean tells that they were thrown up: one alone is a hard batch."""
LATEST_LOOKS = 2
"""Samples of the gradients in a row: one may be of a batch that teaches nothing."""
CALM = 20
"""Losses before a leap that tell that nothing was wild by then."""
TO_DEVIATION = 1 / (0.6745 * math.sqrt(2))
"""From the median of absolute differences of neighbours to a deviation, whatever the trend."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What tells that steps are too long, beside their length; `early`: the loss itself, or the net."""

    early: bool
    because: tuple[Evidence, ...] = ()


def spread_of(losses: np.ndarray) -> float:
    """Return the deviation of single losses around their course."""
    apart = np.abs(np.diff(losses))
    return median_of(apart) * TO_DEVIATION if len(apart) else 0.0


def error_of(spread: float, count: int) -> float:
    """Return the standard error of the difference of two medians of so many losses."""
    return spread * math.sqrt(math.pi / max(count, 1))


def ground_of(context: Context, guess: float) -> float:
    """Return the loss that a net begins with: its first one, or that of guessing where it is higher.

    The first losses of a net may lie under that of guessing by luck.
    """
    start = context.facts.loss_start
    return max(start, guess) if _describes(context, guess) else start


def _describes(context: Context, guess: float) -> bool:
    """Tell whether a net begins near the loss of guessing: else that is one of another loss."""
    facts = context.facts
    return abs(guess - facts.loss_start) < context.thresholds["thrown"] * facts.loss_scale


def proof_of(
    window: Window, context: Context, losses: np.ndarray, guess: float, length: list[Evidence]
) -> Proof | None:
    """Return what tells that it is long steps by which the loss stands, None where it may yet fall.

    Args:
        window: what the rule sees.
        context: with the numbers of lr_too_high.
        losses: the last ones, finite.
        guess: the loss of guessing, NaN where it is not known.
        length: the evidence that steps are long.
    """
    numbers, facts = context.thresholds, context.facts
    ground, scale = ground_of(context, guess), facts.loss_scale
    now, spread = median_of(losses), spread_of(losses)
    error = error_of(spread, len(losses))
    if now - ground > max(numbers["above"] * scale, numbers["errors"] * error):
        return Proof(early=True)
    thrown = _thrown(window, context, ground, spread)
    if thrown is not None:
        return Proof(True, (thrown,))
    if _wild(context) or mostly_dead(window, window.step):
        return Proof(early=True)
    dead = cut_off(window)
    if dead is not None:
        return Proof(True, (dead,))
    stood = window.step - context.start
    times = max((e.value / e.threshold for e in length if e.value and e.threshold), default=0.0)
    patience = numbers["patience"] * (1 if times >= numbers["clearly"] else 2)
    least = numbers["seen"] * error
    # one that only comes down to the loss of guessing has learned nothing by that
    known = _describes(context, guess)
    falls = _falls(window, now, least, len(losses)) and not known
    if stood < patience or falls or now < (guess if known else ground) - least:
        return None
    if context.standing("vanishing_gradients"):
        return None  # that explains a loss that stands, and a long step proves nothing beside it
    return Proof(early=False)


def _thrown(window: Window, context: Context, ground: float, spread: float) -> Evidence | None:
    """Return the highest loss where several stand over the ground by more than batches differ."""
    numbers, facts = context.thresholds, context.facts
    all_of_them = window.history.column("train", "loss", context.start, window.step).finite
    if len(all_of_them) < HIGHEST:
        return None
    highest = np.sort(all_of_them.values)[-HIGHEST:]
    rise = float(highest.mean()) - ground
    if not rise > max(numbers["thrown"] * facts.loss_scale, numbers["spreads"] * spread):
        return None
    top = int(np.argmax(all_of_them.values))
    step, value = int(all_of_them.steps[top]), float(all_of_them.values[top])
    text = f"loss {number(ground)} → {number(value)} at step {step:,}: the steps threw it up"
    limit = ground + numbers["thrown"] * facts.loss_scale
    return Evidence(text, "train", "loss", step, value, limit)


def _wild(context: Context) -> bool:
    """Tell whether some step was so long that nothing of the initialization is left.

    One that was made: what momentum would make of the first one, had its gradient stayed, is 13 to 110 % of the
    weights in sixteen sound runs, whose gradient had gone down to a third by the second step.
    """
    facts = context.facts
    longest = max(min(facts.update_first, first_step(context)), facts.update_peak)
    return longest > context.thresholds["wild"] * sound_step(context)


def cut_off(window: Window) -> Evidence | None:
    """Return how many layers got a gradient once and get none at all now, where they are more than half.

    Not a number that is small: a zero, in the last two samples. Units in front of them have died.
    """
    squares = window.layers("gradients", "grad_sq", group="weight")
    known = squares.values[squares.known]
    if len(known) <= LATEST_LOOKS:
        return None
    lost = (known[:-LATEST_LOOKS] > 0).any(axis=0) & (known[-LATEST_LOOKS:] == 0).all(axis=0)
    layers = len(squares.layers)
    if not 2 * int(lost.sum()) > layers > 1:
        return None
    first = squares.layers[int(np.argmax(lost))]
    text = f"no gradient comes back to {int(lost.sum())} of {layers} layers any more"
    return Evidence(
        text, "gradients", f"grad_sq/{first}", int(squares.steps[squares.known][-1]), 0.0
    )


def _falls(window: Window, now: float, least: float, count: int) -> bool:
    """Tell whether the loss lies under itself a while ago, beyond its noise."""
    before = window.samples("train", "loss", count=3 * count).finite.values[: -count or None]
    earlier = median_of(before) if len(before) >= count else math.inf
    return math.isfinite(earlier) and now < earlier - least


def single_batches(window: Window, context: Context) -> dict[str, int]:
    """Return what a rule keeps of single batches: when their first `bursts` were seen, its last `leap`.

    A leap: a loss many times those before it, which were calm. It is the loss of a batch that no step has
    met yet: the weights were sound at the step before.
    """
    numbers = context.thresholds
    kept = {name: int(step) for name, step in context.memory.items() if name in ("bursts", "leap")}
    if "bursts" not in kept and context.facts.bursts_step == window.step:
        kept["bursts"] = window.step
    losses = window.samples("train", "loss", count=2 * CALM).finite
    values = losses.values
    if len(values) > CALM and values.max() > numbers["leap"] * median_of(values[:CALM]) > 0:
        for i in range(CALM, len(values)):
            before = values[i - CALM : i]
            usual = median_of(before)
            if values[i] > numbers["leap"] * usual and before.max() < numbers["calm"] * usual:
                kept["leap"] = int(losses.steps[i])
    return kept


def thrown_by_batches(context: Context, *, never_fell: bool) -> bool:
    """Tell whether single batches threw the run back: a clip mends that, and no rate.

    Of one that never fell only where all that is wild about it came with them, long after its first steps.
    """
    facts, numbers = context.facts, context.thresholds
    bursts, leap = context.memory.get("bursts"), context.memory.get("leap")
    if not never_fell:
        leapt = isinstance(leap, int) and leap > facts.loss_best_step - BLOCK
        return facts.bursts_step > facts.loss_best_step or leapt
    if not isinstance(bursts, int) or bursts - context.start < numbers["patience"]:
        return False
    wild = min(facts.loss_peak_step, facts.update_peak_step) > bursts - BLOCK
    return wild and facts.bursts_step > facts.loss_best_step
