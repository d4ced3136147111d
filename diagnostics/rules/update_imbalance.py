"""Some layers move a thousand times less than others, relative to their weights.

What: the largest over the smallest ratio of step to weights, among weights of at least two
dimensions that get a gradient, over 1,000 in ten evaluations; or groups of one optimizer whose learning
rates differ by as much, which needs no sample of a layer.
Why: one learning rate is too high for the first or far too low for the last of them.
Source: measured: healthy nets 2 to 60; DIAGNOSES rule 22. You et al. 2017 (one rate a layer).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation, Schema
from ..advice import current_rate
from ..in_place import group_raised, has_schedule
from ..medians import nan_median
from ..ratios import layer_ratios
from ..rule import Case, Context, Later, Verdict, breach, fine, unknown
from ..snippets import huggingface, optimizer_by_layer, own_loop
from ..windows import Window
from ..words import listing, number, percent

FAMILY = "train"
LATEST = 50
"""Samples that are looked through for the last ones of which the steps were measured."""


def judge(window: Window, context: Context) -> Verdict:
    """Breach where relative steps differ by more than three orders of magnitude."""
    numbers = context.thresholds
    apart = _rates(window, context)
    if apart is not None and apart.times > numbers.fire:
        case = Later(lambda: _of_rates(window, context, apart), "derived")
        return breach(apart.times / numbers.fire, case)
    known = _measured(window, context, numbers.window)
    if len(known) < numbers.window:  # not all of the last ones told of the steps
        known = _measured(window, context, LATEST)[-numbers.window :]
    if len(known) < numbers.min_samples:
        return unknown(f"fewer than {numbers.min_samples} samples of the layers' steps")
    moves = known > 0
    table = known if moves.all() else np.where(moves, known, np.nan)  # frozen and dead: other rules
    moving = np.isfinite(table).sum(axis=0) >= numbers.min_samples
    if moving.sum() < 2:
        return fine()
    middle = nan_median(table if moving.all() else table[:, moving])
    spread = float(middle.max() / middle.min())
    strength = spread / numbers.fire
    if strength <= 1:
        return fine(strength)

    def made() -> Case:
        names = window.layers("gradients", "update_sq", count=1, group="weight").layers
        layers = [name for name, is_one in zip(names, moving, strict=True) if is_one]
        return _case(window, context, layers, middle, spread)

    return breach(strength, Later(made, "rule of thumb"))


@dataclass(frozen=True, slots=True)
class _Rates:
    """Learning rates of the groups of one optimizer that train weights: the lowest and the highest.

    `names` are groups as the columns of rates name them; `layers` those of the lowest, if known.
    """

    low: float
    high: float
    names: tuple[str, str]
    layers: tuple[str, ...]

    @property
    def times(self) -> float:
        """How many times as high the one is as the other."""
        return self.high / self.low


def _measured(window: Window, context: Context, latest: int) -> np.ndarray:
    """Return how far each layer moved in those of the latest samples that tell, [samples, layers]."""
    numbers = context.thresholds
    after = max(window.since, window.step - numbers.span)
    steps, ratios = layer_ratios(window.history, after, window.step, latest)
    if not len(steps):
        return ratios
    # weights that begin at zero are small beside any step, until they have grown
    late = steps > context.start + numbers["settle"]
    told = np.isfinite(ratios).any(axis=1) & late
    return ratios if told.all() else ratios[told]


def _rates(window: Window, context: Context) -> _Rates | None:
    """Return the rates that lie farthest apart; None where an optimizer has one group of weights."""
    table = window.history.tables.get("train")
    if table is None or window.step - context.start <= context.thresholds["settle"]:
        return None
    held = context.once("layers of groups", lambda: _held(context))
    names = window.history.once(
        "update_imbalance.groups", (table.schema, held), lambda: _groups(table.schema, held)
    )
    rates: dict[str, dict[str, float]] = {}
    for name in names:
        values = window.samples("train", f"lr/{name}", count=1).finite.values
        if len(values) and values[-1] > 0:  # a rate of zero is meant
            rates.setdefault(name.partition(".")[0], {})[name] = float(values[-1])
    found = [
        _Rates(low[1], high[1], (low[0], high[0]), tuple(dict.fromkeys(held.get(low[0], []))))
        for groups in rates.values()
        if len(groups) > 1
        for low, high in [[pick(groups.items(), key=lambda item: item[1]) for pick in (min, max)]]
    ]
    return max(found, key=lambda one: one.times, default=None)


def _held(context: Context) -> dict[str, list[str]]:
    """Return the layers whose weights each group holds, as far as the run told."""
    held: dict[str, list[str]] = {}
    for row in context.meta.parameters:
        if "group" in row and int(row.get("ndim") or 0) > 1:
            held.setdefault(str(row["group"]), []).append(str(row["layer"]))
    return held


def _groups(schema: Schema, held: dict[str, list[str]]) -> list[str]:
    """Return the groups that hold weights, of optimizers that have more than one of them."""
    names = [column.name.partition("/")[2] for column in schema.columns if column.quantity == "lr"]
    names = [name for name in names if not held or name in held]
    optimizers = [name.partition(".")[0] for name in names]
    return [name for name in names if optimizers.count(name.partition(".")[0]) > 1]


def _of_rates(window: Window, context: Context, apart: _Rates) -> Case:
    """Return the case of groups whose rates alone lie so far apart."""
    factor = float(f"{apart.times:.3g}")
    proposed = dict.fromkeys(apart.layers, factor)
    of_layers = f", of {listing(apart.layers, 2)}," if apart.layers else ""
    return Case(
        title=f"The learning rate of a group of parameters is {number(apart.times)} times lower than "
        "another one's",
        why="One of them trains, and the other stays as it was drawn.",
        because=(
            Evidence(
                f"group {apart.names[0]}{of_layers} has a learning rate of {number(apart.low)}, group "
                f"{apart.names[1]} one of {number(apart.high)}",
                "train",
                f"lr/{apart.names[0]}",
                window.step,
                apart.low,
                apart.high / context.thresholds.fire,
            ),
        ),
        recommendation=Recommendation(
            parameter="lr_multipliers" if proposed else "inspect",
            current=dict.fromkeys(proposed, 1.0) if proposed else None,
            proposed=proposed or [window.step],
            basis="derived",
            formula=f"{number(apart.high)} / {number(apart.low)}: the rate of the other group",
            snippet=_raised(context, apart, factor),
            effect="both groups learn at the same rate",
            verify="largest over smallest ratio under 100 in the next samples",
            risk="layers that were pretrained are shaken by a rate that suits new ones",
        ),
        may_be_normal="Rates that fall with depth on purpose, as where a pretrained net is tuned.",
        layers=apart.layers,
        onset=context.start + 1,
    )


def _raised(context: Context, apart: _Rates, factor: float) -> str:
    """Return the line that raises the rate of the lower group; a schedule multiplies what it finds at first."""
    which, place = (int(part or 0) for part in apart.names[0].partition(".")[::2])
    trainer = "trainer" if huggingface(context) else ""
    if trainer or has_schedule(context):
        return group_raised(context, which, place, factor, trainer)
    optimizer = "optimizer" if own_loop(context) else "self.optimizers()"
    if len(context.meta.optimizers) > 1:
        optimizer = f"optimizers[{which}]" if own_loop(context) else f"self.optimizers()[{which}]"
    return f"{optimizer}.param_groups[{place}]['lr'] = {apart.high:g}"


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
            snippet=optimizer_by_layer(context, current_rate(window, context), proposed),
            effect="all layers learn at a similar pace",
            verify="largest over smallest ratio under 100 in the next samples",
            risk="a layer that moves little because it is done would be shaken",
        ),
        may_be_normal="Pretrained layers beside a new head; embeddings of rare words.",
        layers=(low, high),
    )
