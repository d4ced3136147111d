"""The learning rate is too high: steps overshoot and the loss climbs, or never falls.

What: the median of 50 losses stands 1.3 times over the best such window in three evaluations, or
no window ever fell below the first loss; and a step is too long by its own measure: the largest
eigenvalue stands over the optimizer's edge of stability, a step moves the weights by more than
2 %, the first step is longer than that of most runs that train, or the rate was raised far over
one at which the loss was better. A loss that merely stands at its start is not climbing: sound runs
do so for a hundred steps and learn then, with first steps as long. There more must tell: the
loss stands over its start, or was thrown up from it, by more than its noise; a step that was made leaves
nothing of the initialization; half of the units are dead, or no gradient comes back to half of the layers any
more. Else 200 steps without a fall that its noise would let one see, 400 where steps are hardly too
long, and a warning only. Besides: steps of Adam so long that the weights of some hundred steps ago are
gone, or a first one over a seventh of the weights, a tenth with one sample a step (weights that were
drawn far smaller than usual count as larger), while the loss stands far above its floor; a step of the
first ones that leaves nothing of the initialization, after which the loss goes up, and does not come back
from that (with Adam and its kin the first step is that of the layers that have a gradient by then; later
ones of RMSprop are shorter, which is no excuse for a loss that was thrown up a hundredfold). Sharpness alone never fires: healthy runs hover at the edge while their loss
falls. In a log of others, which does not tell how long steps are, a loss that climbs tells alone.
Why: along the steepest direction each step lands farther out than it began.
How far to trust it: on 16 held-out nets the proposed rate was survived by 88 % with SGD, 87 % with
momentum and 60 % with Adam, and the edge at the initialization did not tell at which rate a training
blows up (docs/trust.md); so the edge never fires by itself.
Source: Cohen et al. 2021 (gradient descent at the edge of stability), 2022 (adaptive methods);
measured on small nets: 1.8 / eigenvalue mends what halving does not; the first step moves the
weights by 0.05 to 0.6 % in runs that train with SGD, by 1.6 to 75 % in runs whose loss never falls;
but two convnets that stood at the loss of guessing for 70 to 200 steps and learned then began with
1.1 to 1.8 % (momentum) and 8.5 % (Adam), and no three of their losses stood 10 % over the first.
"""

from __future__ import annotations

import math

import numpy as np

from ...store.schemas import Json
from ..advice import current_rate, first_step, one_layer, raised, sound_step
from ..facts import BLOCK
from ..forgetting import drawn_small, first_of_moved, forgets, left_of, of_moved, torn
from ..high_rates import blown_up_case, climbed_case, forgotten_case, torn_case
from ..long_steps import first_evidence, first_too_long, too_long
from ..medians import median_of
from ..rule import Context, Verdict, breach, fine, unknown
from ..standing import (
    cut_off,
    error_of,
    proof_of,
    single_batches,
    spread_of,
    thrown_by_batches,
)
from ..unlogged import is_log
from ..windows import Window

