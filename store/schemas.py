"""The shapes everyone shares: column, schema, frame, event, finding, recommendation, run.

What crosses a border is one of these dataclasses; `to_json` and `from_json` are their only other
form. NaN is `null` in JSON, and plus and minus infinity are the strings "Infinity" and "-Infinity".
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np

from .errors import ConfigError

Ranks = Literal["same", "sum", "mean", "min", "max", "each"]
Severity = Literal["info", "warning", "critical"]
Json = Any
_T = TypeVar("_T")

FAMILY_ORDER = (
    "train",
    "gradients",
    "activations",
    "noise",
    "curvature",
    "landscape",
    "validation",
    "system",
)
"""Order in which the fold reads the families of one step; others follow by name."""


def family_order(family: str) -> tuple[int, str]:
    """Return the sort key of a family: the order of FAMILY_ORDER, then by name.

    >>> sorted(["zeta", "noise", "train"], key=family_order)
    ['train', 'noise', 'zeta']
    """
    known = family in FAMILY_ORDER
    return (FAMILY_ORDER.index(family) if known else len(FAMILY_ORDER), family)


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a frame, described once in the schema and never parsed out of its name.

    `ranks` says how the values of several ranks combine: `same` takes the lowest live rank's,
    `each` keeps one series a rank (`name@<rank>`), the others are what they say.

    >>> Column.of("grad_sq", layer="features.0", ranks="sum").name
    'grad_sq/features.0'
    """

    name: str
    quantity: str
    layer: str | None = None
    group: str | None = None
    optimizer: int | None = None
    unit: str = ""
    ranks: Ranks = "same"

    @classmethod
    def of(
        cls,
        quantity: str,
        *,
        layer: str | None = None,
        group: str | None = None,
        optimizer: int | None = None,
        unit: str = "",
        ranks: Ranks = "same",
    ) -> Column:
        """Make a column whose written name is `quantity`, or `quantity/layer`."""
        name = quantity if layer is None else f"{quantity}/{layer}"
        return cls(name, quantity, layer, group, optimizer, unit, ranks)


@dataclass(frozen=True)
class Schema:
    """The columns of a family, in the order of the packed vector; known by its hash.

    >>> Schema("train", (Column.of("loss"),)).hash == Schema("train", (Column.of("loss"),)).hash
    True
    """

    family: str
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError(
                f"columns of family {self.family!r} must have distinct names, got {twice} twice; "
                "give them different layers or quantities"
            )

    @cached_property
    def hash(self) -> str:
        """Blake2b of the compact sorted JSON, 8 bytes, in hex."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=8).hexdigest()

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each column by its written name."""
        return {column.name: i for i, column in enumerate(self.columns)}

    @cached_property
    def names(self) -> list[str]:
        """Written names in the order of the vector."""
        return [column.name for column in self.columns]

    def to_json(self) -> str:
        """Return compact JSON with sorted keys (what the hash is taken over)."""
        return self._text

    @cached_property
    def _text(self) -> str:
        # thousands of columns: `asdict` takes 25 µs each
        names = [item.name for item in fields(Column)]
        rows = [{name: getattr(column, name) for name in names} for column in self.columns]
        body = {"family": self.family, "columns": rows}
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Schema:
        """Read what `to_json` wrote."""
        body = json.loads(text)
        return cls(body["family"], tuple(Column(**column) for column in body["columns"]))


@dataclass(slots=True, eq=False)
class Frame:
    """One sample of a family on one rank at one step: a float32 vector in its schema's order.

    `time` is UTC epoch seconds of the host. NaN and Inf in `values` are data.
    """

    family: str
    rank: int
    attempt: int
    step: int
    time: float
    schema: str
    values: np.ndarray
    seq: int = 1

    @property
    def id(self) -> tuple[int, int]:
        """Return (step, seq): the place of the frame in its stream."""
        return (self.step, self.seq)

    @property
    def stream(self) -> StreamName:
        """Return the stream that the frame belongs to."""
        return StreamName(self.family, self.rank, self.attempt)


@dataclass(frozen=True, slots=True, order=True)
class StreamName:
    """Which stream of a run: one per family, rank and attempt."""

    family: str
    rank: int
    attempt: int


