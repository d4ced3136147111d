"""Initialization: weights to draw anew, with the deviation that their fan-in asks for."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from ..store import Recommendation
from ..store.schemas import Json
from .rule import Context
from .windows import Window

ONE_SIDED = ("gelu", "silu", "mish", "softplus", "elu", "selu")
"""Functions that saturate on one side alone, and pass on the gradient on the other."""
SQUASHING = ("tanh", "sigmoid", "softsign", "hardtanh", "hardsigmoid")
"""Functions that are flat on both sides."""
PLAIN = (
    *("Linear", "Bilinear", "LazyLinear", "Conv1D"),
    *(f"Conv{kind}{n}d" for kind in ("", "Transpose") for n in (1, 2, 3)),
)
"""Classes of layers that multiply by their weights as these are."""
OF_TORCH = (
    *PLAIN,
    *(f"{kind}{cell}" for kind in ("RNN", "LSTM", "GRU") for cell in ("", "Cell")),
    *("Bilinear", "Embedding", "EmbeddingBag"),
    *("MultiheadAttention", "NonDynamicallyQuantizableLinear"),
)
"""Classes of layers that torch draws, no two rows alike."""


def is_of_torch(module: str) -> bool:
    """Tell whether a class of layers, by its name, is one that torch draws; under a parametrization too.

    >>> is_of_torch("ParametrizedLinear"), is_of_torch("Router")
    (True, False)
    """
    return module.removeprefix("Parametrized") in OF_TORCH


def he_normal(context: Context) -> dict[str, dict[str, Json]]:
    """Return `weight_init` of every layer but the last: He's deviation, biases of zero.

    A layer that another one follows without a bend gets what keeps the signal without one, sqrt(1 / fan-in):
    He's doubles the signal's energy for a ReLU that halves it, and nothing halves it there. Where the run does not tell the fan-in it is the count of weights over that of biases; layers of which
    neither is known, and those with several weights (recurrent ones) or of another name (attention), are
    left as they are. Source: He et al. 2015.
    """
    weights: dict[str, list[int]] = {}
    biases: dict[str, list[int]] = {}
    told: dict[str, int] = {}
    for entry in context.meta.parameters:
        layer, numel = str(entry.get("layer")), int(entry.get("numel") or 0)
        if entry.get("kind") == "weight" and int(entry.get("ndim") or 0) > 1:
            weights.setdefault(layer, []).append(numel)
            told[layer] = int(entry.get("fan_in") or 0)
        elif entry.get("kind") == "bias" and int(entry.get("ndim") or 0) == 1:
            biases.setdefault(layer, []).append(numel)
    proposed: dict[str, dict[str, Json]] = {}
    known, straight = can_be_drawn(context), straight_on(context)
    for layer in list(weights)[:-1]:
        outputs, inputs = biases.get(layer, []), float(told[layer])
        if not inputs and len(outputs) == 1 and outputs[0] > 0:
            inputs = weights[layer][0] / outputs[0]
        if layer in known and len(weights[layer]) == 1 and inputs > 0:
            bent = layer not in straight
            std = math.sqrt((2 if bent else 1) / inputs)
            kind = "kaiming_normal" if bent else "xavier_normal"
            proposed[layer] = {"kind": kind, "std": float(f"{std:.3g}")}
    return proposed


def straight_on(context: Context) -> set[str]:
    """Return the layers whose outputs are the next one's inputs, with no activation between them.

    As far as their names tell: two layers that only multiply follow one another in a chain, `net.3` and `net.4`,
    in which activations have numbers of their own. What else has a number between them, as what only sorts the
    units, is taken for no activation, where most layers of the chain are not followed by such a thing. Where
    activations are called, or all are listed behind the layers, nobody knows.
    """
    return context.once("straight on", lambda: _straight_on(context))


def not_rectified(context: Context) -> set[str]:
    """Return the layers behind which no rectifier comes: those that go straight on, and of a net that squashes, too,
    all but those before one, as far as their places in a chain tell.
    """
    kinds = context.meta.activations
    if not set(SQUASHING) & set(kinds.values()):
        return straight_on(context)
    bends = {_place_in_chain(site) for site, kind in kinds.items() if kind not in SQUASHING}
    layers = {str(row["layer"]) for row in context.meta.parameters}
    known = {layer: place for layer in layers if (place := _place_in_chain(layer)) is not None}
    before = {layer for layer, (chain, at) in known.items() if (chain, at + 1) in bends}
    # where no place tells of any, what is known is that some layer is
    return layers - before if before else straight_on(context)


def _straight_on(context: Context) -> set[str]:
    rows = context.meta.parameters
    plain = {str(row["layer"]) for row in rows if str(row.get("module")) in PLAIN}
    places = {place: layer for layer in plain if (place := _place_in_chain(layer)) is not None}
    bends = [place for site in context.meta.activations if (place := _place_in_chain(site))]
    paths = {str(row["name"]) for row in rows} | set(context.meta.activations)
    found: set[str] = set()
    for chain in {chain for chain, _ in bends}:
        numbers = sorted(number for of, number in places if of == chain)
        bent = sorted(number for of, number in bends if of == chain)
        # a list of layers with all its activations behind them is no chain
        if numbers and bent[0] < numbers[-1]:
            straight = _without_a_bend(chain, numbers, bent, paths)
            found |= {places[chain, number] for number in straight}
    return found


def _without_a_bend(chain: str, numbers: list[int], bends: list[int], paths: set[str]) -> list[int]:
    """Return the numbers of layers in a chain from which a next one comes before any bend does."""
    at_once: list[int] = []
    past_others: list[int] = []
    bent = 0
    for at, behind in pairwise(numbers):
        between = range(at + 1, behind)
        if any(number in between for number in bends):
            bent += 1
        elif not between:
            at_once.append(at)
        elif not any(
            path.startswith(f"{chain}.{n}.".lstrip(".")) for n in between for path in paths
        ):
            past_others.append(at)  # and no part of the net with weights or bends of its own
    return at_once + (past_others if bent >= len(past_others) else [])


def _place_in_chain(path: str) -> tuple[str, int] | None:
    """Return the chain that a module stands in, and its number there.

    >>> _place_in_chain("net.3"), _place_in_chain("net.head")
    (('net', 3), None)
    """
    chain, _, number = path.rpartition(".")
    return (chain, int(number)) if number.isdecimal() else None


def can_be_drawn(context: Context) -> set[str]:
    """Return the layers whose weights go by the name `weight`, as those of no recurrent one do.

    Nor those of attention, `in_proj_weight`.
    """
    rows = context.meta.parameters
    return context.once(
        "can be drawn",
        lambda: {
            str(row.get("layer")) for row in rows if row.get("name") == f"{row.get('layer')}.weight"
        },
    )


def drawn_anew(
    drawn: dict[str, dict[str, Json]],
    context: Context | None = None,
    *,
    kind: str = "as drawn",
    **words: Any,
) -> Recommendation:
    """Return the advice to draw layers anew; with a context, no bias where a layer has none.

    `kind`: how they were drawn. `words`: basis, formula, effect, verify and risk of the recommendation.
    """
    return Recommendation(
        parameter="weight_init",
        current={layer: {"kind": kind} for layer in drawn},
        proposed=drawn,
        snippet=as_code(drawn, context),
        **words,
    )


def as_code(proposed: dict[str, dict[str, Json]], context: Context | None = None) -> str:
    """Return the lines that draw layers anew; with a context, no bias where a layer has none."""
    names = None if context is None else {str(entry["name"]) for entry in context.meta.parameters}
    lines = []
    for layer, value in proposed.items():
        lines.append(
            f'torch.nn.init.normal_(model.get_submodule("{layer}").weight, std={value["std"]:g})'
        )
        if names is None or f"{layer}.bias" in names:
            lines.append(f'torch.nn.init.zeros_(model.get_submodule("{layer}").bias)')
    return "\n".join(lines)


def squashing(window: Window, context: Context) -> list[str]:
    """Return the activation layers that can saturate on both sides: no unit of them dies.

    Those behind the last layer of weights are the net's outputs, bounded as the loss wants them; unless
    there are no others, as where one module that is defined last serves all layers. A call is told by its
    name, a module by what the run told of it; where a call stands is not known.
    """
    saturating = window.layers("activations", "saturated", count=1)
    firing = set(window.layers("activations", "dead", count=1).layers)
    found = [
        site for site in saturating.layers if site not in firing and not is_one_sided(site, context)
    ]
    if not len(saturating) or not found:
        return []
    order = window.history.tables["activations"].layer_order()
    weighted = window.layers("gradients", "weight_sq", count=1, group="weight").layers
    last = max((order[layer] for layer in weighted if layer in order), default=len(order))
    return [site for site in found if "()" in site or order[site] < last] or found


def is_one_sided(site: str, context: Context) -> bool:
    """Tell whether an activation is known to be flat on its negative side alone, as GELU is."""
    call, called, _ = site.partition("()")
    kind = call.rpartition(".")[2] if called else context.meta.activations.get(site)
    return kind in ONE_SIDED
