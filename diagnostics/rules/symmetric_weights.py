"""All units of a layer have the same weights: they learn the same, and stay one unit for ever.

What: more than 95 % of a hidden layer's rows point where another one points (cosine over 0.999),
near step 20 and later; or all of them are equal at the first step in a layer before the last one, and
not zero. The last layer, whose rows are told apart by their classes, does not count.
Why: equal units get equal gradients: a layer of any width has the capacity of one unit.
Source: constant initialization, Goodfellow et al. 2016, section 8.4; measured: loss 1.83 and accuracy
0.25 where random weights reach 0.97.
"""

from __future__ import annotations

import numpy as np

from ...store import Evidence, Recommendation
from ..facts import learned
from ..initialization import as_code, he_normal
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import KEPT_STEPS, Window
from ..words import listing, percent

FAMILY = "train"
FROM_START = True


def judge(window: Window, context: Context) -> Verdict:
    """Breach where nearly all units of a hidden layer are one and the same."""
    numbers = context.thresholds
    after = max(context.start, window.step - KEPT_STEPS)
    alike = window.history.layers("symmetry", "alike_rows", after, window.step)
    known = np.flatnonzero(np.isfinite(alike.values).any(axis=1)) if len(alike) else []
    if not len(known):
        return unknown("the rows of the weights were not compared yet")
    shares = alike.values[known[-1]]
    shares = np.where(np.isfinite(shares), shares, 0.0)
    if len(shares) > 1:
        shares[-1] = 0.0
    worst = float(shares.max())
    strength = worst / numbers.fire
    if learned(window, context.facts, numbers["learned"]):
        return fine()
    if strength <= 1:
        return fine(strength)
    layers = [alike.layers[i] for i in np.flatnonzero(shares > numbers.fire)]
    step = int(alike.steps[known[-1]])
    return breach(strength, _case(context, layers, worst, step))


def _case(context: Context, layers: list[str], share: float, step: int) -> Case:
    drawn = {k: v for k, v in he_normal(context).items() if k in layers} or he_normal(context)
    return Case(
        title=f"The units of {listing(layers, 2)} are all the same",
        why="Equal units get equal gradients and stay equal: a layer of any width can do no more "
        "than one unit.",
        because=(
            Evidence(
                f"{percent(share)} of the rows of `{layers[0]}` point the same way as another one",
                "symmetry",
                f"alike_rows/{layers[0]}",
                step,
                share,
                context.thresholds.fire,
            ),
        ),
        recommendation=Recommendation(
            parameter="weight_init",
            current={layer: {"kind": "constant"} for layer in drawn},
            proposed=drawn,
            basis="derived",
            formula="standard deviation sqrt(2 / fan-in), drawn at random: no two units alike",
            snippet=as_code(drawn, context),
            effect="every unit learns a feature of its own",
            verify="no rows alike near step 20, and the loss falls",
            risk="starts again from the first step",
        ),
        may_be_normal="Weights that are tied, or set by hand, on purpose.",
        layers=tuple(layers),
        onset=context.start + 1,
    )
