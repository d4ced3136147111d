"""Clip values: the norm to clip gradients at, by those of usual steps before something threw them up."""

from __future__ import annotations

import numpy as np

from ..store import Recommendation
from .medians import median_of
from .rule import Context
from .snippets import clip_snippet
from .words import count, number, percent, rounded

LAST = 3
"""Norms, of few, that tell what is usual: those of the first steps are of another net."""


def clip_by_norms(norms: np.ndarray, context: Context, onset: int) -> Recommendation:
    """Return the advice to clip at a quantile of the norms of usual steps before the onset."""
    quantile = context.thresholds["clip_quantile"]
    value = float(np.quantile(norms, quantile))
    low, high = (float(q) for q in np.quantile(norms, [0.75, 0.95]))
    return Recommendation(
        parameter="gradient_clip_val",
        current=context.meta.gradient_clip_val,
        proposed=rounded(value),
        range=[rounded(low), rounded(high)],
        basis="from your run",
        formula=f"the norm that {percent(quantile)} of the {len(norms)} steps before the onset "
        "stayed under",
        snippet=clip_snippet(context, rounded(value)),
        effect="steps of a usual size stay as they are, the bursts are cut to that size",
        verify=f"the loss is back under its value of step {onset:,} within 200 steps",
        risk="where the norm grows because the model learns, training slows down",
    )


def clip_by_few(norms: np.ndarray, context: Context, onset: int) -> Recommendation:
    """Return the advice to clip at a few times the median of the last norms before the onset.

    Where the run had stood until then at many times the largest of them: norms grow as it begins to learn.
    """
    facts, numbers = context.facts, context.thresholds
    stood = facts.loss_best > facts.loss_start - numbers["stood"] * facts.loss_scale
    last = norms[-LAST:]
    usual = float(last.max()) if stood else median_of(last)
    times, which = (
        (numbers["stood_times"], "largest") if stood else (numbers["few_times"], "median")
    )
    value = rounded(times * usual)
    return Recommendation(
        parameter="gradient_clip_val",
        current=context.meta.gradient_clip_val,
        proposed=value,
        basis="rule of thumb",
        formula=f"{number(times)} × {number(usual)}, the {which} of the last "
        f"{count(len(last), 'norm')} that were measured before the onset",
        snippet=clip_snippet(context, value),
        effect="the bursts are cut to about the size of a usual step",
        verify=f"the loss is back under its value of step {onset:,} within 200 steps",
        risk="so few norms tell little of what is usual: too low a value slows training down",
    )
