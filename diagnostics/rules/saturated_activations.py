"""Activations lie in their flat tails, where no gradient passes.

What: more than half of a layer's inputs where the activation's slope is under 5 % of its largest
(tanh beyond 2.18, sigmoid beyond 4.36; nine in ten in the negative tails of GELU, SiLU and ELU, where it is
known to be one), in the last samples, while the weights before it get less than a tenth of the share of the
gradient that they began with, or the loss has not fallen: after 100 steps where it began there, after 300
where it came to it, since such a net may stand for a while and go on. ReLUs (dead units), the last layer's activation and gates do not count.
Why: in the tails the output no longer depends on the input, so that the layers before hear nothing
of the loss.
Source: Glorot and Bengio 2010; measured: tanh with deviation 1 has 65 to 80 % there, healthy nets 0 to
2 %.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import current_rate, lower_rate
from ..as_drawn import Drawn
from ..facts import learned
from ..initialization import as_code, can_be_drawn, drawn_anew, is_one_sided
from ..medians import nan_median
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import LayerSamples, Table, Window
from ..words import listing, number, percent
from .bad_initialization import to_draw

FAMILY = "train"
FROM_START = True
GATES = ("gate", "lstm", "gru", "attn", "attention")


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep each layer's share of the gradient in the first samples, and the first saturation."""
    found = None if "began" in context.memory else _saturated(window, context.thresholds.span)
    if "shares" in context.memory and found is None:
        return context.memory  # type: ignore[return-value]  # as it was
    kept: dict[str, Json] = dict(context.memory)
    if "shares" not in kept:
        shares = _gradient_shares(window)
        if len(shares):
            kept["shares"] = {layer: float(f"{share:.3g}") for layer, share in shares.items()}
    if found is not None:
        kept["began"] = {
            site: float(f"{share:.3g}")
            for site, share in zip(found.sites, found.shares[0], strict=True)
            if math.isfinite(share)
        }
    return kept


@dataclass(frozen=True, slots=True)
class _Saturated:
    """Saturated shares [samples, sites], and the layer with weights that runs before each site."""

    steps: np.ndarray
    shares: np.ndarray
    sites: tuple[str, ...]
    before: tuple[str | None, ...]


def judge(window: Window, context: Context) -> Verdict:
    """Breach where most of a layer is saturated and it costs the layers before their gradient."""
    numbers = context.thresholds
    found = _saturated(window, numbers.span)
    if found is None and window.last_step("activations") < 0:
        return unknown("the layers' outputs were not looked at yet")
    if found is None:
        return unknown("no activation that saturates was seen")
    if len(found.steps) < numbers.min_samples:
        return unknown(f"fewer than {numbers.min_samples} samples of the activations")
    share = np.median(found.shares[-numbers.window :], axis=0)
    # of GELU and its kin the negative tail alone is flat, and half of the inputs may well lie there
    sided = np.array([is_one_sided(site, context) for site in found.sites])
    limit = np.where(sided, numbers["one_sided"], numbers.fire)
    strength = np.where(np.isfinite(share), share, 0.0) / limit
    worst = float(strength.max())
    if worst <= 1:
        return fine(worst)
    bad = np.flatnonzero(strength > 1)
    starved = [int(i) for i in bad if _starved(window, context, found.before[i])]
    began = context.memory.get("began") or {}
    born = any(began.get(found.sites[i], 0.0) > limit[i] for i in bad)
    # what is in its tails since some step only is where many a net stands for a while and goes on from
    settled = window.step - context.start > numbers["settle" if born else "settle_later"]
    flat = settled and not learned(window, context.facts, numbers["flat"])
    if not starved and not flat:
        return fine(0.6)  # a net may learn with what is left
    order = sorted(bad.tolist(), key=lambda i: -strength[i])
    return breach(worst, _case(window, context, found, order, share))


