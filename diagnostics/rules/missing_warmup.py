"""Adam starts at full rate: its first steps are long, and the loss leaps before it falls.

What: with Adam and its kin, without a warm-up, a step of the first 100 moves the weights by more than
5 %, or gradients stand over 4 times what the second moment expects, and the three highest losses of
these steps stand on average 1.5 times over the first one, by more than batches differ; or the very first
step moves them by 18 %, and 200 steps later the loss stands over three tenths of its start. An
opportunity, not a fault. Where the first step tells that later ones are far too long as well, no warm-up
mends that: the advice is a lower rate.
Why: in its first steps Adam's running means hold a handful of gradients: every weight moves by the
whole rate whatever its gradient says, and what the initialization was good for is lost.
Source: Vaswani et al. 2017 (warm-up), Ma and Yarats 2021 (linear over 2/(1 − β₂) steps); measured on
a small character transformer: Adam at 0.05 leaps to twice its first loss and ends at 1.86, with a
warm-up at 1.63. One that is normalized before its blocks does not leap.
"""

from __future__ import annotations

import math

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import aimed_step, current_rate, first_step, lower_rate, one_layer, sound_step
from ..facts import BLOCK
from ..forgetting import beside_usual, drawn_small
from ..medians import median_of
from ..ratios import update_ratios
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import warm_up_snippet
from ..standing import spread_of
from ..windows import Window
from ..words import count, number, percent

