"""Unlogged: what is advised where a log of others tells neither the rate nor how long steps are."""

from __future__ import annotations

from ..store import Recommendation
from .rule import Context
from .words import number


def is_log(context: Context) -> bool:
    """Tell whether the run is a log of others, which holds losses and at best rates and gradient norms."""
    return context.meta.config.get("loop") == "log"


def factor_of_rate(context: Context) -> Recommendation:
    """Return the advice to multiply a learning rate that nobody told by the factor of thumb."""
    factor = context.rates["thumb"]
    return Recommendation(
        parameter="lr",
        current=None,
        proposed=f"× {number(factor)}",
        basis="rule of thumb",
        formula="what the learning rate was is not recorded; nor how long steps are",
        snippet="for group in optimizer.param_groups:\n"
        f'    group["lr"] *= {number(factor)}  # a schedule sets it anew: there its base rate',
        effect=f"steps {number(1 / factor)} times smaller",
        verify="the loss falls below its first value within 200 steps; if not, halve once more",
        risk="a run with the callback tells how far a step goes, and which rate is stable",
    )