@dataclass(slots=True)
class Event:
    """Something that happened once, at a step: started, finished, lr, checkpoint, acknowledged, …

    The kinds and their bodies are listed in docs/shapes.md. `id` deduplicates a resent event.
    """

    kind: str
    step: int = 0
    attempt: int = 1
    rank: int = 0
    t: float = 0.0
    body: dict[str, Json] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def to_json(self) -> dict[str, Json]:
        """Return the event as a JSON object."""
        return plain(asdict(self))

    @classmethod
    def from_json(cls, body: Mapping[str, Json]) -> Event:
        """Read what `to_json` wrote; unknown keys are ignored."""
        return _from_mapping(cls, body)


@dataclass(slots=True)
class Evidence:
    """One thing that was seen: words, and the series, step and threshold behind them."""

    text: str
    family: str | None = None
    column: str | None = None
    step: int | None = None
    value: float | None = None
    threshold: float | None = None


@dataclass(slots=True)
class Recommendation:
    """A setting to change: `proposed` is a JSON value that a script can apply unedited.

    `also` holds further `{"parameter", "proposed"}` pairs that belong together with it,
    `alternatives` other recommendations to choose from. `basis` is "derived",
    "from your run" or "rule of thumb"; `range` is [low, high] or None.
    """

    parameter: str
    current: Json = None
    proposed: Json = None
    range: list[float] | None = None
    basis: str = "rule of thumb"
    formula: str = ""
    snippet: str = ""
    effect: str = ""
    verify: str = ""
    risk: str = ""
    also: list[dict[str, Json]] = field(default_factory=list)
    alternatives: list[dict[str, Json]] = field(default_factory=list)


@dataclass(slots=True)
class Finding:
    """An argument that something is wrong: what was seen, why it matters, what to set."""

    id: str
    run: str
    attempt: int
    rule: str
    severity: Severity
    state: Literal["firing", "resolved"]
    scope: str
    first_step: int
    last_step: int
    title: str
    why: str = ""
    because: list[Evidence] = field(default_factory=list)
    recommendation: Recommendation | None = None
    may_be_normal: str = ""
    not_measured: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    caused: list[str] = field(default_factory=list)
    outcome: str | None = None
    acknowledged: bool = False
    snoozed_until_step: int | None = None
    stale: bool = False

    def to_json(self) -> dict[str, Json]:
        """Return the finding as a JSON object (DESIGN: "A finding as JSON")."""
        return plain(asdict(self))

    @classmethod
    def from_json(cls, body: Mapping[str, Json]) -> Finding:
        """Read what `to_json` wrote; unknown keys are ignored."""
        finding = _from_mapping(cls, body)
        finding.because = [_from_mapping(Evidence, item) for item in body.get("because", [])]
        advice = body.get("recommendation")
        finding.recommendation = None if advice is None else _from_mapping(Recommendation, advice)
        return finding


