"""Evidence: the recorded series behind what a finding says was seen, with thresholds and onset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from ..store import Series, Store
from ..store.schemas import Json, plain

POINTS = 240
"""Rows of a chart: about the pixels that it is wide."""
FEW = 8
"""Samples below which a chart is widened to the whole run: curvature is measured rarely."""
LINES = 6
"""Layers or ranks that are drawn one by one; of more, their median."""
CHARTS = 4
BACK = 200
"""Steps before the onset at least: what was usual is a part of the argument."""
DECADES = 30.0
"""From this ratio of the largest to the smallest value on, the axis is logarithmic."""

AMISS = 4.0
"""A value so many times beyond all that was recorded is none of the series."""

SQUARES = {"grad_sq": "grad_norm", "weight_sq": "weight_norm", "update_sq": "update_norm"}
"""Recorded squares, which are shown as the norms that people know."""

NAMES = {
    "loss": "Training loss",
    "grad_norm": "Gradient norm",
    "update_norm": "Length of an update",
    "update_ratio": "Size of an update against its weights",
    "grad_rms": "Gradient of a weight, root mean square",
    "edge_ratio": "Learning rate times sharpness, against the edge of stability",
    "dead": "Share of units that never fire",
    "saturated": "Share of saturated units",
    "rms": "Output, root mean square",
    "noise_scale": "Noise scale, in samples",
    "non_finite": "Values that are not finite",
    "lr": "Learning rate",
    "wait_seconds": "Seconds that a rank waits for the others",
    "data_seconds": "Seconds that a step waits for its data",
    "step_seconds": "Seconds a step",
    "compute_seconds": "Seconds that a rank computes",
    "samples_per_second": "Samples a second",
    "grad_cosine": "Cosine of consecutive gradients",
    "newton_gain": "Steps that curvature costs",
    "effective_rank": "Effective rank",
    "second_moment_ratio": "Gradients against the mean that Adam keeps of them",
    "val_loss": "Validation loss",
}
"""How a chart names a quantity; others are named by their words."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One quantity around a finding.

    `steps` int[n], `times` float[n] (epoch s), `values` n rows of one number a line, `lines` their
    names; `thresholds` in the unit of the values, `points` what was seen: [step, value].
    """

    family: str
    quantity: str
    title: str
    lines: list[str]
    steps: list[int]
    times: list[float]
    values: list[list[float]]
    thresholds: list[float] = field(default_factory=list)
    points: list[list[float]] = field(default_factory=list)
    log: bool = False
    whole: bool = False
    """Whether it shows the whole run, since too few samples lie around the finding."""

    def to_json(self) -> dict[str, Json]:
        """Return the chart as a JSON object; what is not finite as docs/shapes.md writes it."""
        return plain(asdict(self))


def evidence_charts(
    store: Store, run: str, finding: Mapping[str, Json], *, points: int = POINTS
) -> list[Chart]:
    """Return the charts behind a finding's evidence, at most CHARTS of them.

    Evidence on the same quantity shares a chart; what names no recorded column has none.

    Args:
        store: where the run lies.
        run: its id.
        finding: a finding as JSON.
        points: rows of a chart at most.

    Raises:
        UnknownRunError: there is no such run.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Json]]] = {}
    for item in finding["because"]:
        if item.get("family") and item.get("column"):
            key = (item["family"], _quantity(item["column"], finding))
            groups.setdefault(key, []).append(item)
    made = (
        _chart(store, run, finding, family, quantity, items, points)
        for (family, quantity), items in groups.items()
    )
    return [chart for chart in made if chart is not None][:CHARTS]


def title_of(quantity: str) -> str:
    """Return how a quantity is named over its chart.

    >>> title_of("dead"), title_of("input_std")
    ('Share of units that never fire', 'Input std')
    """
    words = quantity.replace("_", " ").replace("/", " of ")
    return NAMES.get(quantity, words[:1].upper() + words[1:])


def _quantity(column: str, finding: Mapping[str, Json]) -> str:
    """Return a column's name without the finding's layer or rank that it ends in."""
    for layer in finding["layers"]:
        if column.endswith(f"/{layer}"):
            return column[: -len(layer) - 1]
    for rank in finding["ranks"]:
        if column.endswith(f"@{rank}"):
            return column[: -len(str(rank)) - 1]
    return column


