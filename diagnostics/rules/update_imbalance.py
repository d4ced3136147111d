"""Some layers move a thousand times less than others, relative to their weights.

What: the largest over the smallest ratio of step to weights, among weights of at least two
dimensions that get a gradient, over 1,000 in ten evaluations.
Why: one learning rate is too high for the first or far too low for the last of them.
Source: measured: healthy nets 2 to 60; DIAGNOSES rule 22. You et al. 2017 (one rate a layer).
"""

from __future__ import annotations

import numpy as np

from ...store import Evidence, Recommendation
from ..facts import layer_ratios
from ..medians import nan_median
from ..rule import Case, Context, Later, Verdict, breach, fine, unknown
from ..snippets import own_loop
from ..windows import Window
from ..words import number, percent

FAMILY = "gradients"
LATEST = 50
"""Samples that are looked through for the last ones of which the steps were measured."""


def judge(window: Window, context: Context) -> Verdict:
    """Breach where relative steps differ by more than three orders of magnitude."""
    numbers = context.thresholds
    after = max(window.since, window.step - numbers.span)
    sampled = window.layers(
        "gradients", "update_sq", span=window.step - after, group="weight"
    ).steps
    if len(sampled) > LATEST:
        after = int(sampled[-LATEST - 1])
    steps, ratios = layer_ratios(window.history, after, window.step)
    # weights that begin at zero are small beside any step, until they have grown
    late = steps > context.start + numbers["settle"]
    known = (
        np.flatnonzero(np.isfinite(ratios).any(axis=1) & late) if len(steps) else np.empty(0, int)
    )
    known = known[-numbers.window :]
    if len(known) < numbers.min_samples:
        return unknown(f"fewer than {numbers.min_samples} samples of the layers' steps")
    table = np.where(ratios[known] > 0, ratios[known], np.nan)  # frozen and dead: other rules
    moving = np.isfinite(table).sum(axis=0) >= numbers.min_samples
    if moving.sum() < 2:
        return fine()
    middle = nan_median(table[:, moving])
    names = window.layers("gradients", "update_sq", count=1, group="weight").layers
    layers = [name for name, is_one in zip(names, moving, strict=True) if is_one]
    spread = float(middle.max() / middle.min())
    strength = spread / numbers.fire
    if strength <= 1:
        return fine(strength)
    case = Later(lambda: _case(window, context, layers, middle, spread), "rule of thumb")
    return breach(strength, case)


def _case(
    window: Window, context: Context, layers: list[str], ratios: np.ndarray, spread: float
) -> Case:
    typical, most = float(np.median(ratios)), context.thresholds["most"]
    off = [
        (layer, min(max(typical / ratio, 1 / most), most))
        for layer, ratio in zip(layers, ratios.tolist(), strict=True)
        if not 1 / context.thresholds["alike"] < ratio / typical < context.thresholds["alike"]
    ]
    proposed = {layer: float(f"{factor:.2g}") for layer, factor in off}
    low, high = layers[int(np.argmin(ratios))], layers[int(np.argmax(ratios))]
    group = "optimizer.param_groups" if own_loop(context) else "self.optimizers().param_groups"
    return Case(
        title=f"`{high}` moves {number(spread)} times as far as `{low}`, relative to its weights",
        why="One learning rate cannot suit both: too high for the one, far too low for the other.",
        because=(
            Evidence(
                f"a step moves `{high}` by {percent(float(ratios.max()))} of its weights, `{low}` by "
                f"{number(100 * float(ratios.min()))} %",
                "gradients",
                f"update_ratio/{low}",
                window.step,
                float(ratios.min()),
                float(ratios.max()) / context.thresholds.fire,
            ),
        ),
        recommendation=Recommendation(
            parameter="lr_multipliers",
            current=dict.fromkeys(proposed, 1.0),
            proposed=proposed,
            basis="rule of thumb",
            formula=f"median ratio of all layers, {number(typical)}, over the layer's own; at most "
            f"× {number(most)}",
            snippet="factors = "
            f"{proposed!r}\n"
            "optimizer = torch.optim.SGD([{'params': [p], 'lr': lr * next((f for k, f in "
            "factors.items() if n.startswith(k)), 1.0)} for n, p in model.named_parameters()], lr=lr)"
            f"\n# or set 'lr' in {group}; or Adam, whose steps do not depend on a layer's scale",
            effect="all layers learn at a similar pace",
            verify="largest over smallest ratio under 100 in the next samples",
            risk="a layer that moves little because it is done would be shaken",
        ),
        may_be_normal="Pretrained layers beside a new head; embeddings of rare words.",
        layers=(low, high),
    )
