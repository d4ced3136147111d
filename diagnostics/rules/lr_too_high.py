"""The learning rate is too high: steps overshoot and the loss climbs, or never falls.

What: the median of 50 losses stands 1.3 times over the best such window in three evaluations, or
no window ever fell below the first loss; and a step is too long by its own measure: the largest
eigenvalue stands over the optimizer's edge of stability, a step moves the weights by more than
2 %, the first step is longer than that of most runs that train, or the rate was raised far over
one at which the loss was better. A loss that merely stands at its start is not climbing: sound runs
do so for a hundred steps and learn then, with first steps as long. There more must tell: the
loss stands over its start, or was thrown up from it, by more than its noise; a step leaves nothing of
the initialization; half of the units are dead, or no gradient comes back to half of the layers any
more. Else 200 steps without a fall that its noise would let one see, 400 where steps are hardly too
long, and a warning only. Besides: steps of Adam so long that the weights of some hundred steps ago are
gone, while the loss stands far above its floor; a step of the first ones that leaves nothing of the
initialization, after which the loss goes up (with Adam and its kin the first step is that of the layers
that have a gradient by then; later ones of RMSprop are shorter, which is no excuse for a loss that was
thrown up a hundredfold). Sharpness alone never fires: healthy runs hover at the edge while their loss
falls.
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

from ...store import Evidence
from ...store.schemas import Json, Severity
from ..advice import (
    best_basis,
    current_rate,
    first_step,
    lower_rate,
    one_layer,
    raised,
    sound_step,
    stable_rate,
)
from ..facts import BLOCK, Facts, mostly_dead, update_ratios
from ..forgetting import first_of_moved, forgets, of_moved, torn
from ..medians import median_of
from ..rule import Case, Context, Later, Verdict, breach, fine, unknown
from ..standing import (
    cut_off,
    error_of,
    proof_of,
    single_batches,
    spread_of,
    thrown_by_batches,
)
from ..windows import Window
from ..words import number, percent

FAMILY = "train"
FROM_START = True
FEW = 5
LATEST = 15


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep how far the losses of the best window lay apart, the loss of guessing, and the first bursts.

    By so much any window differs from the best one. Besides the first step of the layers that it moved,
    where most of them had no gradient.
    """
    kept = context.memory
    if "guess" not in kept:
        guess = window.samples("initialization", "expected_loss").finite.values
        if len(guess):
            kept = {**kept, "guess": float(guess[0])}
    kept = {**kept, **single_batches(window, context)}
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
    if now > _fallen(facts, numbers["blown_up"]):
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
    if one_layer(context) and not climbed and now < _fallen(facts, numbers["torn_loss"]):
        return fine(0.5)  # its steps may be long, as its first weights mean nothing: the loss tells
    never_fell = _never_fell(context, now, best)
    # without any gradient it falls by chance alone
    if never_fell and _falls(finite.values, numbers["falling"]):
        never_fell = cut_off(window) is not None
    first = _first_too_long(context)
    back = first is not None and now > _fallen(facts, numbers["back"])
    back = back and _beyond_noise(context, finite.values, now, best, "seen")
    never_fell = never_fell or back
    tore = torn(window, context, now)
    if tore is not None and not climbed:
        return breach(1.0, _tore(window, context, now, tore))
    forgotten = None if climbed or never_fell else forgets(window, context)
    if forgotten is not None:
        return breach(1.0, _forgot(window, context, now, forgotten))
    if not (climbed or never_fell):
        return fine(ratio / numbers.fire if rise > numbers["rise_of_start"] else 0.0)
    strength = max(ratio / numbers.fire, 1.0)
    latest = median_of(finite.values[-LATEST:])
    # what a stretch of bad batches threw up comes down for longer than they lasted
    slowly = median_of(finite.values[:LATEST]) if context.standing("loss_spike") else -math.inf
    recovering = latest < numbers["recovering"] * now or latest < numbers["coming_back"] * slowly
    # what a raised rate threw up may come down for hundreds of steps, and what was learned is gone
    lost = best + numbers["undone"] * (start - best) if start > best else math.inf
    undone = worse and latest > min(lost, _fallen(facts, numbers["blown_up"]))
    recovering = recovering and not (
        undone and raised(window, context, current_rate(window, context))
    )
    length = _too_long(window, context, from_start=never_fell and not climbed, worse=worse)
    thrown_back = (
        first is None
        and thrown_by_batches(context, never_fell=never_fell)
        and not raised(window, context, current_rate(window, context))
    )
    if length is None or recovering or thrown_back:
        return fine(strength)  # keeps a finding that stands, and makes none
    early = True
    came_back = back and now - best > numbers["above"] * scale
    if never_fell and not (climbed or came_back or now > _fallen(facts, numbers["blown_up"])):
        proof = proof_of(window, context, finite.values, _guess(context), length)
        if proof is None:
            forgotten = forgets(window, context)
            if forgotten is not None:
                return breach(1.0, _forgot(window, context, now, forgotten))
            return fine(0.5)
        length, early = [*proof.because, *length], proof.early
    return breach(strength, _case(window, context, now, never_fell, length, early))