def _chart(
    store: Store,
    run: str,
    finding: Mapping[str, Json],
    family: str,
    quantity: str,
    items: Sequence[Mapping[str, Json]],
    points: int,
) -> Chart | None:
    columns = list(dict.fromkeys(str(item["column"]) for item in items))
    if any(name == f"{quantity}@{rank}" for name in columns for rank in finding["ranks"]):
        columns = [quantity]  # of every rank: one is slow only beside the others
    first, last = int(finding["first_step"]), int(finding["last_step"])
    back = max(BACK, (last - first) // 2)
    ahead = None if finding["state"] == "firing" else last + back
    start = max(1, first - back)
    attempt = int(finding["attempt"])
    read = store.read(run, family, columns, start, ahead, points, attempt=attempt)
    whole = len(read) < FEW and start > 1
    if whole:
        read = store.read(run, family, columns, points=points, attempt=attempt)
    if not len(read) or not np.isfinite(read.values).any():
        return None
    lines, values = _lines(read, finding)
    items = [item for item in items if _belongs(item["value"], read)]
    shown = np.array([item["threshold"] for item in items if _number(item["threshold"])], float)
    seen = [
        [float(item["step"]), float(item["value"])]
        for item in items
        if _number(item["step"]) and _number(item["value"]) and _number(item["threshold"])
    ]
    lines = [_short(name, quantity) for name in lines]
    if quantity in SQUARES:
        values, shown = _root(values), _root(shown)
        seen = [[step, float(_root(np.array(value)))] for step, value in seen]
        quantity = SQUARES[quantity]
    return Chart(
        family=family,
        quantity=quantity,
        # beside the chart of the whole net's, which has that name
        title=title_of(quantity)
        + (" by layer" if (family, quantity) == ("gradients", "grad_norm") else ""),
        lines=lines,
        steps=read.steps.tolist(),
        times=np.nan_to_num(read.times, posinf=0, neginf=0).round(3).tolist(),
        values=[[float(f"{value:.5g}") for value in row] for row in values.tolist()],
        thresholds=sorted({float(f"{value:.5g}") for value in shown.tolist()}),
        points=seen,
        log=_wide(values, shown),
        whole=whole,
    )


def _lines(read: Series, finding: Mapping[str, Json]) -> tuple[list[str], np.ndarray]:
    """Return the lines of a chart: the columns, those of ranks apart, or the median of many."""
    values = read.values.astype(np.float64)
    if len(read.columns) <= LINES:
        return list(read.columns), values
    known = [i for i, name in enumerate(read.columns) if _named(name, finding)][: LINES - 1]
    middle = np.full(len(values), np.nan)
    measured = np.isfinite(values).any(axis=1)
    finite = np.where(np.isfinite(values), values, np.nan)
    middle[measured] = np.nanmedian(finite[measured], axis=1)
    names = [f"median of {len(read.columns)}", *(read.columns[i] for i in known)]
    return names, np.column_stack([middle, values[:, known]])


def _short(line: str, quantity: str) -> str:
    """Return a line's name without what the chart's title says already: the layer, the rank.

    >>> _short("dead/features.3", "dead"), _short("step_seconds@2", "step_seconds")
    ('features.3', 'rank 2')
    """
    rest = line.removeprefix(quantity)
    if rest == line:
        return line.replace("_", " ")
    if rest.startswith("@"):
        return f"rank {rest[1:]}"
    return rest.removeprefix("/") or SQUARES.get(quantity, quantity).replace("_", " ")


def _named(column: str, finding: Mapping[str, Json]) -> bool:
    ends = [f"/{layer}" for layer in finding["layers"]] + [f"@{rank}" for rank in finding["ranks"]]
    return any(column.endswith(end) for end in ends)


def _belongs(value: Json, read: Series) -> bool:
    """Tell whether what was seen is a value of the series, and not a ratio or a share made of it.

    The threshold of such a one would be a line among numbers of another kind.
    """
    if not _number(value):
        return True
    finite = [table[np.isfinite(table)] for table in (read.values, read.low, read.high)]
    every = np.concatenate(finite).astype(np.float64)
    least, most = float(every.min()), float(every.max())
    room = (AMISS - 1) * max(abs(least), abs(most)) if least <= 0 else 0.0
    return (
        (least - room if least <= 0 else least / AMISS) <= value <= max(most * AMISS, most + room)
    )


def _number(value: Json) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


def _root(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.sqrt(values)


def _wide(values: np.ndarray, thresholds: np.ndarray) -> bool:
    """Tell whether the values in sight, or they and a threshold, lie decades apart."""
    finite = values[np.isfinite(values)]
    every = np.concatenate(
        [np.quantile(finite, [0.02, 0.98]) if len(finite) else finite, thresholds]
    )
    if not len(every) or every.min() <= 0 or finite.min() <= 0:
        return False
    return bool(every.max() / every.min() > DECADES)