FAMILY = "train"
FROM_START = True
FEW = 5
LATEST = 15


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep how far the losses of the best window lay apart, the loss of guessing, and the first bursts.

    By so much any window differs from the best one. Besides the first step of the layers that it moved,
    where most of them had no gradient, and how small the weights were drawn.
    """
    kept = context.memory
    if "guess" not in kept:
        guess = window.samples("initialization", "expected_loss").finite.values
        if len(guess):
            kept = {**kept, "guess": float(guess[0])}
    kept = {**kept, **single_batches(window, context)}
    if "drawn" not in kept and (drawn := drawn_small(window, context)) is not None:
        kept = {**kept, "drawn": drawn}
    if context.facts.update_first == 0 and "moved" not in kept:
        kept = {**kept, "moved": first_of_moved(window, context)}
    if context.facts.loss_best_step != window.step:
        return kept  # type: ignore[return-value]  # as it was
    losses = window.samples("train", "loss", count=BLOCK).finite.values
    return {**kept, "spread": spread_of(losses)}


def _guess(context: Context) -> float:
    """Return the loss of guessing, as measured at the first step, else of the classes; NaN unknown."""
    kept, classes = context.memory.get("guess"), context.meta.classes or 0
    if isinstance(kept, (int, float)):
        return float(kept)
    return math.log(classes) if classes > 1 else math.nan


def _beyond_noise(
    context: Context, losses: np.ndarray, now: float, best: float, errors: str
) -> bool:
    """Tell whether a rise is more than the noise of batches lets medians differ by.

    The best of thousands of windows is a lucky one: of a few samples a batch, by a good deal. A loss
    far over its start needs no proof.
    """
    numbers, facts = context.thresholds, context.facts
    if now > left_of(facts, numbers["blown_up"]):
        return True
    kept = context.memory.get("spread")
    spread = max(float(kept) if isinstance(kept, (int, float)) else 0.0, spread_of(losses))
    return now - best > numbers[errors] * error_of(spread, len(losses))


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the loss climbs or never fell, and the steps are too long."""
    context = of_moved(context)
    numbers, facts = context.thresholds, context.facts
    losses = window.samples("train", "loss", count=numbers.window, span=numbers.span)
    finite = losses.finite
    if len(finite) < len(losses):
        broken = _broken_off(window, context, finite.values)
        if broken.kind == "breach" or len(finite) < FEW:
            return broken
    if len(finite) < FEW:
        return unknown("too few losses since the windows began")
    if len(finite) < numbers.min_samples:
        return _early(window, context, finite.values)
    now, start, best = median_of(finite.values), facts.loss_start, facts.loss_best
    if not (math.isfinite(start) and math.isfinite(best)):
        return unknown("the first losses were not finite")
    scale = facts.loss_scale
    rise = (now - best) / scale if scale else 0.0
    ratio = now / best if best > 0 else 1 + rise
    climbed = ratio > numbers.fire and rise > numbers["rise_of_start"]
    worse = _beyond_noise(context, finite.values, now, best, "errors")
    climbed = climbed and worse
    if one_layer(context) and not climbed and now < left_of(facts, numbers["torn_loss"]):
        return fine(0.5)  # its steps may be long, as its first weights mean nothing: the loss tells
    never_fell = _never_fell(context, now, best)
    # without any gradient it falls by chance alone
    if never_fell and _falls(finite.values, numbers["falling"]):
        never_fell = cut_off(window) is not None
    first = first_too_long(context)
    back = first is not None and now > left_of(facts, numbers["back"])
    back = back and _beyond_noise(context, finite.values, now, best, "seen")
    never_fell = never_fell or back
    tore = torn(window, context, now)
    if tore is not None and not climbed:
        return breach(1.0, torn_case(window, context, tore))
    forgotten = None if climbed or never_fell else forgets(window, context)
    if forgotten is not None:
        return breach(1.0, forgotten_case(window, context, now, forgotten))
    if not (climbed or never_fell):
        return fine(ratio / numbers.fire if rise > numbers["rise_of_start"] else 0.0)
    strength = max(ratio / numbers.fire, 1.0)
    latest = median_of(finite.values[-LATEST:])
    # what a stretch of bad batches threw up comes down for longer than they lasted
    slowly = median_of(finite.values[:LATEST]) if context.standing("loss_spike") else -math.inf
    recovering = latest < numbers["recovering"] * now or latest < numbers["coming_back"] * slowly
    # what a raised rate threw up may come down for hundreds of steps, and what was learned is gone
    lost = best + numbers["undone"] * (start - best) if start > best else math.inf
    undone = worse and latest > min(lost, left_of(facts, numbers["blown_up"]))
    recovering = recovering and not (
        undone and raised(window, context, current_rate(window, context))
    )
    length = too_long(window, context, from_start=never_fell and not climbed, worse=worse)
    thrown_back = (
        first is None
        and thrown_by_batches(context, never_fell=never_fell)
        and not raised(window, context, current_rate(window, context))
    )
    if length is None and climbed and is_log(context):
        length = []  # nothing tells how long steps are, so that the loss tells alone
    if length is None or recovering or thrown_back:
        return fine(strength)  # keeps a finding that stands, and makes none
    early = True
    came_back = back and now - best > numbers["above"] * scale
    if never_fell and not (climbed or came_back or now > left_of(facts, numbers["blown_up"])):
        proof = proof_of(window, context, finite.values, _guess(context), length)
        if proof is None:
            forgotten = forgets(window, context)
            if forgotten is not None:
                return breach(1.0, forgotten_case(window, context, now, forgotten))
            return fine(0.5)
        length, early = [*proof.because, *length], proof.early
    return breach(strength, climbed_case(window, context, now, never_fell, length, early))


def _never_fell(context: Context, now: float, best: float) -> bool:
    """Tell whether no window was better than the start, or than guessing where that is known."""
    numbers, guess = context.thresholds, _guess(context)
    chance = numbers["chance"] * guess if guess > 0 else math.inf
    return min(now, best) > min(left_of(context.facts, numbers["never_fell"]), chance)


def _falls(losses: np.ndarray, share: float) -> bool:
    half = len(losses) // 2
    return bool(median_of(losses[half:]) < share * median_of(losses[:half]))


def _early(window: Window, context: Context, losses: np.ndarray) -> Verdict:
    """Judge before the first whole window: only a loss that blows up at once can be told."""
    now, start = median_of(losses[-FEW:]), context.facts.loss_start
    length = too_long(window, context, from_start=True, worse=True)
    if start > 0 and now > context.thresholds["blown_up"] * start and length is not None:
        return breach(now / start, blown_up_case(window, context, now, length))
    return fine()


def _broken_off(window: Window, context: Context, losses: np.ndarray) -> Verdict:
    """Judge where losses are no longer finite: a rate far too high breaks off at once."""
    facts = context.facts
    fell = facts.loss_best < left_of(facts, context.thresholds["never_fell"])
    wild = first_step(context) > context.thresholds["wild"] * sound_step(context)
    wild = wild and not (fell and thrown_by_batches(context, never_fell=False))
    if fell and not (wild or raised(window, context, current_rate(window, context))):
        return unknown("the losses are no longer finite")
    length = too_long(window, context, from_start=not fell, worse=True)
    if wild and length is None:  # it learned for a while in spite of them
        limit = context.thresholds["wild"] * sound_step(context)
        length = [first_evidence(context, first_step(context), limit)]
    if length is None:
        return unknown("the losses are no longer finite")
    last = float(losses[-1]) if len(losses) else math.inf
    return breach(2.0, blown_up_case(window, context, last, length), certain=True)