def _never_fell(context: Context, now: float, best: float) -> bool:
    """Tell whether no window was better than the start, or than guessing where that is known."""
    numbers, guess = context.thresholds, _guess(context)
    chance = numbers["chance"] * guess if guess > 0 else math.inf
    return min(now, best) > min(_fallen(context.facts, numbers["never_fell"]), chance)


def _fallen(facts: Facts, share: float) -> float:
    """Return the loss at which it has fallen to a share of its start; under zero by as much."""
    return facts.loss_start - (1 - share) * abs(facts.loss_start)


def _first_too_long(context: Context) -> Evidence | None:
    """Return a first step too long for any run that trains; None where this one did train."""
    facts = context.facts
    if facts.loss_best < _fallen(facts, context.thresholds["trained"]):
        return None
    size = first_step(context)
    limit = context.thresholds["adaptive_first" if context.adaptive else "update_first"]
    return _first_evidence(context, size, limit) if size > limit else None


def _first_evidence(context: Context, size: float, limit: float) -> Evidence:
    moved = "the first step moved the weights by"
    if context.optimizer.get("momentum"):
        moved = "the first step, grown by momentum, moves the weights by"
    text = f"{moved} {percent(size)}; in runs that train it is about {percent(sound_step(context))}"
    return Evidence(text, "gradients", "update_ratio", context.facts.first_step, size, limit)


def _falls(losses: np.ndarray, share: float) -> bool:
    half = len(losses) // 2
    return bool(median_of(losses[half:]) < share * median_of(losses[:half]))


def _early(window: Window, context: Context, losses: np.ndarray) -> Verdict:
    """Judge before the first whole window: only a loss that blows up at once can be told."""
    now, start = median_of(losses[-FEW:]), context.facts.loss_start
    length = _too_long(window, context, from_start=True, worse=True)
    if start > 0 and now > context.thresholds["blown_up"] * start and length is not None:
        return breach(now / start, _blown_up(window, context, now, length))
    return fine()


def _broken_off(window: Window, context: Context, losses: np.ndarray) -> Verdict:
    """Judge where losses are no longer finite: a rate far too high breaks off at once."""
    facts = context.facts
    fell = facts.loss_best < _fallen(facts, context.thresholds["never_fell"])
    wild = first_step(context) > context.thresholds["wild"] * sound_step(context)
    wild = wild and not (fell and thrown_by_batches(context, never_fell=False))
    if fell and not (wild or raised(window, context, current_rate(window, context))):
        return unknown("the losses are no longer finite")
    length = _too_long(window, context, from_start=not fell, worse=True)
    if wild and length is None:  # it learned for a while in spite of them
        limit = context.thresholds["wild"] * sound_step(context)
        length = [_first_evidence(context, first_step(context), limit)]
    if length is None:
        return unknown("the losses are no longer finite")
    last = float(losses[-1]) if len(losses) else math.inf
    return breach(2.0, _blown_up(window, context, last, length), certain=True)


def _too_long(
    window: Window, context: Context, *, from_start: bool, worse: bool
) -> list[Evidence] | None:
    """Return the evidence that steps are too long, None where there is none.

    `worse`: the loss stands over its best by more than its noise; else no rate was the better one.
    """
    numbers, facts = context.thresholds, context.facts
    seen: list[Evidence] = []
    edges = window.samples("curvature", "edge_ratio").finite
    edge = median_of(edges.values[-3:]) if len(edges) else math.nan
    if facts.edge_peak > numbers["edge"] and (edge > numbers["edge"] or from_start):
        text = (
            f"largest eigenvalue {number(facts.edge_lambda)}: {number(facts.edge_peak)} times what "
            f"{context.optimizer_name} can take at this learning rate"
        )
        seen.append(
            Evidence(
                text, "curvature", "edge_ratio", facts.edge_step, facts.edge_peak, numbers["edge"]
            )
        )
    rate = current_rate(window, context)
    if worse and raised(window, context, rate):
        text = (
            f"learning rate {number(rate)} since step {window.since + 1:,}; the loss was lowest "
            f"at {number(facts.lr_at_best)}"
        )
        limit = numbers["raised"] * facts.lr_at_best
        seen.append(Evidence(text, "train", "lr", window.step, rate, limit))
    first = _first_too_long(context)
    far = first is not None and (first.value or 0) > numbers["surely"] * (first.threshold or 1)
    if first is not None and (from_start or (worse and far)):
        seen.append(first)
    steps, ratios = update_ratios(window.history, window.since, window.step)
    behind = steps > (window.step - numbers.span)
    limit = numbers["update_peak"] if from_start else numbers["update_ratio"]
    if from_start:
        peak, at = facts.update_peak, facts.update_peak_step
    elif behind.sum() > 1:
        # the second largest: a single exploding batch is no learning rate
        top = int(np.argsort(np.where(behind, ratios, -1))[-2])
        peak, at = float(ratios[top]), int(steps[top])
    else:
        peak, at = math.nan, 0
    if peak > limit:
        text = f"steps of {percent(peak)} of the weights (step {at:,}); over {percent(limit)} is too long"
        seen.append(Evidence(text, "gradients", "update_ratio", at, peak, limit))
    return seen or None


