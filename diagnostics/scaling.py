"""Scaling: mean and deviation that inputs are scaled with, of all or of each feature, and the rate then."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..store.schemas import Json
from .advice import aimed_step, current_rate, first_step, highest_rate, sound_step
from .initialization import squashing
from .medians import median_of
from .rule import Context
from .snippets import huggingface, own_loop
from .windows import KEPT_STEPS, Window
from .words import rounded

FEATURES = 64
"""Features of a table whose means and deviations are recorded."""
TOGETHER = 2.0
"""How many times the curvature of one scaled feature that of all is at most taken to be: they vary with each other,
and within batches of few rows."""
VARIES = 1e-6
"""A deviation under this share of a feature's size is rounding."""


def by_feature(window: Window, start: int, times: float) -> dict[str, Json] | None:
    """Return mean and deviation of each feature, None where one of each does for all.

    That is where no feature is `times` as large as the median one: else the large ones would set the
    scale, and the others go unheard. A feature that does not vary gets the median deviation.
    """
    after = max(start, window.step - KEPT_STEPS)
    means, stds = (
        [_median(window, f"feature_{what}_{place}", after) for place in range(FEATURES)]
        for what in ("mean", "std")
    )
    known = [m is not None and s is not None for m, s in zip(means, stds, strict=True)]
    count = sum(known)
    if count < 2 or not all(known[:count]):
        return None
    mean, std = np.array(means[:count], dtype=float), np.array(stds[:count], dtype=float)
    size = np.hypot(mean, std)
    if not size.max() > times * median_of(size):
        return None
    varies = std > VARIES * size
    std = np.where(varies, std, median_of(std[varies]) if varies.any() else 1.0)
    return {
        "mean": [float(f"{value:.4g}") for value in mean],
        "std": [float(f"{value:.4g}") for value in std],
    }


def _median(window: Window, column: str, after: int) -> float | None:
    found = window.history.column("inputs", column, after, window.step).finite
    return median_of(found.values) if len(found) else None


def scaling_snippet(context: Context, proposed: Mapping[str, Json]) -> str:
    """Return the lines that scale a batch, in a Lightning module or wherever it is made."""
    mean, std = proposed["mean"], proposed["std"]
    if isinstance(mean, list):
        lines = [f"mean = torch.tensor({mean}).to(x)", f"std = torch.tensor({std}).to(x)"]
        scaled = "(x - mean) / std"
    else:
        lines, scaled = [], f"(x - {mean:g}) / {std:g}"
    if own_loop(context) or huggingface(context):
        scale = f"x = {scaled}  # in training, validation and wherever it is used"
        return "\n".join([*lines, scale])
    return "\n".join(
        [
            "def on_after_batch_transfer(self, batch, dataloader_idx):",
            "    x, y = batch",
            *(f"    {line}" for line in lines),
            f"    return {scaled}, y",
        ]
    )


def _shrink_of_curvature(scale: Mapping[str, Json] | None, size: float) -> float:
    """Return how many times smaller the curvature is of inputs that were divided by `size`, or each feature by its own.

    That of features apart was the largest one's: along it the steps had to be as short as its square asks.
    """
    means, stds = (scale or {}).get("mean"), (scale or {}).get("std")
    if not (isinstance(means, list) and isinstance(stds, list)):
        return size**2
    largest = float(np.hypot(np.array(means, float), np.array(stds, float)).max())
    return max(size**2, largest**2 / TOGETHER)


def rate_for_scaled(
    window: Window, context: Context, size: float, scale: Mapping[str, Json] | None = None
) -> float | None:
    """Return the rate for inputs of root mean square `size` that are scaled, None where the one at hand will do.

    `scale`: mean and deviation that they are scaled with, of all or of each feature.

    Whoever trains on inputs out of scale has often found the tiny rate that they stand. Plain gradients
    shrink with the inputs, and those of a regression once more with how far the first outputs were
    from the targets: so does the first step, from which the rate follows. What lies behind a
    normalization gets the same gradient whatever the scale: there the rate stays what it is.
    """
    rate, facts, rates = current_rate(window, context), context.facts, context.rates
    if not (rate > 0 and size > 0 and facts.update_first_lr > 0):
        return None
    then = first_step(context) * rate / facts.update_first_lr
    plain = not context.adaptive
    alike = plain and _gets_the_same_gradient(window, context)
    if plain and not alike:
        then /= size * _shrink_of_residuals(window, context)
    sound, most = sound_step(context), highest_rate(context)
    losses = window.samples("train", "loss", count=5).finite.values
    if plain and not alike and len(losses) and median_of(losses) < facts.loss_start:
        # as far as the curvature shrinks a rate that was stable may grow; the size of a single layer's
        # first weights means nothing
        grown = rate * _shrink_of_curvature(scale, size)
        if context.weight_layers > 1:
            grown = min(grown, rate * sound / then) if then > 0 else grown
        return rounded(min(grown, most)) if grown > rate else None
    if 0 < then < rates["raise_share"] * sound:
        return rounded(min(rate * rates["raise_share"] * sound / then, most))
    if alike or not then > rates["bold"] * sound:
        return None
    return rounded(rate * max(aimed_step(context) / then, rates["lowest"]))


def _gets_the_same_gradient(window: Window, context: Context) -> bool:
    norms = any(entry.get("kind") == "norm" for entry in context.meta.parameters)
    return norms or bool(squashing(window, context))


def _shrink_of_residuals(window: Window, context: Context) -> float:
    """Return how many times the residuals shrink that fell from the first loss to that of guessing.

    With classes they do not grow with the outputs: a probability is off by one at most.
    """
    if (context.meta.classes or 0) > 1:
        return 1.0
    found = window.history.column("initialization", "loss_ratio", context.start, window.step).finite
    return (
        max(math.sqrt(float(found.values[0])), 1.0) if len(found) and found.values[0] > 0 else 1.0
    )


def entered(window: Window) -> float | None:
    """Return the root mean square of what entered the first layer at the first step, if known."""
    outputs = window.layers("initialization", "rms", count=1)
    gains = window.layers("initialization", "forward_gain", count=1)
    if not len(outputs) or outputs.layers != gains.layers:
        return None
    known = np.flatnonzero((gains.values[0] > 0) & np.isfinite(outputs.values[0]))
    if not len(known):
        return None
    sizes = outputs.values[0][known]
    before = sizes / np.sqrt(gains.values[0][known])
    # each other layer is entered by what left one of them; the order of a model need not be that of a pass
    alike = np.isclose(before[:, None], sizes[None, :], rtol=1e-3).any(axis=1)
    return float(before[~alike][0] if (~alike).any() else before[0])
