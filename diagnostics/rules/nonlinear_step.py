"""The step is longer than the loss is simple: slope and curvature do not foretell where it lands.

What: in 3 of the last 5 scans along the update the parabola fails before one whole step, or the
median step of at least five lands on the other side of the valley higher than it began; and the loss
does not fall.
Why: where the local model fails, a longer step is a worse one, and the average of many is luck.
Source: Schneider et al. 2021 (Cockpit's step position); measured: a horizon of 1 to 16 steps in
healthy runs, 0.25 to 0.5 in runs whose learning rate blows up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ..advice import current_rate, rate_to
from ..progress import course
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import clip_snippet, tighter
from ..windows import Window
from ..words import count, number, rounded

FAMILY = "train"
SCANS = 5
MOST = 8.0
"""No rate is lowered by more than this factor for a horizon alone."""


@dataclass(frozen=True, slots=True)
class _Scans:
    """The last scans: their steps and horizons, and the median step position."""

    steps: np.ndarray
    horizons: np.ndarray
    position: float
    positions: int

    @property
    def short(self) -> int:
        """How many of the scans fail before one whole step."""
        return int((self.horizons < 1).sum())


def judge(window: Window, context: Context) -> Verdict:
    """Breach where scans fail within a step, or steps land too far, and the loss stands."""
    numbers = context.thresholds
    seen = _scans(window, context)
    if len(seen.steps) < numbers.min_samples:
        off = context.obstacles.why_off("landscape")
        if off is not None:
            return unknown(f"the loss is not scanned along steps: {off}")
        return unknown(
            f"the loss was scanned along {count(len(seen.steps), 'step')}, "
            f"{numbers.min_samples} are needed"
        )
    over = seen.positions >= SCANS and seen.position > numbers["position"]
    if seen.short < numbers.fire and not over:
        return fine(seen.short / numbers.fire)
    losses = window.samples("train", "loss", count=numbers.window, span=numbers.span).finite
    if len(losses) < numbers.window // 2:
        return unknown("too few losses since the windows began")
    trend = course(losses.steps, losses.values, int(numbers["block"]))
    if trend.improvement > numbers["falling"] and trend.z > 0:
        return fine(0.5)
    strength = max(seen.short / numbers.fire, seen.position if over else 0.0)
    return breach(strength, _case(window, context, seen, over, trend.improvement))


def _scans(window: Window, context: Context) -> _Scans:
    kept = [r for r in context.obstacles.readings.get("horizon", []) if r[0] > window.since]
    recent = np.array(kept[-SCANS:], dtype=float).reshape(-1, 2)
    positions = window.samples("landscape", "alpha", count=2 * SCANS).finite
    return _Scans(recent[:, 0].astype(int), recent[:, 1], positions.median, len(positions))


def _case(window: Window, context: Context, seen: _Scans, over: bool, improvement: float) -> Case:
    numbers = context.thresholds
    because = [
        Evidence(
            f"in {seen.short} of {count(len(seen.steps), 'scan')} slope and curvature foretell the "
            "loss for less than one step",
            "landscape",
            "horizon",
            int(seen.steps[-1]),
            float(np.median(seen.horizons)),
            1.0,
        )
    ]
    if over:
        text = f"the median of {seen.positions} steps lands on the other side of the valley, higher"
        limit = numbers["position"]
        because.append(Evidence(text, "landscape", "alpha", window.step, seen.position, limit))
    because.append(
        Evidence(
            f"the loss improved by {100 * improvement:.1f} % in {numbers.window} steps",
            "train",
            "loss",
            window.step,
            improvement,
            numbers["falling"],
        )
    )
    return Case(
        title="Steps are longer than the loss is simple",
        why="Where slope and curvature do not foretell the loss for one step, a longer step is a "
        "worse one.",
        because=tuple(because),
        recommendation=_advice(window, context, seen),
        may_be_normal="Single scans run wild near the floor of a valley; a loss that falls all the "
        "same.",
        onset=int(seen.steps[0]),
    )


def _advice(window: Window, context: Context, seen: _Scans) -> Recommendation:
    rate, thumb = current_rate(window, context), context.rates["thumb"]
    horizon = float(np.median(seen.horizons))
    derived = horizon < 1
    factor = max(horizon, 1 / MOST) if derived else thumb
    value = rounded(rate * factor)
    low, high = float(seen.horizons.min()), min(float(seen.horizons.max()), 1.0)
    return rate_to(
        context,
        rate,
        value,
        range=[rounded(rate * max(low, 1 / MOST)), rounded(rate * high)] if derived else None,
        basis="derived" if derived else "rule of thumb",
        formula=f"{number(rate)} × {number(factor)}, "
        + ("the share of a step that the parabola holds for" if derived else "as steps overshoot"),
        effect="a step stays where slope and curvature foretell the loss",
        verify="the parabola holds for a whole step in the next scans, and the loss falls",
        risk="slower along directions that are straight",
        alternatives=_clip(window, context),
    )


def _clip(window: Window, context: Context) -> list[dict[str, object]]:
    squares = window.samples("train", "grad_sq", count=100).finite.values
    if len(squares) < context.thresholds["few_norms"] or context.adaptive:
        return []
    value = rounded(float(np.quantile(np.sqrt(squares), context.thresholds["clip_quantile"])))
    if not tighter(context, value):
        return []
    return [
        {
            "parameter": "gradient_clip_val",
            "current": context.meta.gradient_clip_val,
            "proposed": value,
            "basis": "from your run",
            "formula": f"the norm that nine in ten of the last {len(squares)} steps stayed under",
            "snippet": clip_snippet(context, value),
            "effect": "the one step in ten that is longest is cut to a usual length",
            "verify": "the parabola holds for a whole step in the next scans, and the loss falls",
            "risk": "steps of a usual length stay as they are: where these are too long it changes little",
        }
    ]
