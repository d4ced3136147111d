"""The delta answer: everything that a Run page shows and its cursor does not have yet."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from ..diagnostics import summary
from ..store import ConfigError, Meta, RunInfo, Schema, Series, Store, StreamName
from ..store.deriving import needs, written
from ..store.schemas import FAMILY_ORDER, dumps, family_order, plain
from .cursor import DIGEST, Cursor
from .numbers import as_json
from .ranks import rank_rows

QUANTITIES = {
    "gradient": ("gradients", "grad_rms"),
    "update": ("gradients", "update_ratio"),
    "saturated": ("activations", "saturated"),
    "dead": ("activations", "dead"),
    "output": ("activations", "rms"),
    "entropy": ("activations", "entropy"),
    "rank": ("activations", "effective_rank"),
}
"""What the heatmap and the strips can show of each layer: family and quantity."""

PAGES = ("run", "findings", "curvature", "noise")
"""Which page of a run asks: each gets the families that it shows."""

SHOWN = {
    "run": {"train": None, "validation": None, "curvature": ("edge_ratio",)},
    "findings": {"train": ("loss", "samples"), "validation": None},
    "curvature": {
        "train": ("loss", "samples", "lr"),
        "gradients": ("grad_cosine",),
        "curvature": None,
        "landscape": None,
        "density": None,
    },
    "noise": {"train": ("loss", "samples", "lr"), "noise": None, "tail_index": None},
}
"""By page, the families whose columns of the whole run it shows, and which quantities of them (None:
all). The Run page has the layers besides, and every family that no page knows."""

KNOWN = {*FAMILY_ORDER, *(family for families in SHOWN.values() for family in families)}
"""Families that some page knows; of all others the Run page shows every column."""

DERIVED_OF_THE_RUN = {
    "train": {"grad_norm": "grad_sq"},
    "noise": dict.fromkeys(("gradient_sq", "trace", "noise_scale", "low", "high"), "small_sq"),
}
"""By family, what is derived of a recorded quantity and shown with it."""

OTHERS = 96
"""Columns of an unknown family in an answer."""

SCALAR_POINTS = 1000
LAYER_POINTS = 300
LAYER_CELLS = 30_000
LAYERS = 512
EVENTS = 1000
DIGITS = 6
LAYER_DIGITS = 3
"""Caps of one answer: a run of 200 layers stays near 300 kB (compressed)."""

JUDGEMENT = ("state", "verdict", "obstacles", "judged", "not_judged", "findings")

UNSHOWN = ("epoch",)
"""Kinds of events that the page has no use for: `train` has a column of the epoch."""

SILENT_SECONDS = 30.0
"""A rank without a heartbeat for so long, against the latest of all, holds nobody up."""

Json = Any


@dataclass(frozen=True, slots=True)
class Query:
    """What a page asks for: which page it is, how many points, and which quantity of the layers."""

    quantity: str = "gradient"
    page: str = "run"
    points: int = SCALAR_POINTS
    layer_points: int = LAYER_POINTS

    def __post_init__(self) -> None:
        if self.page not in PAGES:
            raise ConfigError(f"page must be one of {', '.join(PAGES)}, got {self.page[:40]!r}")
        if self.quantity not in QUANTITIES:
            raise ConfigError(
                f"quantity must be one of {', '.join(QUANTITIES)}, got {self.quantity[:40]!r}"
            )


@dataclass(frozen=True, slots=True)
class _Part:
    """The columns of one family that an answer holds, and the layer of each (None: of the run)."""

    family: str
    columns: tuple[str, ...]
    layers: tuple[str | None, ...]


def delta(
    store: Store,
    run: str,
    since: str = "",
    query: Query | None = None,
    *,
    clock: Callable[[], float] = time.time,
) -> dict[str, Json]:
    """Return the delta answer of docs/shapes.md as plain JSON values.

    Concatenated, the answers to a chain of cursors equal one full read, as long as a full read is
    not reduced to fewer points. `reset` tells the page to drop what it has: at the first answer,
    and where the cursor cannot be continued. The judgement's keys (`state` to `findings`) are left
    out while they are as the cursor's answer had them. A family that had to be reduced has the keys
    `low` and `high` beside `values`: the extremes of what a row stands for.

    Raises UnknownRunError, ConfigError for an id that is none, StoreError where nobody answers.
    """
    query = query or Query()
    info, meta = store.run(run), store.meta(run)
    streams, schemas = store.home.streams(run), store.home.schemas(run)
    parts = _parts(schemas.values(), query)
    begun = {stream.family for stream in streams if stream.attempt == info.attempt}
    # a family that the latest attempt has yet to begin may begin at a smaller step than the page has
    digests = {part.family: _digest(part, part.family in begun) for part in parts}
    shape = _digest(info.id, info.attempt, query)
    cursor = Cursor.decode(since)
    reset = cursor is None or not _continues(cursor, shape, digests)
    if cursor is None or reset:
        cursor = Cursor(shape)

    events = store.home.events(run, cursor.event)
    answer: dict[str, Json] = {
        "reset": reset,
        "run": _run_json(store, info, meta, streams, clock()),
        "events": [event.to_json() for _, event in events if event.kind not in UNSHOWN][-EVENTS:],
        "series": {},
    }
    if events:
        cursor.event = events[-1][0]
    answer |= _judgement(store, run, cursor)
    for part in parts:
        watermark = _watermark(store, run, streams, meta, part.family)
        rows = _series(store, run, part, cursor.steps.get(part.family), watermark, query)
        if rows is None:
            continue
        answer["series"][part.family] = rows
        cursor.parts[part.family] = digests[part.family]
        # a reduced row carries the first step of its bucket, the watermark the last
        cursor.steps[part.family] = max(rows["steps"][-1], watermark or 0)
    if answer["series"] and query.page == "run":
        answer["worst"] = _worst(store, info, streams)
    answer["cursor"] = cursor.encode()
    return answer


def _judgement(store: Store, run: str, cursor: Cursor) -> dict[str, Json]:
    """Return the judgement's keys where they are not as the cursor has them, and note it there.

    Of a finding that the page has already, only the id is sent.
    """
    judged = summary(store, run)
    texts = [dumps(finding) for finding in judged["findings"]]
    rest = {key: judged.get(key) for key in JUDGEMENT if key != "findings"}
    if "answers" in judged:
        rest["answers"] = judged["answers"]
    digest = _digest(dumps(rest), texts)
    if digest == cursor.judgement:
        return {}
    short = [base64.b64encode(blake2b(text.encode(), digest_size=6).digest()) for text in texts]
    digests = [made.decode()[:DIGEST] for made in short]
    findings = [
        found["id"] if cursor.has(made) else found
        for found, made in zip(judged["findings"], digests, strict=True)
    ]
    cursor.judgement, cursor.findings = digest, "".join(digests)
    return {**rest, "findings": findings}


def _parts(schemas: Iterable[Schema], query: Query) -> list[_Part]:
    recorded: dict[str, dict[str, Any]] = {}
    for schema in schemas:
        columns = recorded.setdefault(schema.family, {})
        for column in schema.columns:
            columns.setdefault(column.name, column)
    parts = []
    for family in sorted(recorded, key=family_order):
        columns = list(recorded[family].values())
        names = _names_of_the_run(family, columns, query.page)
        layers: list[str | None] = [None] * len(names)
        layer_family, quantity = QUANTITIES[query.quantity]
        if family == layer_family and query.page == "run":
            found = _layers(columns, needs(family, quantity))
            names += [written(quantity, layer) for layer in found]
            layers += found
        elif family not in KNOWN and query.page == "run":
            names = [column.name for column in columns][:OTHERS]
            layers = [column.layer for column in columns][:OTHERS]
        if names:
            parts.append(_Part(family, tuple(names), tuple(layers)))
    return parts


def _names_of_the_run(family: str, columns: Iterable[Any], page: str) -> list[str]:
    """Return the columns of a family that belong to no layer and that a page shows."""
    if family not in SHOWN[page]:
        return []
    quantities = SHOWN[page][family]
    chosen = [
        column
        for column in columns
        if column.layer is None and (quantities is None or column.quantity in quantities)
    ]
    names = [column.name for column in chosen]
    recorded = {column.quantity for column in chosen}
    derived = DERIVED_OF_THE_RUN.get(family, {})
    return names + [name for name, of in derived.items() if of in recorded and name not in names]


def _layers(columns: Iterable[Any], needed: tuple[str, ...]) -> list[str]:
    """Return the layers, in the model's order, of which all the needed quantities were recorded."""
    quantities: dict[str, set[str]] = {}
    for column in columns:
        if column.layer is not None:
            quantities.setdefault(column.layer, set()).add(column.quantity)
    return [layer for layer, had in quantities.items() if had.issuperset(needed)][:LAYERS]