FAMILY = "train"
FROM_START = True
WORST = 3
WARMED = 1.1
"""A rate that rises by more than this over the first steps is warmed up."""


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep what the attempt's first steps were like: highest losses, longest step, the rates."""
    kept = dict(context.memory)
    last = context.start + int(context.thresholds["first"])
    if kept.get("closed"):
        return kept
    history = window.history
    losses = history.column("train", "loss", context.start, min(window.step, last)).finite
    if len(losses):
        worst = np.sort(losses.values)[-WORST:]
        kept["peak"] = float(worst.mean())
        kept["peak_step"] = int(losses.steps[int(np.argmax(losses.values))])
        kept["spread"] = spread_of(losses.values)
    rate = history.written("train", "lr")
    rates = history.column("train", rate, context.start, min(window.step, last)).finite
    if len(rates):
        kept["rate_first"], kept["rate_top"] = float(rates.values[0]), float(rates.values.max())
    steps, ratios = update_ratios(history, context.start, min(window.step, last))
    if len(ratios):
        top = int(np.argmax(ratios))
        kept["ratio"], kept["ratio_step"] = float(ratios[top]), int(steps[top])
    stale = history.layers("gradients", "adam_ratio", context.start, min(window.step, last))
    known = stale.values[np.isfinite(stale.values)]  # infinite where a layer had no gradient yet
    if len(known):
        kept["stale"] = float(known.max())
    if "drawn" not in kept and (drawn := drawn_small(window, context)) is not None:
        kept["drawn"] = drawn
    kept["closed"] = window.step >= last
    return kept


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the first steps were long and the loss leapt with them."""
    numbers, kept = context.thresholds, context.memory
    if not context.adaptive:
        return unknown(f"{context.optimizer_name} does not divide by a running mean")
    if context.start:
        return unknown("this attempt goes on from a checkpoint")
    if kept.get("peak") is None or kept.get("rate_first") is None:
        return unknown("the first losses were not recorded")
    if kept.get("ratio") is None and kept.get("stale") is None:
        return unknown("how long the first steps were was not measured")
    start, scale = context.facts.loss_start, context.facts.loss_scale
    if kept["rate_top"] > WARMED * kept["rate_first"] or not scale > 0:
        return fine()
    leap = 1 + (float(kept["peak"]) - start) / scale  # over the first loss, also of one under zero
    ratio, stale = float(kept.get("ratio") or 0.0), float(kept.get("stale") or 0.0)
    long = ratio > numbers["update_ratio"] or stale > numbers["stale"]
    # of batches of few samples the three highest of a hundred stand as high
    noise = numbers["spreads"] * float(kept.get("spread") or 0.0)
    if long and leap > numbers.fire and float(kept["peak"]) - start >= noise:
        return breach(leap / numbers.fire, _case(window, context, leap, ratio, stale))
    size = beside_usual(context, first_step(context))
    if size > numbers["first_step"] and not one_layer(context):
        if _is_far(window, context):
            return breach(size / numbers["first_step"], _case_of_first(window, context, size))
        return fine(0.9)  # keeps a finding that stands, and makes none
    return fine(leap / numbers.fire if long else 0.0)


def _is_far(window: Window, context: Context) -> bool:
    """Tell whether the loss stands far over its floor still: else its first steps have done no harm."""
    numbers, start = context.thresholds, context.facts.loss_start
    if window.step - context.start < numbers["after"]:
        return False
    losses = window.samples("train", "loss", count=BLOCK).finite
    return bool(median_of(losses.values) > start - (1 - numbers["far"]) * abs(start))


def _case(window: Window, context: Context, leap: float, ratio: float, stale: float) -> Case:
    numbers, kept = context.thresholds, context.memory
    because = [
        Evidence(
            f"loss {number(float(kept['peak']))} by step {int(kept['peak_step']):,}, "
            f"{number(leap)} times the first one",
            "train",
            "loss",
            int(kept["peak_step"]),
            float(kept["peak"]),
            context.facts.loss_start + (numbers.fire - 1) * context.facts.loss_scale,
        )
    ]
    if ratio > numbers["update_ratio"]:
        at = int(kept["ratio_step"])
        text = f"a step of {percent(ratio)} of the weights at step {at:,}"
        limit = numbers["update_ratio"]
        because.append(Evidence(text, "gradients", "update_ratio", at, ratio, limit))
    if stale > numbers["stale"]:
        text = f"gradients up to {number(stale)} times what the second moment expected"
        because.append(Evidence(text, "gradients", "adam_ratio", None, stale, numbers["stale"]))
    return Case(
        title=f"The first steps are too long: the loss leapt to {number(leap)} times its first value",
        why="In its first steps the optimizer's running means hold a handful of gradients: every "
        "weight moves by the whole rate, whatever its gradient says.",
        because=tuple(because),
        recommendation=_advice(window, context),
        may_be_normal="A short leap that is over within some steps costs little; fine-tuning of a "
        "few layers.",
        onset=context.start + 1,
    )


def _case_of_first(window: Window, context: Context, size: float) -> Case:
    """Return the case of a first step that was far too long, though the loss did not leap."""
    at, limit = context.facts.first_step, context.thresholds["first_step"]
    text = (
        f"the first step moved the weights by {percent(size)}; "
        f"in runs that train it is about {percent(sound_step(context))}"
    )
    return Case(
        title=f"The first steps are too long: the first one moved the weights by {percent(size)}",
        why="Every weight moves by the whole rate, whatever its gradient says: after a few such steps "
        "nothing of the initialization is left, and later ones are as long.",
        because=(Evidence(text, "gradients", "update_ratio", at, size, limit),),
        recommendation=_lower(window, context),
        may_be_normal="Weights that begin near zero on purpose.",
        onset=context.start + 1,
    )


def _lower(window: Window, context: Context) -> Recommendation:
    advice = lower_rate(window, context, rollback_before=None)
    advice.verify = "in a run from the first step on the loss of step 100 is lower than in this one"
    return advice


def _advice(window: Window, context: Context) -> Recommendation:
    """Return the advice to warm up, or to lower the rate where steps are too long behind a warm-up, too."""
    if first_step(context) > context.rates["bold"] * aimed_step(context):
        return _lower(window, context)
    told = context.optimizer.get("betas")
    second = float(told[1]) if isinstance(told, (list, tuple)) and len(told) > 1 else 0.999
    steps = math.ceil(2 / (1 - min(second, 0.9999)))
    formula = f"2 / (1 − {number(second)}) = {steps:,}"
    total = context.meta.max_steps
    most = context.thresholds["share_of_run"]
    if isinstance(total, int) and total > 0 and most * total < steps:
        steps = max(int(most * total), 1)
        formula += f", at most {percent(most)} of the run's {count(total, 'step')}"
    return Recommendation(
        parameter="warmup_steps",
        current=0,
        proposed=steps,
        basis="rule of thumb",
        formula=formula,
        snippet=warm_up_snippet(context, steps, current_rate(window, context)),
        effect="the rate rises while the running means fill, and no first step is longer than later "
        "ones",
        verify="no loss of the first 100 steps stands over 1.2 times the first one",
        risk="the first steps are slower; where the leap stays, the rate itself is too high",
    )
