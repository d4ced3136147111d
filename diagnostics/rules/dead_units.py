"""Dead units: units of a layer that are zero for every sample.

What: more than half of a layer's units, or 40 points more than at the first sample, never
positive over at least 512 rows, in three samples in a row (three quarters, where a third was dead
from the start: behind a mean over many places half of the units are, as nothing tells them apart); one sample is enough where nine in ten
are dead and the loss has not fallen. Of those that were born dead some come back in the first 100
steps, and a net may learn without them: until then, and where it learned, only nine in ten count; fewer are told as information while the loss goes on
falling, unless half of all units are dead.
Layers of fewer than 16 units do not. Until 512 rows were seen: outputs far under zero, of weights whose
gradient is exactly zero in two samples while later layers, or the last bias alone, have one. Zero *activations* are not the signal: healthy nets reach 61 %.
Those that were born dead are drawn anew: with biases of zero, and with the deviation that their weights had,
where that was sound.
Why: no output, no gradient: that capacity is gone, and no further training brings it back.
Source: measured on digits nets: healthy at most 27 % (59 % of the last of eight layers in the first
30 steps), bias −2 gives 92 to 100 %, Adam at 0.1
75 to 92 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json, Severity
from ..advice import best_basis, current_rate, lower_rate
from ..as_drawn import Drawn
from ..facts import learned, mostly_dead
from ..initialization import drawn_anew, he_normal
from ..progress import course
from ..ratios import update_ratios
from ..rule import Case, Context, Later, Verdict, breach, fine, unknown
from ..silent import Silent, silent_layers
from ..snippets import activation_snippet
from ..windows import Window
from ..words import count, listing, number, percent

FAMILY = "activations"
FROM_START = True
SEARCHED, LOSSES = 100, 200
BORN = 20
"""Steps within which units that are dead were so from the start."""
KEPT = (0.35, 1.5)
"""Weights that were drawn with so much of He's deviation are kept in size: it is their biases that were ill.
The framework's own draw has 0.41 of it, and the rate was found for that."""


@dataclass(frozen=True, slots=True)
class _Shares:
    """Dead shares, [samples, layers], of layers whose units can die."""

    steps: np.ndarray
    shares: np.ndarray
    units: np.ndarray
    rows: float
    layers: tuple[str, ...]


def judge(window: Window, context: Context) -> Verdict:
    """Breach where a layer has lost more than half of its units, or 40 points since the start."""
    numbers = context.thresholds
    found = _shares(window, numbers.window, numbers.span)
    counted = found is not None and found.rows >= numbers["samples"]
    silent = [] if counted else silent_layers(window, context, numbers.span, numbers["units"])
    if silent:
        return breach(1 / numbers.fire, _nothing_fires(window, context, silent), certain=True)
    if found is None:
        if window.last_step("activations") < 0:
            return unknown("the layers' outputs were not looked at yet")
        if not window.layers("activations", "dead").layers:
            return unknown("no layer has units that can die, as those of ReLU can")
        return unknown("no layer has been seen on enough samples yet")
    if found.rows < numbers["samples"]:
        return unknown(
            f"{found.rows:,.0f} rows seen, at least {numbers['samples']:,.0f} are needed"
        )
    now = found.shares[-1]
    began = context.facts.dead_start
    start = window.history.once(
        "dead_units.start",
        (found.layers, began, len(began)),
        lambda: np.array([began.get(layer, math.nan) for layer in found.layers]),
    )
    rise = now - np.where(np.isfinite(start), start, now)
    whole = learned(window, context.facts, numbers["learned"])
    if whole:
        rise = np.zeros_like(now)
    # half of a layer that was born so: its inputs are nearly the same for all samples, as behind a mean
    chance = np.nan_to_num(start) > numbers["rise"]
    share = np.where(chance, now * numbers.fire / numbers["born"], now)
    if whole or window.step - context.start <= numbers["settle"]:
        share = np.where(now >= numbers["certain"], now, 0.0)
        rise = np.where(now >= numbers["certain"], rise, 0.0)
    strength = np.fmax(share / numbers.fire, rise / numbers["rise"])
    # a handful of units is dead by chance: in a squeeze layer half of them are
    strength = np.where(found.units >= numbers["units"], strength, 0.0)
    bad = strength > 1
    worst = float(np.fmax.reduce(strength)) if np.isfinite(strength).any() else 0.0
    if not bad.any():
        return fine(worst)
    flat = not learned(window, context.facts, numbers["flat"])
    certain = bool((bad & (now >= numbers["certain"])).any()) and flat
    if certain:  # what is half dead beside it is mended with it
        bad = (now > numbers.fire) & (found.units >= numbers["units"])
    severity: Severity | None = "critical" if (now >= 0.999).any() else None
    part = not (now[bad] >= numbers["certain"]).any() and not mostly_dead(window, window.step)
    if part and _goes_on(window, context):
        severity = "info"
    dead = np.flatnonzero(bad)
    order = dead[np.argsort(-now[dead])]
    born = bool(start[order[0]] > numbers.fire)
    onset = context.start + 1 if born else None

    def made() -> Case:
        case = _case(window, context, found, order, start)
        return replace(case, severity=severity, onset=onset)

    return breach(worst, Later(made, best_basis(window, context), severity, onset), certain=certain)


