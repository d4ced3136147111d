"""Charts as inline SVG: the loss with its events, and the heatmap of layers. No script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from .evidence import Chart
from .words import number

WIDTH = 860
LEFT = 56
RIGHT = 12
LEVELS = 4
"""Steps of colour on each side of the middle."""
MOST_ROWS = 60
MOST_CELLS = 160


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to mark at a step: an event or the onset of a finding."""

    step: int
    label: str
    kind: str = "event"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers between two bounds.

    >>> ticks(0, 10)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Return running medians over at most `width` values behind each one, NaN left out."""
    if not len(values) or width < 2:
        return values
    padded = np.concatenate([np.full(width - 1, np.nan), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    known = np.isfinite(windows).any(axis=1)
    made = np.full(len(values), np.nan)
    made[known] = np.nanmedian(
        np.where(np.isfinite(windows[known]), windows[known], np.nan), axis=1
    )
    return made


def loss_chart(
    steps: np.ndarray, losses: np.ndarray, marks: Sequence[Mark], *, span: tuple[int, int]
) -> str:
    """Return the loss over steps: raw and faded, the median of its surroundings over it."""
    height, top, bottom = 260, 16, 28
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return '<p class="quiet">No finite loss was recorded.</p>'
    line = smoothed(losses, max(len(losses) // 40, 1))
    # a blow-up of thirty decades would flatten all that came before it
    high = float(np.quantile(finite, 0.98)) * 1.08
    low = min(0.0, float(finite.min()))
    if high <= low:
        high = low + 1.0
    plot = _Plot(span, (low, high), height, top, bottom)
    parts = [plot.grid(), *(_mark(plot, i, mark) for i, mark in enumerate(marks))]
    parts.append(f'<path class="raw" d="{plot.path(steps, losses)}"/>')
    parts.append(f'<path class="line" d="{plot.path(steps, line)}"/>')
    title = f"Training loss, steps {span[0]:,} to {span[1]:,}"
    return _svg(height, title, parts)


def evidence_chart(chart: Chart, first: int, last: int) -> str:
    """Return a recorded series around a finding: threshold as a line, its steps shaded.

    `first` and `last` are the finding's steps; what was seen is marked by a ring.
    """
    height, top, bottom = 190, 22, 26
    values = np.asarray(chart.values, dtype=np.float64)
    size = np.log10 if chart.log else np.asarray
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = size(values)
    ends = _ends(drawn, np.asarray(size(np.asarray(chart.thresholds, dtype=np.float64))))
    steps = np.asarray(chart.steps)
    plot = _Plot((int(steps[0]), int(steps[-1])), ends, height, top, bottom)
    left, right = plot.x(max(first, plot.span[0])), plot.x(min(last, plot.span[1]))
    parts = [
        f'<path class="during" d="M{left:.1f} {top}H{max(right, left + 2):.1f}V{height - bottom}H{left:.1f}z"/>',
        plot.grid(exponents=chart.log),
    ]
    parts += [
        f'<path class="line l{place % 3}" d="{plot.path(steps, drawn[:, place])}"/>'
        for place in range(drawn.shape[1])
    ]
    for threshold in chart.thresholds:
        y = plot.y(float(size(threshold)))
        parts.append(f'<path class="threshold" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
    if first >= plot.span[0]:
        parts.append(_mark(plot, 0, Mark(first, f"step {first:,}", "finding")))
    for step, value in chart.points:
        if plot.span[0] <= step <= plot.span[1] and (value > 0 or not chart.log):
            x, y = plot.x(step), plot.y(float(size(value)))
            parts.append(f'<circle class="seen" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    names = ", ".join(chart.lines) if len(chart.lines) > 1 else ""
    limits = ", ".join(number(value) for value in chart.thresholds)
    said = [chart.title, *([names] if names else []), *([f"threshold {limits}"] if limits else [])]
    caption = f'<p class="quiet">{escape(" · ".join(said))}</p>'
    return caption + _svg(height, f"{chart.title} around step {first:,}", parts)


def _ends(drawn: np.ndarray, thresholds: np.ndarray) -> tuple[float, float]:
    finite = drawn[np.isfinite(drawn)]
    # a blow-up would flatten what came before it; the threshold is always in sight
    kept = np.concatenate([np.quantile(finite, [0.005, 0.98]) if len(finite) else [], thresholds])
    low, high = (float(kept.min()), float(kept.max())) if len(kept) else (0.0, 1.0)
    room = 0.08 * (high - low) or abs(high) or 1.0
    return low - room, high + room


def heatmap(
    steps: np.ndarray,
    values: np.ndarray,
    layers: Sequence[str],
    marks: Sequence[Mark],
    *,
    span: tuple[int, int],
) -> str:
    """Return layers over steps: robust z of each layer's log value against its own median."""
    if not len(steps) or not layers:
        return '<p class="quiet">No gradients per layer were recorded.</p>'
    shown = list(layers[:MOST_ROWS])
    z, edges = _cells(steps, values[:, : len(shown)], span)
    cell = 18 if len(shown) <= 24 else 12
    left = min(max(56, 7 * max(len(_short(name)) for name in shown) + 12), 220)
    top, bottom = 8, 26
    height = top + cell * len(shown) + bottom
    scale = (WIDTH - left - RIGHT) / max(span[1] - span[0], 1)
    usual = float(np.median(np.diff(edges)))
    paths: dict[str, list[str]] = {}
    for row in range(len(shown)):
        y = top + row * cell
        for column in range(z.shape[0]):
            x = left + (edges[column] - span[0]) * scale
            # where nothing was sampled for long, the picture stays empty
            w = min(edges[column + 1] - edges[column], 3 * usual) * scale
            paths.setdefault(_level(z[column, row]), []).append(
                f"M{x:.1f} {y}h{w + 0.3:.1f}v{cell - 1}h{-w - 0.3:.1f}z"
            )
    parts = [f'<path class="{name}" d="{"".join(d)}"/>' for name, d in sorted(paths.items())]
    parts += [
        f'<text class="tick" x="{left - 6}" y="{top + row * cell + cell / 2 + 4:.0f}" '
        f'text-anchor="end">{escape(_short(name))}</text>'
        for row, name in enumerate(shown)
    ]
    for step in ticks(*span):
        x = left + (step - span[0]) * scale
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{step:,.0f}</text>'
        )
    for mark in marks:
        if mark.kind == "finding":
            x = left + (mark.step - span[0]) * scale
            parts.append(f'<path class="mark" d="M{x:.1f} {top}V{height - bottom}"/>')
    return _svg(height, "Gradient size of each layer against its own past", parts)


