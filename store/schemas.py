"""The shapes everyone shares: column, schema, frame, event, finding, recommendation, run.

What crosses a border is one of these dataclasses; `to_json` and `from_json` are their only other
form. NaN is `null` in JSON, and plus and minus infinity are the strings "Infinity" and "-Infinity".
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Literal

import numpy as np

from .errors import ConfigError
from .findings import Evidence, Finding, Recommendation, Severity
from .meta import Meta, RunInfo, Status
from .plain import Json, dumps, from_mapping, plain

__all__ = [
    "FAMILY_ORDER",
    "Column",
    "Event",
    "Evidence",
    "Finding",
    "Frame",
    "Json",
    "Meta",
    "Ranks",
    "Recommendation",
    "RunInfo",
    "Schema",
    "Series",
    "Severity",
    "Status",
    "StreamName",
    "dumps",
    "family_order",
    "plain",
]

Ranks = Literal["same", "sum", "mean", "min", "max", "each"]

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
        return from_mapping(cls, body)


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
