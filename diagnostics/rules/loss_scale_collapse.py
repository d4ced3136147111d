"""The loss scale collapses: half precision can no longer hold these gradients.

What: under a loss scaler, a scale below 16, or four halvings within 100 steps after step 500. The
halvings by which a scaler finds its scale at the start do not count.
Why: each halving is a step left out, and at a small scale the small gradients become zero: the run
goes on, and learns less and less.
Source: Micikevicius et al. 2018 (mixed precision); the largest half-precision number is 65,504.
"""

from __future__ import annotations

import numpy as np

from ...store import Evidence, Recommendation
from ..medians import median_of
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import precision_snippet
from ..windows import Samples, Window
from ..words import count, number, percent

FAMILY = "train"
LARGEST = 65504.0
"""The largest number in half precision."""


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the scale is at its floor, or falls again and again."""
    numbers = context.thresholds
    scales = window.samples("train", "loss_scale", span=numbers.span).finite
    if not len(scales):
        return unknown("the run has no loss scaler")
    if len(scales) < numbers.min_samples:
        return unknown(f"fewer than {numbers.min_samples} loss scales since the windows began")
    low = median_of(scales.values[-int(numbers["recent"]) :])
    halved = _halvings(scales, window.step, numbers.window)
    often = window.step - context.start > numbers["settled"] and len(halved) >= numbers["halvings"]
    if low >= numbers.fire and not often:
        return fine(max(numbers.fire / low, len(halved) / numbers["halvings"] if often else 0.0))
    strength = max(numbers.fire / max(low, 1e-9), len(halved) / numbers["halvings"])
    return breach(strength, _case(window, context, scales, low, halved))


def _halvings(scales: Samples, step: int, span: int) -> np.ndarray:
    """Return the steps of the last so many at which the scale fell by half or more."""
    fell = scales.values[1:] <= 0.51 * scales.values[:-1]
    steps = scales.steps[1:][fell]
    return steps[steps > step - span]


def _case(
    window: Window, context: Context, scales: Samples, low: float, halved: np.ndarray
) -> Case:
    numbers = context.thresholds
    text = f"loss scale {number(low)}, {number(float(scales.values.max()))} at most"
    because = [Evidence(text, "train", "loss_scale", int(scales.steps[-1]), low, numbers.fire)]
    if len(halved):
        text = f"{count(len(halved), 'halving')} in the last {numbers.window} steps"
        at = int(halved[-1])
        because.append(
            Evidence(text, "train", "loss_scale", at, float(len(halved)), numbers["halvings"])
        )
    layer = _nearest_to_overflow(window)
    if layer is not None:
        name, size = layer
        text = f"the largest output is {number(size)} in `{name}`, {percent(size / LARGEST)} of what half precision holds"
        because.append(Evidence(text, "activations", f"absmax/{name}", None, size, LARGEST))
    return Case(
        title=f"The loss scale has collapsed to {number(low)}",
        why="Each halving is a step left out, and at a small scale small gradients become zero: the "
        "run goes on, and learns less and less.",
        because=tuple(because),
        recommendation=_advice(context),
        may_be_normal="The halvings of a scaler that starts high; a single batch that overflows.",
        layers=() if layer is None else (layer[0],),
        onset=int(halved[0]) if len(halved) else None,
    )


def _nearest_to_overflow(window: Window) -> tuple[str, float] | None:
    found = window.layers("activations", "absmax", count=5)
    if not len(found):
        return None
    finite = np.where(np.isfinite(found.values), found.values, np.inf)
    tops = finite.max(axis=0)
    known = np.isfinite(found.values).any(axis=0)
    if not known.any():
        return None
    top = int(np.argmax(np.where(known, tops, -1.0)))
    return found.layers[top], float(min(tops[top], LARGEST))


def _advice(context: Context) -> Recommendation:
    precision = "bf16-mixed"  # a loss scaler is there for mixed precision alone
    return Recommendation(
        parameter="precision",
        current=context.meta.precision,
        proposed=precision,
        basis="rule of thumb",
        formula="bfloat16 has the range of float32: nothing overflows, and no loss scale is needed",
        snippet=precision_snippet(context, precision),
        effect="no step is left out, and small gradients count",
        verify="no skipped steps in the next 200, and the loss falls",
        risk="bfloat16 has 8 bits of precision instead of 11, and needs a GPU that has it (2020 and "
        "later); without one, normalize the layer with the largest output",
    )