def _tore(window: Window, context: Context, now: float, torn: Evidence) -> Later:
    facts = context.facts
    text = f"loss {number(facts.loss_start)} → {number(facts.loss_peak)} at step {facts.loss_peak_step:,}"
    limit = _fallen(facts, context.thresholds["torn_rise"])
    seen = Evidence(text, "train", "loss", facts.loss_peak_step, facts.loss_peak, limit)
    return _words(window, context, (torn, seen), context.start + 1, severity=None)


def _forgot(window: Window, context: Context, now: float, forgotten: Evidence) -> Later:
    facts = context.facts
    text = (
        f"loss {number(facts.loss_start)} at the start, {number(now)} now, and it falls no further"
    )
    limit = _fallen(facts, context.thresholds["forgets_floor"])
    seen = Evidence(text, "train", "loss", window.step, now, limit)
    return _words(window, context, (forgotten, seen), None, severity=None)


def _blown_up(window: Window, context: Context, now: float, length: list[Evidence]) -> Later:
    facts = context.facts
    changed = window.since > context.start and math.isfinite(facts.loss_best)
    before = facts.loss_best if changed else facts.loss_start
    text = f"loss {number(before)} → {number(now)} within {window.step - window.since} steps"
    limit = context.thresholds["blown_up"] * facts.loss_start
    seen = Evidence(text, "train", "loss", window.step, now, limit)
    return _words(window, context, (seen, *length), window.since + 1, severity="critical")


def _case(
    window: Window,
    context: Context,
    now: float,
    never_fell: bool,
    length: list[Evidence],
    early: bool,
) -> Later:
    facts, numbers = context.facts, context.thresholds
    start, best = facts.loss_start, facts.loss_best
    if never_fell:
        fell = min(now, best) < _fallen(facts, numbers["never_fell"])
        how = f"it fell to {number(best)} and came back" if fell else "it never fell"
        text = f"loss {number(start)} at the start, {number(now)} now: {how}"
        damaged, limit = context.start, _fallen(facts, numbers["never_fell"])
    else:
        text = (
            f"loss {number(best)} (best, step {facts.loss_best_step:,}) → {number(now)} "
            f"(median of {numbers.window})"
        )
        damaged = facts.loss_best_step
        limit = max(
            best + (numbers.fire - 1) * abs(best),
            best + numbers["rise_of_start"] * facts.loss_scale,
        )
    spoiled = facts.lambda_last <= 0 or mostly_dead(window, window.step) or never_fell
    return _words(
        window,
        context,
        (Evidence(text, "train", "loss", window.step, now, limit), *length),
        damaged + 1 if spoiled else None,
        severity="critical" if early and (never_fell or now > start) else None,
        onset=context.start + 1 if never_fell else None,
    )


def _words(
    window: Window,
    context: Context,
    because: tuple[Evidence, ...],
    rollback_before: int | None,
    *,
    severity: Severity | None,
    onset: int | None = None,
) -> Later:
    severity = severity or ("critical" if _blew_up(context) else None)
    onset = rollback_before if onset is None else onset

    def made() -> Case:
        rate = current_rate(window, context)
        new = stable_rate(window, context, rate)
        title = "The learning rate is too high"
        if (
            new.basis == "derived"
        ):  # by curvature alone: a rule of thumb does not tell what is stable
            title = (
                f"The learning rate is too high for this curvature: {number(rate)} where "
                f"{number(new.value)} is stable"
            )
        measured = math.isfinite(context.facts.edge_peak)
        return Case(
            title=title,
            why="Along the steepest direction each step lands farther out than it began.",
            because=because,
            recommendation=lower_rate(window, context, rollback_before=rollback_before),
            may_be_normal="A short bump with a falling trend; the end of a warm-up; a restart of the "
            "schedule. Sharpness above the limit alone is no fault.",
            severity=severity,
            not_measured=() if measured else ("curvature against this optimizer's edge",),
            onset=onset,
        )

    return Later(made, best_basis(window, context), severity, onset)


def _blew_up(context: Context) -> bool:
    """Tell whether some loss stood as far over the first one as one that blows up at once."""
    facts = context.facts
    return (
        facts.loss_start > 0 and facts.loss_peak > context.thresholds["blown_up"] * facts.loss_start
    )