@dataclass(slots=True)
class Meta:
    """What a run told us about itself; every field has a default, so any part may be unknown.

    `optimizers`: [{name, lr, betas, momentum, nesterov, weight_decay}]; `parameters`:
    [{name, layer, kind: weight|bias|norm|embedding, ndim, numel, requires_grad}]; `heartbeat`:
    {rank: epoch s of its last sample}; `left`: {rank: epoch s at which it ended as it should};
    `clock_offset`: {rank: seconds}. `attempt` is the latest, `began` the epoch s of its beginning.
    `progress`: {step, loss, loss_best, step_seconds, spark}; `ended`: {attempt, how: finished|failed, t, reason} or
    None while it trains; `overhead`: {share, seconds, probes: {name: seconds}}.
    """

    name: str = ""
    model: str = ""
    max_steps: int | None = None
    task: str = "supervised"
    parameter_count: int = 0
    training_samples: int | None = None
    optimizers: list[dict[str, Json]] = field(default_factory=list)
    precision: str = "32-true"
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str | None = None
    accumulate_grad_batches: int = 1
    batch_size: int | None = None
    world_size: int = 1
    classes: int | None = None
    parameters: list[dict[str, Json]] = field(default_factory=list)
    heartbeat: dict[str, float] = field(default_factory=dict)
    clock_offset: dict[str, float] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)
    parent: str | None = None
    attempt: int = 1
    started: float = 0.0
    began: float = 0.0
    tags: list[str] = field(default_factory=list)
    notes: str = ""
    budget: float = 0.02
    probes: list[str] = field(default_factory=list)
    config: dict[str, Json] = field(default_factory=dict)
    progress: dict[str, Json] = field(default_factory=dict)
    ended: dict[str, Json] | None = None
    overhead: dict[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Return the meta as a JSON object."""
        return plain(asdict(self))

    @classmethod
    def from_json(cls, body: Mapping[str, Json]) -> Meta:
        """Read what `to_json` wrote; unknown keys, and values that cannot be, are ignored."""
        meta = _from_mapping(cls, body)
        meta.started = meta.started if _is_number(meta.started) else 0.0
        meta.began = meta.began if _is_number(meta.began) else 0.0
        meta.left = {k: t for k, t in meta.left.items() if _is_number(t)}
        meta.heartbeat = {k: t for k, t in meta.heartbeat.items() if _is_number(t)}
        meta.clock_offset = {k: t for k, t in meta.clock_offset.items() if _is_number(t)}
        meta.progress = {k: v for k, v in meta.progress.items() if _is_progress(v)}
        meta.optimizers = [item for item in meta.optimizers if isinstance(item, dict)]
        meta.parameters = [item for item in meta.parameters if isinstance(item, dict)]
        meta.tags = [str(tag) for tag in meta.tags]
        return meta


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_progress(value: Json) -> bool:
    if isinstance(value, list):
        return all(_is_progress(item) for item in value)
    return value is None or _is_number(value) or value in ("Infinity", "-Infinity")


Status = Literal["live", "stale", "lost", "finished", "failed"]


@dataclass(slots=True)
class RunInfo:
    """One row of the list of runs. `open` counts unresolved findings by severity.

    `spark`: at most 48 means of the loss from the first step to the last, for a small curve;
    `obstacles`: as the daemon committed them; `lost_ranks`: those that fell silent while others
    go on, or had not ended when the run did.
    """

    id: str
    name: str
    status: Status
    attempt: int
    step: int
    max_steps: int | None
    started: float
    last_seen: float
    world_size: int
    loss_last: float
    loss_best: float
    open: dict[str, int]
    tags: list[str]
    notes: str
    parent: str | None
    spark: list[float] = field(default_factory=list)
    obstacles: dict[str, Json] = field(default_factory=dict)
    lost_ranks: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Json]:
        """Return the row as a JSON object."""
        # not asdict, which copies every number of every curve first
        return plain({item.name: getattr(self, item.name) for item in fields(self)})


@dataclass(slots=True)
class Series:
    """What `Store.read` answers: n samples of c columns, attempts overlaid and ranks combined.

    `steps` int64[n], strictly ascending; `times` float64[n], UTC epoch seconds; `values`,
    `low`, `high` float32[n, c], where low and high hold the extremes of a reduced bucket;
    `columns` the c written names. Missing values are NaN.
    """

    steps: np.ndarray
    times: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    columns: list[str]

    def __len__(self) -> int:
        return len(self.steps)

    def column(self, name: str) -> np.ndarray:
        """Return one column's values, float32[n]; all NaN where the column was never recorded."""
        if name not in self.columns:
            return np.full(len(self.steps), np.nan, dtype=np.float32)
        return self.values[:, self.columns.index(name)]


def plain(value: Json) -> Json:
    """Return a value with only JSON's own types: NaN null, infinities as strings.

    >>> plain({"a": float("nan"), "b": [np.float32(1.5), float("inf")]})
    {'a': None, 'b': [1.5, 'Infinity']}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return value
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)


def dumps(value: Json) -> str:
    """Return canonical JSON: sorted keys, compact, NaN as null (same value, same bytes).

    >>> dumps({"b": 1, "a": float("nan")})
    '{"a":null,"b":1}'
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # half a surrogate pair (in a file name, in a module's name) is no UTF-8 and would stop a run
    return text if text.isascii() else text.encode(errors="replace").decode()


def _from_mapping(cls: type[_T], body: Mapping[str, Json]) -> _T:
    """Return the dataclass, without the keys that it has no field for or whose value does not fit.

    What lies in a store may have been written by anybody: one odd value must not hide a run.
    """
    kinds = {item.name: str(item.type) for item in fields(cls)}  # type: ignore[arg-type]
    return cls(**{k: v for k, v in body.items() if k in kinds and _fits(v, kinds[k])})


_KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float, str),  # infinities are strings
    "bool": bool,
    "list": list,
    "dict": dict,
}


def _fits(value: Json, kind: str) -> bool:
    """Tell whether a value is what a field's annotation says, as far as its outermost type.

    >>> _fits(3, "int | None"), _fits(None, "int | None"), _fits("3", "int"), _fits([], "dict[str, float]")
    (True, True, False, False)
    """
    if value is None:
        return "None" in kind or kind in ("Json", "float")
    known = _KINDS.get(kind.partition("[")[0].partition(" ")[0])
    return known is None or isinstance(value, known)
