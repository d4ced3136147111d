"""All units of a layer do the same: a layer of any width has the capacity of one unit.

What: more than 95 % of a hidden layer's rows point where another one points (cosine over 0.999),
near step 20 and later. Or the outputs of a hidden layer spread over less than 5 % of the directions
that they have (effective rank), in its last two samples, while the loss has not moved from its start after
200 steps of a size that should have moved it, and nothing else explains that; a stack of sigmoids or
tanh is left to its gradients. The last layer, whose rows are told apart by their classes, does not count,
nor does one of which no weight trains; where its rows were equal from the start it is drawn anew with the others.
Nor does a layer of a class of the model's own, whose rows may be made alike, as filters are that begin by
letting all through, until its steps add up to a tenth of its weights: what comes before tells them apart by then.
Why: equal units get equal gradients and stay equal; where all outputs lie along one line, what comes
behind can tell no more of a sample than where on it the sample lies.
Source: constant initialization, Goodfellow et al. 2016, section 8.4; measured: loss 1.83 and accuracy
0.25 where random weights reach 0.97.
"""

from __future__ import annotations

import numpy as np

from ...store import Evidence
from ...store.schemas import Json
from ..facts import BLOCK, learned
from ..initialization import can_be_drawn, drawn_anew, he_normal, is_of_torch, squashing
from ..medians import median_of, nan_median
from ..ratios import layer_ratios
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import KEPT_STEPS, Window
from ..words import listing, percent

FAMILY = "train"
FROM_START = True
OTHERS = (
    "input_problem",
    "bad_initialization",
    "lr_too_high",
    "lr_too_low",
    "dead_units",
    "saturated_activations",
    "vanishing_gradients",
    "frozen_layer",
    "wrong_head",
    "clipping_too_tight",
    "nonlinear_step",
    "exploding_gradients",
)
"""Whatever else explains a loss that does not move."""
TEARING = ("bad_initialization", "lr_too_high")
"""What leaves rows alike that were not: one step that is larger than all weights."""
APART = 0.1
"""Share of its weights that a layer's steps come to, after which rows that get unequal gradients are 0.045 apart,
which a cosine of 0.999 is."""
BORN = 0.5
"""Share of a layer's rows that were equal to another one at the first step."""


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep the layers whose rows were equal at the first step, which windows forget."""
    if context.memory:
        return context.memory  # type: ignore[return-value]  # as it was
    found = window.history.layers("initialization", "identical_rows", context.start, window.step)
    if not len(found):
        return {}
    rows = zip(found.layers, found.values[0].tolist(), strict=True)
    return {"born": [layer for layer, share in rows if not share <= BORN]}  # NaN: not known


def judge(window: Window, context: Context) -> Verdict:
    """Breach where nearly all units of a hidden layer are one and the same."""
    numbers = context.thresholds
    after = max(context.start, window.step - KEPT_STEPS)
    alike = window.history.layers("symmetry", "alike_rows", after, window.step)
    known = np.flatnonzero(alike.known) if len(alike) else []
    if not len(known):
        return unknown("the rows of the weights were not compared yet")
    shares = alike.values[known[-1]]
    shares = np.where(np.isfinite(shares), shares, 0.0)
    if len(shares) > 1:
        shares[-1] = 0.0
    still = _untrained(context) | _as_made(window, context, alike.layers)
    if still:
        shares = np.where([layer in still for layer in alike.layers], 0.0, shares)
    worst = float(shares.max())
    strength = worst / numbers.fire
    if learned(window, context.facts, numbers["learned"]):
        return fine()
    if strength <= 1:
        other = _collapsed(window, context)
        return other if other.kind == "breach" else fine(max(strength, other.strength), other.why)
    layers = [alike.layers[i] for i in np.flatnonzero(shares > numbers.fire)]
    step = int(alike.steps[known[-1]])
    if context.standing(*TEARING) and not _born_alike(context, layers):
        return fine(0.4)
    return breach(strength, _case(context, layers, worst, step))


def _untrained(context: Context) -> set[str]:
    """Return the layers none of whose weights train: frozen, or in no optimizer. They learn nothing anyway."""

    def read() -> set[str]:
        rows = [row for row in context.meta.parameters if int(row.get("ndim") or 0) > 1]
        held = [r for r in rows if r.get("requires_grad", True) and r.get("optimized", True)]
        return {str(row["layer"]) for row in rows} - {str(row["layer"]) for row in held}

    return context.once("symmetric_weights.untrained", read)


def _as_made(window: Window, context: Context, layers: tuple[str, ...]) -> set[str]:
    """Return the layers of the model's own classes that hardly moved: what is alike of them was made so."""
    own = _of_own_classes(context) & set(layers)
    if not own:
        return own
    steps, ratios = layer_ratios(window.history, context.start, window.step)
    names = window.layers("gradients", "update_sq", count=1, group="weight").layers
    if not len(steps) or len(names) != ratios.shape[1]:
        return own
    way = nan_median(ratios, axis=0) * (window.step - context.start)
    moved = {layer for layer, share in zip(names, way.tolist(), strict=True) if share > APART}
    return own - moved


