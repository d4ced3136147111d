"""The protocol of a home: where runs live. One in Redis, one in memory, held by one contract test.

A `Sink` is the writing half that the training process needs; a recording on disk is one too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .buckets import Bucket
from .retention import Memory
from .schemas import Event, Finding, Frame, Json, Meta, Schema, StreamName
from .tiers import Extent, Piece

Rows = list[Frame] | list[Bucket]

FIRST_EVENT = "0-0"
"""The event id that lies before every event."""


@dataclass(slots=True)
class Judgement:
    """What the daemon keeps of a run: where it has read to, its small state, what it found."""

    cursor: str | None = None
    state: dict[str, Json] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    obstacles: dict[str, Json] = field(default_factory=dict)


CARD_FIELDS = (
    "name",
    "max_steps",
    "attempt",
    "started",
    "world_size",
    "began",
    "tags",
    "notes",
    "parent",
    "progress",
    "ended",
)
"""The fields of Meta that a row of the list of runs needs."""


@dataclass(slots=True)
class Card:
    """What a row of the list of runs is made of.

    `meta` holds CARD_FIELDS, and what is merged rank by rank of the first ranks.
    """

    run: str
    meta: Meta
    labels: dict[str, Json]
    findings: list[Finding]
    obstacles: dict[str, Json] = field(default_factory=dict)


class Sink(Protocol):
    """Where a recorder's frames go. Every call may raise a StoreError and may then be repeated."""

    def write_meta(self, run: str, fields: Mapping[str, Json]) -> None:
        """Set fields of Meta; those in `memory.MERGED` (`heartbeat`, …) are merged rank by rank."""
        ...

    def add_schema(self, run: str, schema: Schema) -> None:
        """Store a schema under its hash, once."""
        ...

    def append(
        self,
        run: str,
        frames: Sequence[Frame],
        events: Sequence[Event] = (),
        fields: Mapping[str, Json] | None = None,
        *,
        resent: bool = False,
        buckets: Sequence[Bucket] = (),
    ) -> int:
        """Store frames, buckets, events and fields of Meta together, all or nothing.

        Returns how many frames were refused because their stream holds an equal or larger id;
        they are not stored. With `resent`, events whose id was stored lately are left out. A bucket
        that is stored already is left out in any case. A recording holds frames alone: its buckets
        are made when it is taken in.
        """
        ...

    def last_id(self, run: str, stream: StreamName) -> tuple[int, int] | None:
        """Return (step, seq) of the last frame of a stream, None where it holds none."""
        ...

    def trim(self, run: str, stream: StreamName, before: int) -> None:
        """Drop a stream's frames of steps below `before`, or all but a few of them."""
        ...

    def judged_to(self, run: str) -> tuple[int, int] | None:
        """Return (attempt, step) that a daemon has judged to, None where none has yet."""
        ...

    def begin_attempt(self, run: str) -> int:
        """Return the number of a new attempt of the run: 1 for a new run."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


class Home(Sink, Protocol):
    """Everything that can be asked of a place where runs live."""

    def ping(self) -> None:
        """Raise StoreUnavailableError where nobody answers."""
        ...

    def memory(self) -> Memory | None:
        """Return how full the home is, None where it has no memory of its own to run out of."""
        ...

    def settings(self) -> dict[str, Json]:
        """Return what concerns no single run: `janitor`, what the daemon deleted last."""
        ...

    def set_settings(self, settings: Mapping[str, Json]) -> None:
        """Set some of the settings."""
        ...

    def run_ids(self) -> list[tuple[str, float]]:
        """Return (run id, last seen in epoch s), the latest first."""
        ...

    def cards(self) -> list[Card]:
        """Return what the list of runs shows, the last seen first, in few round trips."""
        ...

    def delete(self, run: str) -> None:
        """Remove everything that is stored of a run."""
        ...

    def size(self, run: str) -> int | None:
        """Return how many bytes a run takes in the store; None where nobody may ask."""
        ...

    def meta(self, run: str) -> Meta:
        """Return what the run told of itself; raises UnknownRunError."""
        ...

    def schemas(self, run: str) -> dict[str, Schema]:
        """Return the run's schemas by their hash."""
        ...

    def streams(self, run: str) -> list[StreamName]:
        """Return the run's streams, sorted."""
        ...

    def frames(
        self,
        run: str,
        stream: StreamName,
        *,
        after: tuple[int, int] | None = None,
        start: int | None = None,
        stop: int | None = None,
        count: int | None = None,
    ) -> list[Frame]:
        """Return frames in order: those behind the id `after`, with start ≤ step ≤ stop."""
        ...

    def buckets(
        self,
        run: str,
        stream: StreamName,
        tier: int,
        *,
        start: int | None = None,
        stop: int | None = None,
        count: int | None = None,
        latest: bool = False,
    ) -> list[Bucket]:
        """Return a tier's buckets in order: those with start ≤ first step ≤ stop.

        Of more than `count` the first ones, or with `latest` the last ones.
        """
        ...

    def pieces(self, run: str, asked: Sequence[tuple[StreamName, Piece]]) -> list[Rows]:
        """Return the frames, or buckets, of each piece of a stream, in few round trips."""
        ...

    def extents(
        self, run: str, streams: Sequence[StreamName], *, tiers: bool = True
    ) -> dict[StreamName, tuple[Extent | None, ...]]:
        """Return what each level of each stream holds: raw, then the four tiers if they are asked."""
        ...

    def latest(self, run: str, stream: StreamName, count: int = 1) -> list[Frame]:
        """Return the last frames of a stream, in order."""
        ...

    def events(
        self, run: str, after: str = FIRST_EVENT, count: int | None = None
    ) -> list[tuple[str, Event]]:
        """Return (stream id, event) behind `after`, in order, each event id once."""
        ...

    def add_event(self, run: str, event: Event) -> str:
        """Append one event and return its stream id."""
        ...

    def labels(self, run: str) -> dict[str, Json]:
        """Return name, tags, notes and closed as a person set them; empty where nobody did."""
        ...

    def set_labels(self, run: str, labels: Mapping[str, Json]) -> None:
        """Set some of the labels; None removes one."""
        ...

    def judgement(self, run: str) -> Judgement:
        """Return what the daemon committed last."""
        ...

    def acquire(self, run: str, token: str, milliseconds: int) -> bool:
        """Take the run's lease, or keep it where the token holds it already."""
        ...

    def release(self, run: str, token: str) -> None:
        """Give the lease back where the token holds it."""
        ...

    def commit(
        self,
        run: str,
        token: str,
        milliseconds: int,
        expected_cursor: str | None,
        judgement: Judgement,
        events: Sequence[Event] = (),
    ) -> bool:
        """Store a judgement in one transaction.

        Returns False, and stores nothing, where the lease is not the token's or the cursor is
        not the expected one.
        """
        ...