def _continues(cursor: Cursor, shape: str, digests: dict[str, str]) -> bool:
    return cursor.shape == shape and all(
        digests.get(family) == digest for family, digest in cursor.parts.items()
    )


def _digest(*parts: Any) -> str:
    return blake2b(repr(parts).encode(), digest_size=6).hexdigest()


def _watermark(
    store: Store, run: str, streams: list[StreamName], meta: Meta, family: str
) -> int | None:
    """Return the step up to which every live rank has sent; None where the attempt has none yet."""
    latest = max(meta.heartbeat.values(), default=0.0)
    steps = []
    for stream in streams:
        if stream.family != family or stream.attempt != meta.attempt:
            continue
        silent = latest - meta.heartbeat.get(str(stream.rank), latest) > SILENT_SECONDS
        last = store.home.last_id(run, stream)
        if last is not None and (stream.rank == 0 or not silent):
            steps.append(last[0])
    return min(steps) if steps else None


def _series(
    store: Store, run: str, part: _Part, last: int | None, watermark: int | None, query: Query
) -> dict[str, Json] | None:
    """Return the rows of a family after the step `last` up to the watermark; None without any."""
    if last is not None and watermark is not None and watermark <= last:
        return None
    of_layers = any(layer is not None for layer in part.layers)
    count = len(part.columns)
    points = query.layer_points if of_layers else query.points
    points = max(1, min(points, LAYER_CELLS // count))
    start = None if last is None else last + 1
    rows = store.read(
        run,
        part.family,
        list(part.columns),
        start=start,
        stop=watermark,
        points=points,
    )
    if len(rows) == 0:
        return None
    body: dict[str, Json] = {
        "columns": list(part.columns),
        "layers": list(part.layers),
        "steps": rows.steps.tolist(),
        "times": np.round(np.nan_to_num(rows.times, posinf=0, neginf=0), 3).tolist(),
    }
    names: dict[str, int] = {}
    for place, name in enumerate(rows.columns):
        names.setdefault(name, place)
        names.setdefault(name.partition("@")[0], place)  # of ranks apart, the lowest
    places = [names.get(name, -1) for name in part.columns]
    for key, table in (("values", _broken(rows)), ("low", rows.low), ("high", rows.high)):
        if key == "values" or table is not rows.values:
            padded = np.pad(table, ((0, 0), (0, 1)), constant_values=np.nan)
            body[key] = as_json(padded[:, places], LAYER_DIGITS if of_layers else DIGITS)
    return body


def _broken(rows: Series) -> np.ndarray:
    """Return the values, with the infinity of a row in which any sample was one.

    The mean of a row is that of its finite samples; the page marks what broke off by its value.
    """
    if rows.high is rows.values:
        return rows.values
    values = np.where(np.isneginf(rows.low), -np.inf, rows.values)
    return np.where(np.isposinf(rows.high), np.inf, values).astype(np.float32)


def _run_json(
    store: Store, info: RunInfo, meta: Meta, streams: list[StreamName], now: float
) -> dict[str, Json]:
    body = info.to_json()
    body["ranks"] = rank_rows(store, info, meta, streams, now)
    body["age_seconds"] = round(max(0.0, now - info.last_seen), 1)
    for key in (
        "model",
        "task",
        "batch_size",
        "precision",
        "optimizers",
        "parameter_count",
        "overhead",
        "budget",
        "probes",
        "ended",
    ):
        body[key] = plain(getattr(meta, key))
    body["error"] = _error(store, info) if info.status == "failed" else None
    told = list(meta.sending.values())
    body["sending"] = {key: sum(row[key] for row in told) for key in ("stored", "waiting", "lost")}
    return body


def _error(store: Store, info: RunInfo) -> dict[str, Json] | None:
    """Return type and message of the exception that ended the run's last attempt."""
    raised = [
        e for e in store.events(info.id) if e.kind == "exception" and e.attempt == info.attempt
    ]
    if not raised:
        return None
    # where one rank raises, the others raise at its absence
    body = min(raised, key=lambda event: event.t).body
    return {"type": str(body.get("type", ""))[:200], "message": str(body.get("message", ""))[:2000]}


def _worst(store: Store, info: RunInfo, streams: list[StreamName]) -> dict[str, Json]:
    """Return, of the last sample, the layer with the largest dead and the largest saturated share."""
    stream = StreamName("activations", 0, info.attempt)
    last = store.home.last_id(info.id, stream) if stream in streams else None
    if last is None:
        return {}
    worst: dict[str, Json] = {}
    for quantity in ("dead", "saturated"):
        rows = store.read(info.id, "activations", [quantity], start=last[0], stop=last[0])
        if len(rows) == 0 or not np.isfinite(rows.values[-1]).any():
            continue
        place = int(np.nanargmax(rows.values[-1]))
        column = rows.columns[place]
        found = [
            item.layer
            for schema in store.schemas(info.id, "activations")
            for item in schema.columns
            if item.name == column
        ]
        worst[quantity] = {
            "layer": found[0] if found else column,
            "value": round(float(rows.values[-1][place]), 4),
        }
    return worst