def _cells(
    steps: np.ndarray, values: np.ndarray, span: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(values.astype(np.float64))
    broken = ~np.isfinite(values)
    zero = values == 0
    logs[~np.isfinite(logs)] = np.nan
    known = np.isfinite(logs).any(axis=0)
    middle, scale = np.zeros(logs.shape[1]), np.ones(logs.shape[1])
    quarters = np.nanquantile(logs[:, known], [0.25, 0.5, 0.75], axis=0)
    middle[known] = quarters[1]
    # at least a tenth of a decade, so that a still layer is not all noise
    scale[known] = np.maximum((quarters[2] - quarters[0]) / 1.349, 0.1)
    z = (logs - middle) / scale
    z[zero] = -9.0
    z[broken] = np.nan
    count = min(MOST_CELLS, len(steps))
    edges = np.linspace(span[0], span[1] + 1e-9, count + 1)
    place = np.clip(np.searchsorted(edges, steps, side="right") - 1, 0, count - 1)
    made = np.full((count, values.shape[1]), np.nan)
    for cell in np.unique(place):
        rows = z[place == cell]
        seen = np.isfinite(rows).any(axis=0)
        made[cell, seen] = np.nanmedian(rows[:, seen], axis=0)
    filled = np.isin(np.arange(count), place)
    keep = np.flatnonzero(filled)
    starts = edges[:-1][keep]
    return made[keep], np.concatenate([starts, edges[-1:]])


def _level(z: float) -> str:
    if not math.isfinite(z):
        return "zbad"
    level = int(np.clip(round(z / 1.0), -LEVELS, LEVELS))
    return f"z{'m' if level < 0 else 'p'}{abs(level)}"


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"…{name[-27:]}"


@dataclass(frozen=True, slots=True)
class _Plot:
    span: tuple[int, int]
    values: tuple[float, float]
    height: int
    top: int
    bottom: int

    def x(self, step: float) -> float:
        whole = max(self.span[1] - self.span[0], 1)
        return LEFT + (step - self.span[0]) / whole * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.values
        share = (min(max(value, low), high) - low) / (high - low)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def path(self, steps: np.ndarray, values: np.ndarray) -> str:
        parts: list[str] = []
        pen = "M"
        for step, value in zip(steps.tolist(), values.tolist(), strict=True):
            if not math.isfinite(value):
                pen = "M"
                continue
            parts.append(f"{pen}{self.x(step):.1f} {self.y(value):.1f}")
            pen = "L"
        return "".join(parts)

    def grid(self, *, exponents: bool = False) -> str:
        parts = []
        marks = ticks(*self.values, most=5)
        if exponents and self.values[1] - self.values[0] > 2:
            marks = [mark for mark in marks if mark == round(mark)]
        for value in marks:
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(
                f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(10**value if exponents else value)}</text>'
            )
        for step in ticks(*self.span):
            x = self.x(step)
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{self.height - 8}" text-anchor="middle">{step:,.0f}</text>'
            )
        return "".join(parts)


def _mark(plot: _Plot, place: int, mark: Mark) -> str:
    x = plot.x(mark.step)
    end = mark.step > (plot.span[0] + plot.span[1]) / 2
    anchor, shift = ("end", -5) if end else ("start", 5)
    y = plot.top + 10 + 15 * (place % 4)
    return (
        f'<path class="mark {mark.kind}" d="M{x:.1f} {plot.top}V{plot.height - plot.bottom}"/>'
        f'<text class="label {mark.kind}" x="{x + shift:.1f}" y="{y}" text-anchor="{anchor}">'
        f"{escape(mark.label)}</text>"
    )


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<div class="scroll"><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(parts)}</svg></div>'
    )