def _saturated(window: Window, span: int) -> _Saturated | None:
    table = window.history.tables.get("activations")
    gradients = window.history.tables.get("gradients")
    if table is None:
        return None
    names = [table.of_layers(name, None)[1] for name in ("saturated", "numel", "dead", "sum_sq")]
    names.append(gradients.of_layers("weight_sq", "weight")[1] if gradients else ())
    sites = window.history.once("saturated_activations.sites", names, lambda: _sites(table, *names))
    if not sites:
        return None
    counts = window.layers("activations", "saturated", span=span)
    numels = window.layers("activations", "numel", span=span)
    if not len(counts):
        return None
    return window.history.once(
        "saturated_activations", (counts, numels, sites), lambda: _shares(sites, counts, numels)
    )


@dataclass(frozen=True, slots=True)
class _Site:
    """Where an activation stands among the counts and among the sizes, and the weights before it."""

    name: str
    count: int
    numel: int
    before: str | None


def _sites(
    table: Table,
    counted: tuple[str, ...],
    sized: tuple[str, ...],
    firing: tuple[str, ...],
    outputs: tuple[str, ...],
    weighted: tuple[str, ...],
) -> list[_Site]:
    """Return the activations that can saturate: no gates, none that can die, none behind the last."""
    both = set(outputs) & set(weighted)
    order, numel_of = table.layer_order(), {layer: place for place, layer in enumerate(sized)}
    inner = [layer for layer in order if layer in both]
    last = order[inner[-1]] if inner else -1
    places = [order[layer] for layer in inner]
    found = []
    for place, site in enumerate(counted):
        behind = order[site] > last >= 0 and "()" not in site
        gate = any(word in site.lower() for word in GATES)
        if site in firing or behind or gate or site not in numel_of:
            continue
        earlier = bisect.bisect_left(places, order[site])
        before = inner[earlier - 1] if earlier and "()" not in site else None
        found.append(_Site(site, place, numel_of[site], before))
    return found


def _shares(sites: list[_Site], counts: LayerSamples, numels: LayerSamples) -> _Saturated | None:
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = [counts.values[:, s.count] / numels.values[:, s.numel] for s in sites]
    shares = np.stack(columns, axis=1)
    known = np.isfinite(shares).any(axis=1)
    if not known.any():
        return None
    names, before = tuple(s.name for s in sites), tuple(s.before for s in sites)
    return _Saturated(counts.steps[known], shares[known], names, before)


def _gradient_shares(window: Window) -> dict[str, float]:
    """Return each layer's part of the squared gradient, median of the last three samples."""
    squares = window.layers("gradients", "grad_sq", count=3, group="weight")
    if not len(squares):
        return {}
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = squares.values / np.nansum(squares.values, axis=1, keepdims=True)
    known = np.isfinite(parts).any(axis=0)
    if not known.any():
        return {}
    middle = np.full(parts.shape[1], np.nan)
    middle[known] = nan_median(parts[:, known])
    return {
        layer: float(part)
        for layer, part in zip(squares.layers, middle, strict=True)
        if math.isfinite(part)
    }


def _starved(window: Window, context: Context, layer: str | None) -> bool:
    began = (context.memory.get("shares") or {}).get(layer)
    now = _gradient_shares(window).get(layer or "")
    return bool(began and now is not None and now < context.thresholds["lost"] * began)


