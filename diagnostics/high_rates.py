"""High rates: what is said of a learning rate that is too high, and what is proposed in its place.

The numbers are those of lr_too_high.
"""

from __future__ import annotations

import math

from ..store import Evidence
from ..store.schemas import Severity
from .advice import best_basis, current_rate, lower_rate, stable_rate
from .facts import mostly_dead
from .forgetting import left_of
from .rule import Case, Context, Later
from .unlogged import is_log
from .windows import Window
from .words import number


def torn_case(window: Window, context: Context, torn: Evidence) -> Later:
    """Return the case of a first step that left nothing of the initialization."""
    facts = context.facts
    text = f"loss {number(facts.loss_start)} → {number(facts.loss_peak)} at step {facts.loss_peak_step:,}"
    limit = left_of(facts, context.thresholds["torn_rise"])
    seen = Evidence(text, "train", "loss", facts.loss_peak_step, facts.loss_peak, limit)
    return _words(window, context, (torn, seen), context.start + 1, severity=None)


def forgotten_case(window: Window, context: Context, now: float, forgotten: Evidence) -> Later:
    """Return the case of steps that undo each other."""
    facts = context.facts
    text = (
        f"loss {number(facts.loss_start)} at the start, {number(now)} now, and it falls no further"
    )
    limit = left_of(facts, context.thresholds["forgets_floor"])
    seen = Evidence(text, "train", "loss", window.step, now, limit)
    return _words(window, context, (forgotten, seen), None, severity=None)


def blown_up_case(window: Window, context: Context, now: float, length: list[Evidence]) -> Later:
    """Return the case of a loss that blew up; `length`: what tells that steps are too long."""
    facts = context.facts
    changed = window.since > context.start and math.isfinite(facts.loss_best)
    before = facts.loss_best if changed else facts.loss_start
    text = f"loss {number(before)} → {number(now)} within {window.step - window.since} steps"
    limit = context.thresholds["blown_up"] * facts.loss_start
    seen = Evidence(text, "train", "loss", window.step, now, limit)
    return _words(window, context, (seen, *length), window.since + 1, severity="critical")


def climbed_case(
    window: Window,
    context: Context,
    now: float,
    never_fell: bool,
    length: list[Evidence],
    early: bool,
) -> Later:
    """Return the case of a loss that climbed, or never fell; `early`: the loss itself tells, or the net."""
    facts, numbers = context.facts, context.thresholds
    start, best = facts.loss_start, facts.loss_best
    if never_fell:
        fell = min(now, best) < left_of(facts, numbers["never_fell"])
        how = f"it fell to {number(best)} and came back" if fell else "it never fell"
        text = f"loss {number(start)} at the start, {number(now)} now: {how}"
        damaged, limit = context.start, left_of(facts, numbers["never_fell"])
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
    severity = severity or ("critical" if blew_up(context) else None)
    onset = rollback_before if onset is None else onset

    def made() -> Case:
        rate = current_rate(window, context)
        new = stable_rate(window, context, rate)
        title = "The learning rate is too high"
        if is_log(context) and len(because) == 1:
            title = "The loss climbs, as where the learning rate is too high"
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


def blew_up(context: Context) -> bool:
    """Tell whether some loss stood as far over the first one as one that blows up at once."""
    facts = context.facts
    return (
        facts.loss_start > 0 and facts.loss_peak > context.thresholds["blown_up"] * facts.loss_start
    )