def _of_own_classes(context: Context) -> set[str]:
    """Return the layers that are of no class of torch's."""
    return context.once(
        "symmetric_weights.own",
        lambda: {
            str(row["layer"])
            for row in context.meta.parameters
            if row.get("module") is not None and not is_of_torch(str(row["module"]))
        },
    )


def _born_alike(context: Context, layers: list[str]) -> bool:
    """Tell whether the rows of some layer were equal at the first step already, or that is not known."""
    born = context.memory.get("born")
    return born is None or any(layer in born for layer in layers)


def _collapsed(window: Window, context: Context) -> Verdict:
    """Breach where the outputs of a hidden layer lie along a line, and the loss does not move."""
    numbers, facts = context.thresholds, context.facts
    losses = window.samples("train", "loss", count=BLOCK).finite.values
    late = window.step - context.start > numbers["settle"] and len(losses) >= BLOCK
    lowest = numbers["flat"] * facts.loss_start
    stood = facts.loss_best > lowest  # else it had learned, and was thrown back
    if not (late and stood) or not lowest < median_of(losses) < facts.loss_start / numbers["flat"]:
        return fine()
    if not facts.update_peak > numbers["moved"] or context.standing(*OTHERS):
        return fine()
    if squashing(window, context):
        return fine()  # outputs of a deep stack of them are alike: its gradients tell
    ranks = window.layers("activations", "effective_rank", span=numbers.span)
    shares: dict[str, float] = {}
    for layer, column in list(zip(ranks.layers, ranks.values.T, strict=True))[:-1]:
        seen = column[np.isfinite(column)][-2:]
        if len(seen):
            shares[layer] = float(seen.max())
    if not shares:
        return fine(partly="over how many directions the layers' outputs spread was not measured")
    low = {layer: share for layer, share in shares.items() if share < numbers["rank"]}
    if not low:
        return fine(numbers["rank"] / min(shares.values()))
    return breach(numbers["rank"] / min(low.values()), _flat_case(context, low, window.step))


def _flat_case(context: Context, low: dict[str, float], step: int) -> Case:
    layers = sorted(low, key=lambda layer: low[layer])
    worst = layers[0]
    drawn = he_normal(context)
    return Case(
        title=f"The outputs of {listing(layers, 2)} are all alike, whatever the sample",
        why="Where all outputs lie along one line, what comes behind can tell no more of a sample than "
        "where on it the sample lies: the loss does not move.",
        because=(
            Evidence(
                f"the outputs of `{worst}` spread over {percent(low[worst])} of their directions",
                "activations",
                f"effective_rank/{worst}",
                step,
                low[worst],
                context.thresholds["rank"],
            ),
            Evidence("the loss stands where it began", "train", "loss", step),
        ),
        recommendation=drawn_anew(
            drawn,
            context,
            basis="rule of thumb",
            formula="standard deviation sqrt(2 / fan-in), of both signs: directions are kept apart",
            effect="the layers pass on what tells one sample from another",
            verify="effective rank over a tenth near step 50, and the loss falls",
            risk="starts again from the first step; a normalization layer is sounder in a deep net",
        ),
        may_be_normal="Targets that cannot be foretold from the inputs at all.",
        layers=tuple(layers),
        onset=context.start + 1,
    )


def _last_of_equal_rows(context: Context) -> dict[str, dict[str, Json]]:
    """Return how to draw the last layer, where its rows were equal at the first step: no class may tell them apart.

    As where outputs are held against each other. With half of He's energy: nothing rectifies behind it.
    """
    rows = [row for row in context.meta.parameters if int(row.get("ndim") or 0) > 1]
    last = rows[-1] if rows else {}
    layer, fan_in = str(last.get("layer")), int(last.get("fan_in") or 0)
    if (
        layer not in (context.memory.get("born") or [])
        or layer not in can_be_drawn(context)
        or not fan_in
    ):
        return {}
    return {layer: {"kind": "xavier_normal", "std": float(f"{(1 / fan_in) ** 0.5:.3g}")}}


def _case(context: Context, layers: list[str], share: float, step: int) -> Case:
    drawn = {k: v for k, v in he_normal(context).items() if k in layers} or he_normal(context)
    drawn |= _last_of_equal_rows(context)
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
        recommendation=drawn_anew(
            drawn,
            context,
            kind="constant",
            basis="derived",
            formula="standard deviation sqrt(2 / fan-in), drawn at random: no two units alike",
            effect="every unit learns a feature of its own",
            verify="no rows alike near step 20, and the loss falls",
            risk="starts again from the first step",
        ),
        may_be_normal="Weights that are tied, or set by hand, on purpose.",
        layers=tuple(layers),
        onset=context.start + 1,
    )