def _case(
    window: Window, context: Context, found: _Saturated, order: list[int], share: np.ndarray
) -> Case:
    sites = [found.sites[i] for i in order]
    worst = order[0]
    began = (context.memory.get("began") or {}).get(sites[0])
    born = began is not None and began > context.thresholds.fire
    text = f"{percent(float(share[worst]))} of the inputs of `{sites[0]}` lie in its flat tails"
    if began is not None:
        text += f" ({percent(began)} at the first sample)"
    step = int(found.steps[-1])
    because = [
        Evidence(
            text,
            "activations",
            f"saturated/{sites[0]}",
            step,
            float(share[worst]),
            context.thresholds.fire,
        )
    ]
    layers = [layer for i in order if (layer := found.before[i]) is not None]
    advice = (_redrawn(window, context, layers) or _as_kept(window, context)) if born else None
    if advice is None:
        advice = lower_rate(window, context, rollback_before=None if born else step)
        advice.effect = "steps no longer throw the activations into their tails"
        advice.verify = "fewer than a third saturated after 200 steps, and the loss falls"
        rate = current_rate(window, context)
        advice.also = [] if math.isfinite(rate) else advice.also
    return Case(
        title=f"Saturated: {listing(sites, 2)} pass{'es' * (len(sites) == 1)} on next to no gradient",
        why="In the tails the output no longer depends on the input: the layers before hear nothing "
        "of the loss.",
        because=tuple(because),
        recommendation=advice,
        may_be_normal="Outputs that shall be near their bounds: gates, a net that is done and sure.",
        layers=tuple(sites),
        onset=context.start + 1 if born else None,
    )


def _as_kept(window: Window, context: Context) -> Recommendation | None:
    """Return the advice to draw the weights that were drawn too large, None where those are not to blame.

    For a call of a function: which weights run before it is not known.
    """
    start = Drawn.of(window, context)
    if start is None or not start.times > context.thresholds["over"]:
        return None
    proposed = to_draw(start, context, grows=True)
    return drawn_anew(
        proposed,
        context,
        basis="derived",
        formula=f"the median layer was drawn with {number(start.times)} times what keeps the signal: "
        "sqrt(2 / (inputs + outputs)) does",
        effect="activations begin where their slope is largest",
        verify="fewer than a tenth saturated in the first samples",
        risk="starts again from the first step; a LayerNorm before the activation keeps it so",
    )


def _redrawn(window: Window, context: Context, layers: list[str]) -> Recommendation | None:
    """Return the deviation at which each layer's outputs have a root mean square of 1."""
    squares = window.layers("activations", "sum_sq", count=1)
    numels = window.layers("activations", "numel", count=1)
    weights = window.layers("gradients", "weight_sq", count=1, group="weight")
    counts = window.layers("gradients", "numel", count=1, group="weight")
    proposed: dict[str, dict[str, Json]] = {}
    current: dict[str, dict[str, Json]] = {}
    sizes, known = [], can_be_drawn(context)
    biases = {
        str(entry["layer"]): int(entry.get("numel") or 0)
        for entry in context.meta.parameters
        if entry.get("kind") == "bias"
    }
    for layer in layers:
        if (
            layer not in known
            or layer not in squares.layers
            or layer not in weights.layers
            or layer not in numels.layers
        ):
            continue
        size = squares.values[-1][squares.layers.index(layer)]
        size = math.sqrt(max(size / numels.values[-1][numels.layers.index(layer)], 0.0))
        place = weights.layers.index(layer)
        numel = counts.values[-1][place]
        std = math.sqrt(weights.values[-1][place] / numel)
        if not (math.isfinite(size) and size > 1 and std > 0):
            continue
        units = biases.get(layer, 0)
        # what inputs of size 1 come to; the rest are biases, which begin at zero when drawn anew
        own = max(std * math.sqrt(numel / units), 1.0) if units > 0 else size
        sizes.append(min(size, own))
        current[layer] = {"kind": "as drawn", "std": float(f"{std:.3g}")}
        proposed[layer] = {"kind": "xavier_normal", "std": float(f"{std / sizes[-1]:.3g}")}
    if not proposed:
        return None
    return Recommendation(
        parameter="weight_init",
        current=current,
        proposed=proposed,
        basis="derived",
        formula="deviation of the weights over the root mean square of what they give, "
        f"{number(max(sizes))} at most, and biases of zero: then it is 1, where the slope is large",
        snippet=as_code(proposed, context),
        effect="activations begin where their slope is largest",
        verify="fewer than a tenth saturated in the first samples",
        risk="starts again from the first step; a LayerNorm before the activation keeps it so",
    )
