"""A layer's outputs grow and grow.

What: the root mean square of a hidden layer's output is ten times what it was near step 100 and over
10 (what grows from little to some is learning), thirty times where only the start was looked at, or over
1,000 (6,000 where half precision overflows at 65,504), in three evaluations (one, where it is four
times as much); the last layer, whose outputs grow as it becomes sure, does not count.
Why: growing outputs cost precision, saturate what comes behind them, and end in an overflow.
Source: Dehghani et al. 2023 (attention logits of large transformers), Wortsman et al. 2023.
"""

from __future__ import annotations

import math

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import current_rate
from ..blocks import Made
from ..medians import nan_median
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import optimizer_with
from ..windows import Table, Window
from ..words import listing, number, rounded

FAMILY = "activations"
FROM_START = True


LATEST = 50
"""Samples that are looked through for the last ones of which the outputs were measured."""


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep the layers' outputs near the step from which growth counts."""
    if "base" in context.memory or window.step - context.start < context.thresholds["settle"]:
        return context.memory  # type: ignore[return-value]  # as it was
    kept: dict[str, Json] = dict(context.memory)
    steps, sizes, layers = _sizes(window, context.thresholds.span)
    settle = context.start + context.thresholds["settle"]
    near = steps > settle - context.thresholds["settle"] / 2
    if not near.any() and window.step > settle + context.thresholds["settle"] / 2:
        near = np.arange(len(steps)) == len(steps) - 1  # nothing was looked at since
        kept["early"] = True
    if near.any():
        kept["base"] = {
            layer: float(f"{value:.3g}")
            for layer, value in zip(layers, _middle(sizes[near]), strict=True)
            if value > 0
        }
        kept["step"] = int(steps[near][-1])
    return kept


def judge(window: Window, context: Context) -> Verdict:
    """Breach where outputs are ten times those near step 100, or beyond 1,000."""
    numbers, base = context.thresholds, context.memory.get("base")
    if base is None:
        return unknown(f"no sample near step {numbers['settle']:,.0f} yet")
    few = max(numbers.window, numbers.min_samples)
    steps, sizes, layers = _sizes(window, numbers.span, few)
    if len(steps) < few:  # not all of the latest ones were measured
        steps, sizes, layers = _sizes(window, numbers.span, LATEST)
    if len(steps) < numbers.min_samples or steps[-1] <= context.memory["step"]:
        return unknown(
            f"fewer than {numbers.min_samples} samples of the layers' outputs since then"
        )
    now = _middle(sizes[-numbers.window :])
    began = window.history.once(
        "activation_drift.began",
        (base, layers),
        lambda: np.array([base.get(layer, math.nan) for layer in layers]),
    )
    half = "16" in context.meta.precision and "bf16" not in context.meta.precision
    limit = numbers["limit_half"] if half else numbers["limit"]
    hidden = np.arange(len(layers)) < len(layers) - 1
    size, growth = np.nan_to_num(now), np.nan_to_num(now / began)
    times = numbers.fire * (numbers["early"] if context.memory.get("early") else 1.0)
    grown = np.where(hidden & (size > numbers["least"]), growth, 0.0) / times
    large = np.where(hidden & (growth > 2), size, 0.0) / limit
    strength = np.maximum(grown, large)
    worst = float(strength.max()) if len(strength) else 0.0
    if worst <= 1:
        return fine(worst)
    order = np.argsort(-strength)[: int((strength > 1).sum())].tolist()
    case = _case(window, context, layers, order, now, began, bool((large > 1).any()))
    return breach(worst, case, certain=worst > numbers["alone"])


def _sizes(
    window: Window, span: int, count: int | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return steps, root mean squares [samples, layers] and the names of layers with outputs."""
    found = window.derived("activations", "rms", _rms, span=span, count=count)
    if found is None or not len(found):
        return np.empty(0), np.empty((0, 0)), ()
    layers = _placed(window.history.tables["activations"])[2]
    if found.known.all():
        return found.steps, found.values, layers
    return found.steps[found.known], found.values[found.known], layers


def _placed(table: Table) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return where the squares' sums and the counts of layers with both stand in a row, and the layers."""

    def place() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        (sums, names), (counts, counted) = (table.of_layers(q, None) for q in ("sum_sq", "numel"))
        sized = dict(zip(counted, np.r_[counts].tolist(), strict=True))
        both = [name in sized for name in names]
        layers = tuple(name for name in names if name in sized)
        return np.r_[sums][both], np.array([sized[name] for name in layers], int), layers

    return table.once("rms", place)


def _rms(table: Table) -> Made:
    sums, counts, layers = _placed(table)

    def make(table: Table, low: int, high: int) -> np.ndarray:
        squares = table.rows[low:high, sums].astype(np.float64)
        numels = table.rows[low:high, counts].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(squares / np.where(numels > 0, numels, np.nan))

    return make, len(layers)


def _middle(sizes: np.ndarray) -> np.ndarray:
    middle = nan_median(sizes)
    if not np.isfinite(middle).all():
        middle[~np.isfinite(sizes).any(axis=0)] = np.nan  # infinite in every sample tells nothing
    return middle


def _case(
    window: Window, context: Context, layers: tuple[str, ...], order: list[int],
    now: np.ndarray, began: np.ndarray, large: bool,
) -> Case:  # fmt: skip
    names, worst = [layers[i] for i in order], order[0]
    told = context.optimizer.get("weight_decay")
    decay = float(told) if isinstance(told, (int, float)) else 0.0
    value = rounded(decay * 3) if decay > 0 else context.thresholds["decay"]
    return Case(
        title=f"The outputs of {listing(names, 2)} have grown {number(now[worst] / began[worst])} times",
        why="Growing outputs cost precision, saturate what comes behind them, and end in an overflow.",
        because=(
            Evidence(
                f"root mean square {number(float(now[worst]))}, {number(float(began[worst]))} at step "
                f"{context.memory['step']:,}",
                "activations",
                f"rms/{names[0]}",
                window.last_step("activations"),
                float(now[worst]),
                float(began[worst]) * context.thresholds.fire,
            ),
        ),
        recommendation=Recommendation(
            parameter="weight_decay",
            current=decay,
            proposed=value,
            basis="rule of thumb",
            formula=f"{number(decay)} × 3" if decay > 0 else "a usual first value",
            snippet=optimizer_with(context, current_rate(window, context), weight_decay=value),
            effect="weights that nothing holds do not grow any further",
            verify="the root mean square falls, or stays, over the next 500 steps",
            risk="too much of it keeps the net from fitting; normalizing queries and keys (attention), "
            "or a small penalty on the logits, act on the outputs themselves",
        ),
        may_be_normal="A net that becomes sure of itself, without a normalization.",
        severity="warning" if large else None,
        layers=tuple(names),
        onset=int(context.memory["step"]),
    )
