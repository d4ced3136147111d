"""A layer that should train has not moved by a single bit.

What: weights that want a gradient and whose step was exactly zero in every sample: left out of the
optimizers (at once), or over 20 steps and more, cut off from the loss (the layer runs, and no gradient comes back),
or with a gradient that no step follows. A gradient of zero is a dead net and no frozen layer; layers
with requires_grad=False, heads that are not in use, what runs in eval mode or without gradients alone (a
teacher), and a learning rate of zero, of its own group, too, or at the end of its decay do not count.
A few layers that are cut off behind others that do get a gradient are information: what they make is not used.
Why: the layer stays as it was drawn, and all the others learn around it.
Source: measured: half of the parameters not passed give a step of exactly 0 beside a gradient that is
not, whatever the optimizer; DIAGNOSES rule 19.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import current_rate
from ..in_place import is_kept
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import huggingface, optimizer_snippet, own_loop
from ..windows import Window
from ..words import count, listing

FAMILY = "gradients"
FEW = 0.25
"""Share of the layers up to which those that are cut off may be a branch whose outputs nothing uses."""


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep whether a gradient came back to the outputs of any layer that no optimizer holds.

    To those of a teacher none does, whatever its mode. How much a layer passes on is held against the one
    run before it, so that of the first none is known. Where one layer alone is left out and all others
    train, a second one without a number says that nothing came back to that layer.
    """
    if context.memory:
        return context.memory  # type: ignore[return-value]  # as it was
    gains = window.history.layers("initialization", "backward_gain", context.start, window.step)
    if not len(gains):
        return {}
    trains: dict[str, bool] = {}
    for row in context.meta.parameters:
        trained = bool(row.get("requires_grad", True) and row.get("optimized", True))
        trains[str(row["layer"])] = trains.get(str(row["layer"]), True) and trained
    rows = [row for row in context.meta.parameters if row.get("requires_grad", True)]
    left_out = {str(row["layer"]) for row in rows if not row.get("optimized", True)}
    known = dict(zip(gains.layers, np.isfinite(gains.values[0]).tolist(), strict=True))
    if not any(known.values()):
        return {"heard": True}
    heard = [was for layer, was in known.items() if layer in left_out]
    if len(heard) != 1:
        return {"heard": not heard or any(heard)}
    alone = all(trains.get(layer, True) for layer in known if layer not in left_out)
    ran = window.history.layers("initialization", "forward_gain", context.start, window.step)
    seen = dict(zip(ran.layers, np.isfinite(ran.values[0]).tolist(), strict=True))
    without = [layer for layer, was in known.items() if not was and seen.get(layer)]
    return {"heard": any(heard) or not alone or len(without) < 2}


@dataclass(frozen=True, slots=True)
class _Still:
    """The layers that did not move: left out of the optimizers, cut off, or with no step."""

    left_out: tuple[str, ...]
    cut_off: tuple[str, ...]
    no_step: tuple[str, ...]
    trained: int
    aside: bool = False
    """Whether layers before those that are cut off get a gradient: then their outputs serve nothing."""

    @property
    def all(self) -> tuple[str, ...]:
        """Every one of them."""
        return (*self.left_out, *self.cut_off, *self.no_step)


def judge(window: Window, context: Context) -> Verdict:
    """Breach where weights that should train have not moved at all."""
    numbers = context.thresholds
    updates = window.layers("gradients", "update_sq", span=numbers.span, group="weight")
    known = np.flatnonzero(updates.known) if len(updates) else []
    if len(known) < 2:
        return unknown("fewer than 2 samples of the layers' steps")
    rates = window.samples("train", "lr", span=numbers.span).finite.values
    if not len(rates) or rates.min() <= numbers["decayed"] * context.facts.lr_peak:
        return unknown("the learning rate is zero, or at the end of its decay")
    still = _still(window, context, updates.values[known], updates.layers)
    often = len(known) >= numbers.min_samples
    often = often and updates.steps[known[-1]] - updates.steps[known[0]] >= numbers["steps"]
    if not often:  # what the run told of itself needs no further proof
        still = _Still(still.left_out, (), (), still.trained)
    if still.all:
        return breach(
            1.0 + len(still.all) / still.trained, _case(window, context, still), certain=True
        )
    if not often:
        return unknown(
            f"fewer than {numbers.min_samples} samples of the layers' steps, or over fewer than "
            f"{numbers['steps']:,.0f} steps"
        )
    return fine()


def _still(
    window: Window, context: Context, updates: np.ndarray, layers: tuple[str, ...]
) -> _Still:
    last = np.flatnonzero(updates[-1] == 0)  # next to always none
    stood = last[(updates[:, last] == 0).all(axis=0)].tolist() if len(last) else []
    if not stood:
        return _Still((), (), (), 1)
    gradients = window.layers("gradients", "grad_sq", span=context.thresholds.span, group="weight")
    told: dict[str, list[bool]] = {}
    for entry in context.meta.parameters:
        if entry.get("requires_grad", True) and int(entry.get("ndim") or 0) > 1:
            told.setdefault(str(entry["layer"]), []).append(bool(entry.get("optimized", True)))
    left_out, cut_off, no_step = [], [], []
    ran, looked_at = _ran(window)
    for i in stood:
        layer = layers[i]
        if layer not in told:
            continue
        seen = (
            gradients.values[:, gradients.layers.index(layer)] if layer in gradients.layers else []
        )
        if not any(told[layer]):
            # a teacher, or a copy that is set from time to time: it does not run as what is trained does
            runs = layer in ran or layer not in looked_at
            if runs and context.memory.get("heard", True):
                left_out.append(layer)
        elif np.isnan(seen).all():
            if layer in ran:  # a head that is not in use runs no more than it trains
                cut_off.append(layer)
        elif (np.asarray(seen) > 0).any() and _would_move(window, context, layer):
            no_step.append(layer)
    trained = max(len(told), 1)
    aside = not (left_out or no_step) and 0 < len(cut_off) <= FEW * trained
    aside = aside and _hears_before(window, context, cut_off[0])
    return _Still(tuple(left_out), tuple(cut_off), tuple(no_step), trained, aside)