def _goes_on(window: Window, context: Context) -> bool:
    """Tell whether the net learns with what it has left: its loss falls from window to window."""
    losses = window.samples("train", "loss", count=LOSSES, span=2 * LOSSES).finite
    if len(losses) < LOSSES // 2:
        return False
    trend = course(losses.steps, losses.values, LOSSES // 10)
    return trend.improvement > context.thresholds["goes_on"]


def _nothing_fires(window: Window, context: Context, silent: list[Silent]) -> Case:
    """Return the case of layers whose weights get a gradient of exactly zero."""
    worst = min(silent, key=lambda found: found.mean / max(found.std, 1e-12))
    names = [found.activation or found.layer for found in silent]
    spike, born = _spike(window, context), worst.step - context.start <= BORN
    several = f" in {count(len(silent), 'layer')}" if len(silent) > 1 else ""
    drawn = _soundly(window, context)
    return Case(
        title=f"Dead units{several}: none of `{names[silent.index(worst)]}` fires",
        why="No output, no gradient: nothing reaches these weights, nor those before them, and training "
        "on does not bring them back.",
        because=(
            Evidence(
                f"outputs of `{worst.layer}` lie at {number(worst.mean)}, within {number(worst.std)}: a "
                "ReLU lets nothing of them through",
                "activations",
                f"mean/{worst.layer}",
                worst.step,
                worst.mean,
                0.0,
            ),
            Evidence(
                "the gradient of its weights is exactly zero in each sample",
                "gradients",
                f"grad_rms/{worst.layer}",
                window.last_step("gradients"),
                0.0,
            ),
        ),
        recommendation=_drawn_anew(context, drawn, names)
        if born and drawn
        else _advice(window, context, names, None if born else spike),
        may_be_normal="Hardly ever: a part of the net that is switched off on purpose.",
        severity="critical",
        layers=tuple(names),
        not_measured=("share of dead units: fewer than 512 samples were seen so far",),
        onset=context.start + 1 if born else None,
    )


def _shares(window: Window, samples: int, span: int) -> _Shares | None:
    # rows are collected over several samples, and most of those hold no count of dead units yet
    dead = window.layers("activations", "dead", count=SEARCHED, span=span)
    units = window.layers("activations", "units", count=SEARCHED, span=span)
    seen = window.layers("activations", "samples", count=SEARCHED, span=span)
    if dead.layers != units.layers:
        return None
    known = np.flatnonzero(dead.known)[-samples:]
    if not len(known):
        return None
    whole = np.where(units.values[known] > 0, units.values[known], np.nan)
    rows = float(np.fmin.reduce(seen.values[known[-1]])) if seen.values.size else math.nan
    return _Shares(dead.steps[known], dead.values[known] / whole, whole[-1], rows, dead.layers)


def _case(
    window: Window, context: Context, found: _Shares, order: np.ndarray, start: np.ndarray
) -> Case:
    now = found.shares[-1]
    layers = [found.layers[i] for i in order]
    worst = int(order[0])
    dead, units = round(float(now[worst] * found.units[worst])), int(found.units[worst])
    lost = float(np.nansum(now * found.units) / np.nansum(found.units))
    text = f"no output on any of {found.rows:,.0f} samples"
    if math.isfinite(start[worst]):
        text += f" ({round(float(start[worst]) * units)} of {units} at the first sample)"
    because = [
        Evidence(
            text,
            "activations",
            f"dead/{layers[0]}",
            int(found.steps[-1]),
            float(now[worst]),
            context.thresholds.fire,
        ),
    ]
    spike = _spike(window, context)
    born = bool(start[worst] > context.thresholds.fire)
    if spike is not None and not born:
        step, size = spike
        text = f"a step of {percent(size)} of the weights at step {step:,} came before"
        limit = context.thresholds["update_spike"]
        because.append(Evidence(text, "gradients", "update_ratio", step, size, limit))
    several = f" in {count(len(layers), 'layer')}" if len(layers) > 1 else ""
    return Case(
        title=f"Dead units{several}: {dead} of {units} in `{layers[0]}` never fire",
        why="No output, no gradient: that capacity is gone, and training on does not bring it back. "
        f"{percent(1 - lost)} of the units that were looked at are left.",
        because=tuple(because),
        recommendation=_advice(window, context, layers, None if born else spike),
        may_be_normal="Sparse by design, pruned, or a mixture of experts; many zero activations "
        "alone are fine.",
        layers=tuple(layers),
    )


def _spike(window: Window, context: Context) -> tuple[int, float] | None:
    """Return step and size of the largest step over the limit, None where there is none."""
    limit = context.thresholds["update_spike"]
    if context.facts.update_peak > limit:
        return context.facts.update_peak_step, context.facts.update_peak
    steps, ratios = update_ratios(window.history, window.since, window.step)
    if len(ratios) and float(ratios.max()) > limit:
        top = int(np.argmax(ratios))
        return int(steps[top]), float(ratios[top])
    return None


def _advice(
    window: Window, context: Context, layers: list[str], spike: tuple[int, float] | None
) -> Recommendation:
    if spike is not None:
        advice = lower_rate(window, context, rollback_before=spike[0])
        advice.effect = "steps no longer throw units out of reach of every sample"
        advice.verify = "fewer than a quarter of the units dead after 200 steps"
        return advice
    drawn = _soundly(window, context)
    if len(layers) > 1 and drawn:
        return _drawn_anew(context, drawn, layers)
    rate = current_rate(window, context)
    return Recommendation(
        parameter="activation",
        current=dict.fromkeys(layers, "ReLU"),
        proposed=dict.fromkeys(layers, "LeakyReLU"),
        basis="rule of thumb",
        formula="a unit with a slope on its negative side passes a gradient and can come back",
        snippet="\n".join(
            activation_snippet(layer, "LeakyReLU(0.01)", "leaky_relu(x, 0.01)") for layer in layers
        ),
        effect=f"{listing(layers)} can learn again at the same learning rate ({number(rate)})",
        verify="no dead units in the next sample, and the loss falls",
        risk="dense activations cost a sparse model its sparsity",
    )


def _soundly(window: Window, context: Context) -> dict[str, dict[str, Json]]:
    """Return how to draw every layer but the last: as it was, where that was sound, else by its fan-in."""
    drawn, start = he_normal(context), Drawn.of(window, context)
    if start is None:
        return drawn
    low, high = KEPT
    for layer, std in zip(start.layers, start.std.tolist(), strict=True):
        usual = float(drawn[layer]["std"]) if layer in drawn else math.nan
        if low * usual < std < high * usual:
            drawn[layer] = {"kind": "kaiming_normal", "std": float(f"{std:.3g}")}
    return drawn


def _drawn_anew(
    context: Context, drawn: dict[str, dict[str, Json]], layers: list[str]
) -> Recommendation:
    return drawn_anew(
        drawn,
        context,
        basis="rule of thumb",
        formula="standard deviation as it was drawn, or sqrt(2 / fan-in) where that is far off, and "
        "biases of zero: half of the units fire on any sample",
        effect=f"{listing(layers)} begin with units that fire",
        verify="fewer than a quarter of the units dead after 200 steps, and the loss falls",
        risk="starts again from the first step; weights that were loaded would be lost",
    )
