"""Advice: the settings that several rules propose, with their formula, range and snippet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..store import Recommendation
from ..store.schemas import Json
from .rule import UNCORRECTED, Context
from .snippets import optimizer_snippet, optimizer_with, resume_snippet
from .unlogged import factor_of_rate
from .windows import Window
from .words import number, percent, rounded

SHORT_OF_HIGHEST = 0.5
"""Share of the highest rate of plain steps that one is raised to which nothing is known of: at the highest one of
two nets diverged, at half of it both got further than their twins."""


def current_rate(window: Window, context: Context) -> float:
    """Return the learning rate of the last step, as recorded, else as the optimizer was set up."""
    recorded = window.samples("train", "lr").finite
    if len(recorded):
        # float32 in the frame: 0.1 comes back as 0.10000000149
        return float(f"{recorded.values[-1]:.6g}")
    told = context.optimizer.get("lr")
    return float(told) if isinstance(told, (int, float)) else math.nan


@dataclass(frozen=True, slots=True)
class Rate:
    """A learning rate to set: its range, where it comes from, and the formula in words."""

    value: float
    range: list[float] | None
    basis: str
    formula: str


def stable_rate(window: Window, context: Context, rate: float) -> Rate:
    """Return the rate that the loss can take, from the best that is known.

    In this order: the rate before it was raised; by curvature, min(lr/2, share·lr/edge_ratio), with
    the same formula at the smallest and largest curvature over the pool of batches as its range;
    the rate at which the attempt's first step is as long as that of runs that train; else `thumb`
    of the rate. Curvature of a net that was damaged by then is left out, and so is a value that
    the first step contradicts.
    """
    if raised(window, context, rate):
        before = context.facts.lr_at_best
        return Rate(
            rounded(before),
            None,
            "from your run",
            f"the rate at which the loss was lowest, {number(before)}",
        )
    first = _by_first_step(context, rate)
    curved = _by_curvature(context, rate)
    if curved is not None and (first is None or _agree(curved.value, first.value, context)):
        return curved
    return first or _by_thumb(context, rate)


def best_basis(window: Window, context: Context) -> str:
    """Return the best basis that `lower_rate` may have, without the words of its advice."""
    if context.facts.edge_peak > 1:
        return "derived"
    is_raised = raised(window, context, current_rate(window, context))
    return "from your run" if is_raised else "rule of thumb"


def raised(window: Window, context: Context, rate: float) -> bool:
    """Tell whether the learning rate was raised at once, far over any at which the loss fell."""
    facts = context.facts
    return (
        window.since > context.start
        and facts.lr_at_best > 0
        and rate > context.rates["raised"] * facts.lr_at_best
    )


def first_step(context: Context) -> float:
    """Return how far the first step's rate moves the weights in the long run, NaN if unknown.

    With momentum m a step grows to 1/(1 - m) of the first one; Nesterov's first is 1 + m of it.
    """
    size = context.facts.update_first / UNCORRECTED.get(context.optimizer_name.lower(), 1.0)
    momentum = context.optimizer.get("momentum")
    if isinstance(momentum, (int, float)) and 0 < momentum < 1:
        size /= 1 - momentum
        if context.optimizer.get("nesterov"):
            size /= 1 + momentum
    return size


def sound_step(context: Context) -> float:
    """Return the size of a first step in runs that train, as a share of the weights."""
    return context.rates["adaptive_update" if context.adaptive else "proposed_update"]


def aimed_step(context: Context) -> float:
    """Return the first step that a rate is lowered to: the longest that did no harm to any net.

    The sound one is the middle of what trains. Where steps were far too long, the middle is often too slow
    for the run that is left.
    """
    rates = context.rates
    times = rates["longest_adaptive"] if context.adaptive else rates["longest_sound"]
    return sound_step(context) * times


def _by_first_step(context: Context, rate: float) -> Rate | None:
    size, at = first_step(context), context.facts.update_first_lr
    aim = aimed_step(context)
    if one_layer(context) or not (size > 0 and at > 0):
        return None
    if at * aim / size >= rate * context.rates["thumb"]:
        return None
    value = max(at * aim / size, rate * context.rates["lowest"])
    formula = (
        f"{number(at)} × {number(aim)} / {number(size)}: the first step at {number(at)} moves the "
        f"weights by {percent(size)}, in runs that train by about {percent(sound_step(context))}, and "
        f"{percent(aim)} did no harm"
    )
    return Rate(rounded(value), None, "rule of thumb", formula)


def _by_curvature(context: Context, rate: float) -> Rate | None:
    facts = context.facts
    if not facts.edge_peak > 1:
        return None
    at = facts.edge_lr if math.isfinite(facts.edge_lr) else rate
    share = _share_of_edge(context)
    stable = share * at / facts.edge_peak
    value = min(rate / 2, stable)
    if value < rate * context.rates["lowest"]:
        return None
    single = (
        len(context.meta.optimizers) <= 1
    )  # else the eigenvalue is that of all their parameters
    plain = context.optimizer_name.lower() == "sgd" and not context.optimizer.get("momentum")
    formula = (
        f"1.8 / largest eigenvalue = 1.8 / {number(facts.edge_lambda)}"
        if plain and single and value < rate / 2
        else f"smaller of half the rate and {number(share)} × {number(at)} / {number(facts.edge_peak)} "
        "(largest eigenvalue over the edge of stability)"
    )
    return Rate(rounded(value), _spread(rate, stable, context), "derived", formula)


def _share_of_edge(context: Context) -> float:
    """Return how much of the edge a run can take: docs/trust.md measures where the loss rises."""
    if context.adaptive:
        return context.rates["edge_adaptive"]
    return context.rates["edge_momentum" if context.optimizer.get("momentum") else "edge_plain"]


def _agree(derived: float, thumb: float, context: Context) -> bool:
    """Tell whether two ways to a rate come to the same, roughly."""
    most = context.rates["contradicts"]
    return thumb / most <= derived <= thumb * most


def _by_thumb(context: Context, rate: float) -> Rate:
    factor, peak, aim = context.rates["thumb"], context.facts.update_sound, sound_step(context)
    if not (peak > 0 and aim / peak < factor):
        return Rate(
            rounded(rate * factor), None, "rule of thumb", f"{number(rate)} × {number(factor)}"
        )
    factor = max(aim / peak, context.rates["thumb_least"])
    formula = (
        f"{number(rate)} × {number(factor)}: the largest step was {number(100 * peak)} % of the "
        f"weights, {number(100 * aim)} % is sound"
    )
    return Rate(rounded(rate * factor), None, "rule of thumb", formula)


def _spread(rate: float, by_curvature: float, context: Context) -> list[float] | None:
    top, spread = context.facts.edge_lambda, context.facts.edge_spread
    if not (top > 0 and spread >= 0):
        return None
    steep, flat = (top + spread / 2) / top, max(1 - spread / (2 * top), 0.1)
    low, high = min(rate / 2, by_curvature / steep), min(rate / 2, by_curvature / flat)
    return [rounded(low), rounded(high)]


def _risk(context: Context, basis: str) -> str:
    """Return what may be wrong about a new rate; docs/trust.md measures how far the edge goes."""
    risk = "training is slower per step where the rate was right after all"
    if basis != "derived" or not (context.adaptive or context.optimizer.get("momentum")):
        return risk
    what = "Adam" if context.adaptive else "momentum"
    share = percent(_share_of_edge(context))
    return f"{risk}; with {what} {share} of the edge is what nets survive on average, some less"


def good_checkpoint(context: Context, before: int) -> dict[str, Json] | None:
    """Return the last checkpoint with finite weights that was written before a step."""
    for entry in reversed(context.facts.checkpoints):
        if entry["step"] < before and entry["finite"] is not False and entry["path"]:
            return entry
    return None


def none_left(context: Context) -> str:
    """Return what to say where no checkpoint is left to go back to; empty where none was lost."""
    if not context.facts.deleted:
        return ""
    return " (checkpoints from before were deleted or written over; save_top_k=-1 keeps all)"


def lower_rate(window: Window, context: Context, *, rollback_before: int | None) -> Recommendation:
    """Return the advice to lower the learning rate, behind a rollback where one is needed.

    `rollback_before`: the step at which the damage began, None where the weights are sound.
    """
    rate = current_rate(window, context)
    if not math.isfinite(rate):
        return factor_of_rate(context)
    new = stable_rate(window, context, rate)
    verify = "the loss falls below its first value within 200 steps; if not, halve once more"
    checkpoint = None if rollback_before is None else good_checkpoint(context, rollback_before)
    advice = rate_to(
        context,
        rate,
        new.value,
        range=new.range,
        basis=new.basis,
        formula=new.formula,
        effect=f"steps {number(_times(rate, new.value))} times smaller stay where the local model holds",
        verify=verify,
        risk=_risk(context, new.basis),
    )
    if rollback_before is not None and checkpoint is None:
        advice.effect += "; start again from the first step, since these weights are spoiled"
        advice.effect += none_left(context)
    if checkpoint is not None:
        advice.parameter, advice.current = "rollback", None
        advice.proposed = {
            "step": checkpoint["step"],
            "path": checkpoint["path"],
            "then": {"lr": new.value},
        }
        advice.snippet = resume_snippet(context, checkpoint["path"], {"lr": new.value})
        advice.risk = f"the steps behind {checkpoint['step']:,} are lost; {advice.risk}"
    return advice


def rate_times(
    window: Window, context: Context, factor: float, *, reason: str = "", **words: Any
) -> Recommendation:
    """Return the advice to multiply the learning rate by a factor of thumb.

    `words`: effect, verify, risk and alternatives of the recommendation.
    """
    rate = current_rate(window, context)
    formula = f"{number(rate)} × {number(factor)}{reason}"
    return rate_to(context, rate, rounded(rate * factor), formula=formula, **words)


def rate_to(context: Context, rate: float, value: float, **words: Any) -> Recommendation:
    """Return the advice to set another learning rate than the one at hand.

    `words`: all of the recommendation that says why; its basis is a rule of thumb where none is told.
    """
    return Recommendation(
        parameter="lr",
        current=rate,
        proposed=value,
        snippet=optimizer_snippet(context, value),
        **words,
    )


def _times(rate: float, new: float) -> float:
    return rate / new if new > 0 else math.nan


def higher_rate(window: Window, context: Context) -> Recommendation:
    """Return the advice to raise the learning rate: until a first step is as long as where runs train.

    As long as that which a rate that is too high is lowered to: many nets want steps of several percent, and
    shorter ones are still under way as the run ends. By curvature at most half of
    what is stable; where neither was measured, by `raise_most`, and judged again.
    """
    rate, rates, edge = current_rate(window, context), context.rates, context.facts.edge_peak
    size, at = first_step(context), context.facts.update_first_lr
    factor, reason = rates["raise_most"], "the most while the first step was not measured"
    if size > 0 and at > 0:
        aim = aimed_step(context)
        factor = max(at * aim / size / rate, 1.0)
        reason = f"the first step would move the weights by {percent(aim)}"
    # with next to no gradient no rate is long enough: far over what anybody trains with it is not
    # the rate that is at fault
    highest = highest_rate(context) * (1.0 if context.adaptive else SHORT_OF_HIGHEST) / rate
    if factor > highest:
        factor = highest if highest > 1 else min(factor, rates["raise_most"])
        reason = "about the most that runs train with" if highest > 1 else "the most at once"
    derived = edge > 0 and 0.5 / edge < factor
    if derived:
        factor, reason = max(0.5 / edge, 1.0), "half of what the curvature allows"
    return rate_to(
        context,
        rate,
        rounded(rate * factor),
        basis="derived" if derived else "rule of thumb",
        formula=f"{number(rate)} × {number(factor)}: {reason}",
        effect=f"steps {number(factor)} times longer",
        verify="the loss falls by more than 2 % in 200 steps; else it is judged again",
        risk="too long a step shows within 100 steps as a rising loss",
    )


def former_rate(window: Window, context: Context, lowered: int) -> Recommendation:
    """Return the advice to go back to the largest rate of the attempt; it was `lowered` at that step."""
    name = window.history.written("train", "lr")
    # the first one, too, which a schedule that moves at each step leaves before windows begin
    rates = window.history.column("train", name, context.start, window.step).finite.values
    rate = current_rate(window, context)
    before = rounded(float(max(context.facts.lr_peak, *rates)))
    advice = rate_to(
        context,
        rate,
        before,
        basis="from your run",
        formula=f"the highest rate before step {lowered:,}, at which the loss still fell",
        effect=f"steps {number(_times(before, rate))} times longer" if rate > 0 else "steps again",
        verify="milestones of a schedule are counted in what it is stepped by: steps, or epochs",
        risk="a schedule that shall end here was meant so: then the run may end, too",
    )
    advice.snippet += f"\n# and a schedule that lasts as long as the run: this one was through at step {lowered:,}"
    return advice


def highest_rate(context: Context) -> float:
    """Return the largest rate that any is raised to: far over it the rate is not at fault."""
    return context.rates["adaptive_highest" if context.adaptive else "highest"]


def one_layer(context: Context) -> bool:
    """Tell whether a model has a single layer of weights: how large these begin means nothing.

    A linear model learns from weights near zero as well as from others, by steps of any share of them.
    """
    return context.weight_layers == 1


def timid(context: Context) -> bool:
    """Tell whether the first step was far shorter than in runs that train: lowering cannot help."""
    return first_step(context) < context.rates["timid"] * sound_step(context)


def betas_of(context: Context) -> list[float]:
    """Return what Adam's running means keep a step, as told, else torch's defaults."""
    told = context.optimizer.get("betas")
    if isinstance(told, (list, tuple)) and len(told) == 2:
        return [float(beta) for beta in told]
    return [0.9, 0.999]


def remembers_long(context: Context, second: float) -> bool:
    """Tell whether the optimizer's second moment keeps more of a step than a beta of `second` does."""
    return bool(context.optimizer.get("betas")) and betas_of(context)[1] > second


def shorter_memory(window: Window, context: Context, second: float) -> Recommendation | None:
    """Return the advice to let the second moment follow sooner, None where it does or there is none."""
    if not remembers_long(context, second):
        return None
    first, now = betas_of(context)
    return Recommendation(
        parameter="betas",
        current=[first, now],
        proposed=[first, second],
        basis="rule of thumb",
        formula=f"a memory of 1 / (1 − {number(second)}) = {number(1 / (1 - second))} steps in "
        f"place of {number(1 / (1 - now))}",
        snippet=optimizer_with(context, current_rate(window, context), betas=[first, second]),
        effect="the divisor follows gradients that grow within some 20 steps",
        verify="the ratio stays under 2.5 in the samples behind the next jump of the gradient",
        risk="a shorter memory is noisier: where gradients are sparse, training may be slower",
    )
