"""The in-memory home: the protocol without a server, for tests, recordings and replay."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from threading import RLock

from .buckets import TIER_LENGTH, TIERS, Bucket, checked_tier
from .errors import UnknownRunError
from .frames import checked, decode_id
from .home import FIRST_EVENT, Card, Judgement, Rows
from .keys import checked_run_id
from .retention import Memory, place_of
from .schemas import Event, Frame, Json, Meta, Schema, StreamName
from .tiers import Extent, Piece

MERGED = ("heartbeat", "clock_offset", "left", "sending", "hosts")
"""Fields of Meta that are merged rank by rank."""


@dataclass
class _Run:
    meta: dict[str, Json] = field(default_factory=dict)
    schemas: dict[str, Schema] = field(default_factory=dict)
    streams: dict[StreamName, list[Frame]] = field(default_factory=dict)
    ids: dict[StreamName, list[tuple[int, int]]] = field(default_factory=dict)
    buckets: dict[tuple[StreamName, int], list[Bucket]] = field(default_factory=dict)
    events: list[tuple[str, Event]] = field(default_factory=list)
    event_ids: set[str] = field(default_factory=set)
    labels: dict[str, Json] = field(default_factory=dict)
    judgement: Judgement = field(default_factory=Judgement)
    lease: tuple[str, float] | None = None
    seen: float = 0.0
    attempts: int = 0

    def hold(self, bucket: Bucket) -> None:
        """Take a bucket that is not held already; the finer tiers keep the last ones alone."""
        held = self.buckets.setdefault((bucket.stream, bucket.tier), [])
        if not held or held[-1].id < bucket.id:
            held.append(bucket)
            if bucket.tier != TIERS[-1]:
                del held[:-TIER_LENGTH]


class MemoryHome:
    """Runs in this process's memory; safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._runs: dict[str, _Run] = {}
        self._lock = RLock()
        self._clock = clock
        self._settings: dict[str, Json] = {}
        self._jobs: dict[str, str] = {}

    def _known(self, run: str) -> _Run:
        try:
            return self._runs[checked_run_id(run)]
        except KeyError:
            raise UnknownRunError(
                f"no run {run!r} in this store; `otoscope runs` lists the {len(self._runs)} it has"
            ) from None

    def _made(self, run: str) -> _Run:
        return self._runs.setdefault(checked_run_id(run), _Run())

    def ping(self) -> None:
        return None

    def close(self) -> None:
        return None

    def tell_job(self, job: str, text: str) -> None:
        """Remember a text under a job's key."""
        self._jobs[job] = text

    def job(self, job: str) -> str | None:
        """Return what was told under a job's key, None where nothing was."""
        return self._jobs.get(job)

    def run_ids(self) -> list[tuple[str, float]]:
        with self._lock:
            rows = [(run, entry.seen) for run, entry in self._runs.items() if entry.meta]
            return sorted(rows, key=lambda row: (-row[1], row[0]))

    def cards(self) -> list[Card]:
        with self._lock:
            cards: list[Card] = []
            for run, _ in self.run_ids():
                kept = self.judgement(run)
                labels = self.labels(run)
                cards.append(Card(run, self.meta(run), labels, kept.findings, kept.obstacles))
            return cards

    def delete(self, run: str) -> None:
        with self._lock:
            self._runs.pop(checked_run_id(run), None)

    def size(self, run: str) -> int | None:
        with self._lock:
            entry = self._known(run)
            frames = (frame for stream in entry.streams.values() for frame in stream)
            buckets = (bucket for held in entry.buckets.values() for bucket in held)
            return sum(item.values.nbytes for item in (*frames, *buckets))

    def begin_attempt(self, run: str) -> int:
        with self._lock:
            entry = self._made(run)
            entry.attempts += 1
            entry.meta["attempt"] = entry.attempts
            return entry.attempts

    def write_meta(self, run: str, fields: Mapping[str, Json]) -> None:
        with self._lock:
            entry = self._made(run)
            for key, value in fields.items():
                if key in MERGED:
                    entry.meta[key] = {**entry.meta.get(key, {}), **value}
                else:
                    entry.meta[key] = deepcopy(value)
            entry.attempts = max(entry.attempts, int(entry.meta.get("attempt", 0)))
            entry.seen = self._clock()

    def meta(self, run: str) -> Meta:
        with self._lock:
            return Meta.from_json(_copied(self._known(run).meta))

    def add_schema(self, run: str, schema: Schema) -> None:
        with self._lock:
            self._made(run).schemas[schema.hash] = schema

    def schemas(self, run: str) -> dict[str, Schema]:
        with self._lock:
            return dict(self._known(run).schemas)

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
        with self._lock:
            entry = self._made(run)
            refused = 0
            for frame in checked(frames):
                ids = entry.ids.setdefault(frame.stream, [])
                if ids and frame.id <= ids[-1]:
                    refused += 1
                    continue
                ids.append(frame.id)
                entry.streams.setdefault(frame.stream, []).append(frame)
            for bucket in buckets:
                entry.hold(bucket)
            for event in events:
                if not (resent and event.id in entry.event_ids):
                    self.add_event(run, event)
            self.write_meta(run, fields or {})
            return refused

    def last_id(self, run: str, stream: StreamName) -> tuple[int, int] | None:
        with self._lock:
            ids = self._made(run).ids.get(stream)
            return ids[-1] if ids else None

    def trim(self, run: str, stream: StreamName, before: int) -> None:
        with self._lock:
            entry = self._known(run)
            gone = bisect_left(entry.ids.get(stream, []), (before, 0))
            if gone:
                del entry.streams[stream][:gone], entry.ids[stream][:gone]

    def settings(self) -> dict[str, Json]:
        with self._lock:
            return deepcopy(self._settings)

    def set_settings(self, settings: Mapping[str, Json]) -> None:
        with self._lock:
            self._settings |= deepcopy(dict(settings))

    def memory(self) -> Memory | None:
        return None

    def judged_to(self, run: str) -> tuple[int, int] | None:
        with self._lock:
            return place_of(self._known(run).judgement.cursor)

    def streams(self, run: str) -> list[StreamName]:
        with self._lock:
            return sorted(self._known(run).streams)

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
        with self._lock:
            entry = self._known(run)
            ids = entry.ids.get(stream, [])
            low = 0 if start is None else bisect_right(ids, (start, 0))
            if after is not None:
                low = max(low, bisect_right(ids, after))
            high = len(ids) if stop is None else bisect_right(ids, (stop + 1, 0))
            if count is not None:
                high = min(high, low + count)
            return entry.streams.get(stream, [])[low:high]

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
        with self._lock:
            held = self._known(run).buckets.get((stream, checked_tier(tier)), [])
            found = [
                bucket
                for bucket in held
                if (start is None or bucket.step >= start) and (stop is None or bucket.step <= stop)
            ]
            if count is None:
                return found
            return found[max(len(found) - count, 0) :] if latest else found[:count]

    def pieces(self, run: str, asked: Sequence[tuple[StreamName, Piece]]) -> list[Rows]:
        return [
            self.buckets(run, stream, piece.level, start=piece.start, stop=piece.stop)
            if piece.level
            else self.frames(run, stream, start=piece.start, stop=piece.stop)
            for stream, piece in asked
        ]

    def extents(
        self, run: str, streams: Sequence[StreamName], *, tiers: bool = True
    ) -> dict[StreamName, tuple[Extent | None, ...]]:
        with self._lock:
            entry = self._known(run)
            found: dict[StreamName, tuple[Extent | None, ...]] = {}
            for stream in streams:
                ids = entry.ids.get(stream)
                raw = Extent(ids[0][0], ids[0][0], ids[-1][0], len(ids)) if ids else None
                held = [entry.buckets.get((stream, tier)) for tier in (TIERS if tiers else ())]
                rolled = [Extent(b[0].step, b[0].first, b[-1].last) if b else None for b in held]
                found[stream] = (raw, *rolled)
            return found

    def latest(self, run: str, stream: StreamName, count: int = 1) -> list[Frame]:
        with self._lock:
            return self._known(run).streams.get(stream, [])[-count:] if count else []

    def add_event(self, run: str, event: Event) -> str:
        with self._lock:
            entry = self._made(run)
            place = f"{len(entry.events) + 1}-1"
            entry.events.append((place, deepcopy(event)))
            entry.event_ids.add(event.id)
            return place

    def events(
        self, run: str, after: str = FIRST_EVENT, count: int | None = None
    ) -> list[tuple[str, Event]]:
        with self._lock:
            rows = self._known(run).events
            first = next(
                (i for i, row in enumerate(rows) if decode_id(row[0]) > decode_id(after)), len(rows)
            )
            rows = rows[first:] if count is None else rows[first : first + count]
            return once(deepcopy(rows))

    def labels(self, run: str) -> dict[str, Json]:
        with self._lock:
            return deepcopy(self._known(run).labels)

    def set_labels(self, run: str, labels: Mapping[str, Json]) -> None:
        with self._lock:
            entry = self._known(run)
            merged = {**entry.labels, **labels}
            entry.labels = {key: value for key, value in merged.items() if value is not None}

    def judgement(self, run: str) -> Judgement:
        with self._lock:
            return deepcopy(self._known(run).judgement)

    def acquire(self, run: str, token: str, milliseconds: int) -> bool:
        with self._lock:
            entry = self._made(run)
            now = self._clock()
            if entry.lease and entry.lease[0] != token and entry.lease[1] > now:
                return False
            entry.lease = (token, now + milliseconds / 1000)
            return True

    def release(self, run: str, token: str) -> None:
        with self._lock:
            entry = self._runs.get(run)
            if entry and entry.lease and entry.lease[0] == token:
                entry.lease = None

    def commit(
        self,
        run: str,
        token: str,
        milliseconds: int,
        expected_cursor: str | None,
        judgement: Judgement,
        events: Sequence[Event] = (),
    ) -> bool:
        with self._lock:
            entry = self._known(run)
            holds = entry.lease and entry.lease[0] == token and entry.lease[1] > self._clock()
            if not holds or entry.judgement.cursor != expected_cursor:
                return False
            entry.lease = (token, self._clock() + milliseconds / 1000)
            entry.judgement = deepcopy(judgement)
            for event in events:
                self.add_event(run, event)
            return True


SCALARS = frozenset((str, int, float, bool, type(None)))


def _copied(value: Json) -> Json:
    """Return a copy of JSON; `deepcopy` of a model of 200 layers takes eight times as long."""
    kind = type(value)
    if kind is dict:
        return {k: item if type(item) in SCALARS else _copied(item) for k, item in value.items()}
    if kind is list:
        return [item if type(item) in SCALARS else _copied(item) for item in value]
    return value if kind in SCALARS else deepcopy(value)


def once(rows: list[tuple[str, Event]]) -> list[tuple[str, Event]]:
    """Return the rows without those whose event id came before."""
    seen: set[str] = set()
    kept: list[tuple[str, Event]] = []
    for place, event in rows:
        if event.id not in seen:
            seen.add(event.id)
            kept.append((place, event))
    return kept
