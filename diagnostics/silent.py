"""Silent layers: no unit of them fires on any sample, as told by gradients that are exactly zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .rule import Context
from .windows import Window

LOOKS = 2
"""Samples in a row in which the gradient is zero; in the first step zeros drawn on purpose give it, too.
One, where not even the last layer's weights get one: then all that enters it is zero."""
UNDER = 2.0
"""Deviations by which a layer's outputs lie under zero: it is the one that a ReLU lets nothing out of."""


@dataclass(frozen=True, slots=True)
class Silent:
    """A layer whose weights get no gradient at all, and where its outputs lie.

    `activation`: the ReLU behind it by the order of the model, "" where none stands there.
    """

    layer: str
    activation: str
    units: float
    mean: float
    std: float
    step: int


def silent_layers(window: Window, context: Context, span: int, units: float) -> list[Silent]:
    """Return the layers of which no unit fires, in the order of the model.

    Counting dead units takes 512 samples, which steps of a few milliseconds hardly pay for. A layer
    whose outputs lie far under zero, and whose weights have a gradient of exactly zero in the last two
    samples while later ones have another, or nothing at all has had one since the first step, passes
    nothing through its ReLUs. One of fewer than `units` counts only where no layer before it gets a gradient
    either: a small one beside the trunk may rest.
    """
    fires = window.layers("activations", "units", count=1, span=span).layers
    gradients = window.layers("gradients", "grad_sq", span=span, group="weight")
    updates = window.layers("gradients", "update_sq", span=span, group="weight")
    if not fires or gradients.layers != updates.layers:
        return []
    known = gradients.known
    seen = gradients.values[known][-LOOKS:]
    if not len(seen) or not (seen == 0).all(axis=0).any():
        return []
    nothing = (seen == 0).all(axis=0)
    last = _last_that_hears(window, seen, updates.values[known], gradients.steps[known])
    if _never_heard(window, context, seen):
        last = len(nothing)
    places = {layer: i for i, layer in enumerate(gradients.layers)}
    return [
        found
        for found in _outputs(window, context, span)
        if places.get(found.layer, len(nothing)) < last
        and nothing[places[found.layer]]
        and found.mean < -UNDER * found.std
        and (found.activation or last < len(nothing))
        and (
            found.units >= units or 0 < places[found.layer] == nothing[: places[found.layer]].sum()
        )
    ]


def _last_that_hears(
    window: Window, seen: np.ndarray, updates: np.ndarray, steps: np.ndarray
) -> int:
    """Return the place of the last layer that gets a gradient and moves; 0 where nothing tells of one.

    Where not even the last layer's weights get one, all that enters it is zero: its bias is what hears.
    """
    if len(seen) == LOOKS:
        # layers of zeros, drawn so on purpose, pass nothing back until they have moved themselves
        moved = updates[-LOOKS] > 0
        hears = np.flatnonzero((np.isfinite(seen) & (seen > 0)).all(axis=0) & moved)
        if len(hears):
            return int(hears[-1])
    whole = window.samples("train", "grad_sq")
    norms = whole.values[np.isin(whole.steps, steps[-LOOKS:])]
    if seen.shape[1] < 2 or not (seen == 0).all() or not (norms[np.isfinite(norms)] > 0).any():
        return 0
    return seen.shape[1] - 1


def _never_heard(window: Window, context: Context, seen: np.ndarray) -> bool:
    """Tell whether nothing has come back to any weight or bias since the first step.

    So it is where outputs are held against each other, and what enters all of them is zero.
    """
    norms = window.history.column("train", "grad_sq", context.start, window.step).finite.values
    return len(norms) >= LOOKS and not norms.any() and not np.nansum(seen)


def _outputs(window: Window, context: Context, span: int) -> Iterator[Silent]:
    """Yield the layers of the last sample with where their outputs lie before the next activation."""
    sums = window.layers("activations", "sum", span=span, count=1)
    squares = window.layers("activations", "sum_sq", span=span, count=1)
    numels = window.layers("activations", "numel", span=span, count=1)
    units = window.layers("activations", "units", span=span, count=1)
    if not len(sums) or sums.layers != squares.layers:
        return
    counts = dict(zip(numels.layers, numels.values[-1].tolist(), strict=True))
    sizes = dict(zip(units.layers, units.values[-1].tolist(), strict=True)) if len(units) else {}
    norms = {str(row["layer"]) for row in context.meta.parameters if row.get("kind") == "norm"}
    places = window.history.tables["activations"].layer_order()
    order = sorted({*sums.layers, *sizes}, key=places.__getitem__)
    moments = {
        layer: (float(total), float(square))
        for layer, total, square in zip(
            sums.layers, sums.values[-1], squares.values[-1], strict=True
        )
    }
    for i, layer in enumerate(order):
        if layer not in moments or layer in norms:
            continue
        last, behind = layer, order[i + 1 : i + 3]
        if behind and behind[0] in norms:  # what the activation gets is what the norm gives
            last, behind = behind[0], behind[1:]
        count = counts.get(last, 0.0)
        if not count > 0:
            continue
        mean = moments[last][0] / count
        std = float(np.sqrt(max(moments[last][1] / count - mean * mean, 0.0)))
        activation = behind[0] if behind and behind[0] in sizes else ""
        yield Silent(layer, activation, sizes.get(activation, 0.0), mean, std, int(sums.steps[-1]))