def _hears_before(window: Window, context: Context, layer: str) -> bool:
    """Tell whether some layer before this one gets a gradient, by the order in which they are defined."""
    squares = window.layers("gradients", "grad_sq", span=context.thresholds.span, group="weight")
    if layer not in squares.layers:
        return False
    return bool((squares.values[:, : squares.layers.index(layer)] > 0).any())


def _would_move(window: Window, context: Context, layer: str) -> bool:
    """Tell whether a step of its learning rate is large enough to change float32 weights."""
    read = {
        name: window.layers("gradients", name, count=1, group="weight")
        for name in ("grad_sq", "weight_sq", "numel")
    }
    gradient, weight, numel = (
        float(found.values[0][found.layers.index(layer)]) for found in read.values()
    )
    rate = _least_rate(window, context, layer)
    step = rate * math.sqrt(numel if context.adaptive else gradient)
    return weight > 0 and step / math.sqrt(weight) > context.thresholds["rounding"]


def _least_rate(window: Window, context: Context, layer: str) -> float:
    """Return the lowest rate that the layer's group of parameters had: zero holds a layer on purpose."""
    rows = context.meta.parameters
    groups = {str(row["group"]) for row in rows if row.get("layer") == layer and "group" in row}
    columns = [
        window.samples("train", f"lr/{group}", span=context.thresholds.span).finite.values
        for group in sorted(groups)
    ]
    lowest = [float(rates.min()) for rates in columns if len(rates)]
    return min(lowest, default=current_rate(window, context))


def _ran(window: Window) -> tuple[set[str], set[str]]:
    """Return the layers whose outputs were seen in a forward pass, and those that were looked at."""
    numels = window.layers("activations", "numel", count=20)
    if not len(numels):
        return set(), set()
    seen = np.atleast_1d((np.nan_to_num(numels.values) > 0).any(axis=0))
    return {layer for layer, was in zip(numels.layers, seen, strict=True) if was}, {*numels.layers}


def _case(window: Window, context: Context, still: _Still) -> Case:
    layers = still.all
    names = [
        str(entry["name"])
        for entry in context.meta.parameters
        if entry.get("layer") in layers and entry.get("requires_grad", True)
    ]
    why = {
        "left_out": "no optimizer holds it",
        "cut_off": "it runs, and no gradient comes back to it: something cuts it off (detach, "
        "no_grad, numbers taken out of the graph)",
        "no_step": "it has a gradient, and no step follows",
    }
    reason = why["left_out" if still.left_out else "cut_off" if still.cut_off else "no_step"]
    step = window.last_step("gradients")
    return Case(
        title=f"{listing(layers, 2)} should train and never move{'s' * (len(layers) == 1)}",
        why="It stays as it was drawn, and all the others learn around it.",
        because=(
            Evidence(
                f"weights the same to the last bit in every sample: {reason}",
                "gradients",
                f"update_sq/{layers[0]}",
                step,
                0.0,
                0.0,
            ),
            Evidence(f"{count(len(layers), 'layer')} of {still.trained} that want a gradient"),
        ),
        recommendation=_cut_off(names)
        if not still.left_out and still.cut_off
        else _left_out(window, context, names),
        may_be_normal="Left out on purpose: requires_grad=False says so, and saves their backward "
        "pass; a teacher or a loss network that shall not learn; a branch whose outputs nothing uses, as "
        "that of the last of several blocks.",
        severity="info" if still.aside else "critical" if len(layers) >= still.trained else None,
        layers=layers,
        onset=context.start + 1,
    )


def _cut_off(names: list[str]) -> Recommendation:
    return Recommendation(
        parameter="inspect",
        current=None,
        proposed=names,
        basis="from your run",
        formula="parameters in an optimizer that run and never get a gradient",
        snippet="# look for .detach(), .data, .item(), torch.no_grad() or a new tensor made "
        "from numbers\n# between these parameters and the loss",
        effect="the gradient reaches these layers",
        verify="their gradient and step are no longer zero in the next sample",
        risk="none where it was a slip; a target network is meant to be cut off",
    )


def _left_out(window: Window, context: Context, names: list[str]) -> Recommendation:
    in_place = own_loop(context) or huggingface(context)
    whole = len(context.meta.optimizers) == 1 and not (in_place or is_kept(context))
    net = "model" if in_place else "self"
    return Recommendation(
        parameter="params",
        current=[],
        proposed=names,
        basis="derived",
        formula="parameters that want a gradient and whose weights stayed the same to the last bit",
        snippet=optimizer_snippet(context, current_rate(window, context))
        if whole
        else (
            ""
            if in_place
            else "# in configure_optimizers, in front of its schedule: a list with a value for each group gets one more\n"
        )
        + f"optimizer.add_param_group({{'params': [p for n, p in {net}.named_parameters() "
        f"if n in {names!r}]}})",
        effect="these layers begin to learn",
        verify="their step is no longer zero in the next sample",
        risk="if they were left out on purpose, set requires_grad=False instead",
    )
