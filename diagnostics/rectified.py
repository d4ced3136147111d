"""Rectified: a ReLU behind the last layer, whose outputs cannot be what the targets or the loss ask for."""

from __future__ import annotations

import numpy as np

from ..store import Evidence, Recommendation
from .rule import Case, Context, Verdict, breach, fine, unknown
from .snippets import activation_snippet
from .windows import Samples, Window
from .words import percent

TOO_FEW = "whether a ReLU is behind the last layer: too few outputs were looked at"


def rectified_outputs(window: Window, context: Context) -> Verdict | None:
    """Breach where outputs are never negative and often exactly zero, though they would have to be.

    None where it was not recorded.
    """
    numbers = context.thresholds
    zero, negative, rows, ratio = (
        window.samples("head", quantity, count=numbers.window, span=numbers.span)
        for quantity in ("at_zero", "under_zero", "probability_rows", "as_logits")
    )
    if not len(zero) == len(negative) == len(rows) == len(ratio) or not len(zero.finite):
        return None
    found = window.history.once(
        "wrong_head.rectified",
        (zero, negative, rows, ratio, context),
        lambda: _shares(zero, negative, rows, ratio, context),
    )
    if found is None:
        return unknown(TOO_FEW)
    places, of_classes = found
    if not places.all():
        return fine(0.9 * float(places.mean()))
    share = float(np.median(zero.finite.values))
    step = int(zero.finite.steps[-1])
    under = None if of_classes else float(np.median(negative.finite.values))
    return breach(2.0, _case(window, step, share, under, numbers["at_zero"]), certain=True)


def _shares(
    zero: Samples, negative: Samples, rows: Samples, ratio: Samples, context: Context
) -> tuple[np.ndarray, bool] | None:
    """Return of each sample whether it looks so, and whether the targets are classes; None of too few."""
    numbers = context.thresholds
    known = np.isfinite(zero.values)
    if known.sum() < numbers.min_samples:
        return None
    often, below = zero.values[known], negative.values[known]
    of_classes = bool(np.isnan(below).all())
    if not of_classes:
        return (often >= numbers["at_zero"]) & (below >= numbers["under_zero"]), False
    as_logits = np.abs(ratio.values[known] - 1) < numbers["same"]
    unlike = rows.values[known] < 1 - numbers["rows"]  # a softmax that underflows has zeros, too
    return (often >= numbers["at_zero_logits"]) & as_logits & unlike, True


def _case(window: Window, step: int, share: float, under: float | None, limit: float) -> Case:
    because = [
        Evidence(
            f"no output is negative, and {percent(share)} of them are exactly zero",
            "head",
            "at_zero",
            step,
            share,
            limit,
        )
    ]
    if under is not None:
        because.append(
            Evidence(
                f"{percent(under)} of the targets are negative",
                "head",
                "under_zero",
                step,
                under,
            )
        )
    why = (
        "A logit at zero gets no gradient: a class that a sample does not name cannot be made less likely, "
        "and one that is always at zero is never learned."
        if under is None
        else "What is under zero cannot be predicted, and an output at zero gets no gradient that would "
        "lift it."
    )
    return Case(
        title="A ReLU is behind the last layer: no output can be negative",
        why=why,
        because=tuple(because),
        recommendation=_without(window),
        may_be_normal="Hardly ever: targets whose sign is of no interest."
        if under is not None
        else "A net that tells all classes apart nevertheless.",
        onset=1,
    )


def _without(window: Window) -> Recommendation:
    layer = _last_activation(window)
    what = "the last layer's bare output goes into the loss"
    return Recommendation(
        parameter="inspect" if layer is None else "activation",
        current=None if layer is None else {layer: "ReLU"},
        proposed=["the last layer's output"] if layer is None else {layer: "Identity"},
        basis="from your run",
        formula="max(0, x) has neither values nor a slope under zero",
        snippet=f"# {what}: no torch.relu around it\nreturn self.last(x)"
        if layer is None
        else f"# {what}\n" + activation_snippet(layer, "Identity()", "identity(x)"),
        effect="outputs of either sign, and a gradient for each of them",
        verify="negative outputs in the next samples, and a falling loss",
        risk="what reads the net's outputs may count on none being negative: clamp them there",
    )


def _last_activation(window: Window) -> str | None:
    """Return the module that ends the net, where it is an activation that units can be dead of."""
    table = window.history.tables.get("activations")
    if table is None:
        return None
    layers = [
        column for column in table.schema.columns if column.layer and column.quantity == "numel"
    ]
    last = layers[-1].layer if layers else None
    dead = {column.layer for column in table.schema.columns if column.quantity == "dead"}
    return last if last in dead and last is not None and "()" not in last else None
