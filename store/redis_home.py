"""The Redis home: the protocol over one Redis or Valkey server, 6.2 or newer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from . import keys
from .buckets import TIERS, Bucket
from .errors import AccessDeniedError, OtoscopeError, StoreLostError, UnknownRunError
from .frames import checked, decode_id, encode, encode_id
from .home import CARD_FIELDS, FIRST_EVENT, Card
from .memory import once
from .redis_judgements import RedisJudgements
from .redis_rows import (
    as_object,
    as_text,
    findings_of,
    frames_of,
    is_of_another_type,
    labels_of,
    meta_fields,
    meta_of,
    refusals,
)
from .redis_tiers import RedisTiers, bucket_commands
from .schemas import Event, Frame, Json, Meta, Schema, StreamName, dumps

CARD_RANKS = 8
"""Ranks whose heartbeats the list of runs knows; the run's own page knows all."""

CARDS_AT_ONCE = 250
"""Runs read in one round trip for the list of runs."""

RESENT_EVENTS = 10_000
"""How many of the last events are looked through for one that is sent again."""


class RedisHome(RedisTiers, RedisJudgements):
    """Runs in Redis. Holds no connection until it is asked; safe to share between threads.

    `timeout` bounds every call in seconds. There are no retries inside: who calls decides.
    A `faithful` home (a sender's, used by one thread) goes on only with streams that it knows:
    where one is gone, or the connection was lost since the last call, `append` says so instead
    of beginning the stream anew behind a hole that could never be filled.
    """

    def __init__(self, url: str, *, timeout: float = 5.0, faithful: bool = False) -> None:
        super().__init__(url, timeout=timeout)
        self._faithful = faithful
        self._rolled: dict[str, set[str]] = {}
        """Of each run the keys of the tiers that a faithful home has begun; nobody asks for their ids."""
        self._known: dict[str, set[str]] = {}
        """Of each run the keys of streams that a faithful home saw in the store."""

    # -- runs ---------------------------------------------------------------------------------

    def run_ids(self) -> list[tuple[str, float]]:
        with self._translated():
            rows = self._client.zrevrange(keys.runs(), 0, -1, withscores=True)
        found = [(as_text(run), seen) for run, seen in rows]
        found = [row for row in found if keys.RUN_ID.match(row[0])]
        return sorted(found, key=lambda row: (-row[1], row[0]))

    def cards(self) -> list[Card]:
        runs = [run for run, _ in self.run_ids()]
        found: list[Card] = []
        ranks = [f"{key}:{rank}" for key in ("heartbeat", "left") for rank in range(CARD_RANKS)]
        fields = (*CARD_FIELDS, *ranks)
        for first in range(0, len(runs), CARDS_AT_ONCE):
            part = runs[first : first + CARDS_AT_ONCE]
            with self._translated():
                pipe = self._client.pipeline(transaction=False)
                for run in part:
                    pipe.hmget(keys.meta(run), fields)
                    pipe.hgetall(keys.labels(run))
                    pipe.hgetall(keys.findings(run))
                    pipe.get(keys.obstacles(run))
                answers = pipe.execute(raise_on_error=False)
                for i, run in enumerate(part):
                    if any(is_of_another_type(answer) for answer in answers[4 * i : 4 * i + 4]):
                        continue  # somebody else's key under the name of ours
                    values, labels, findings, obstacles = answers[4 * i : 4 * i + 4]
                    rows = {
                        f.encode(): v for f, v in zip(fields, values, strict=True) if v is not None
                    }
                    if rows:
                        kept = as_object(obstacles)
                        found.append(
                            Card(run, meta_of(rows), labels_of(labels), findings_of(findings), kept)
                        )
        return found

    def delete(self, run: str) -> None:
        with self._translated():
            for group in self._keys(run):
                self._client.delete(*group)
            self._client.zrem(keys.runs(), run)
        self._known.pop(run, None)

    def size(self, run: str) -> int | None:
        found = 0
        try:
            with self._translated():
                pipe = self._client.pipeline(transaction=False)
                for key in (key for group in self._keys(run) for key in group):
                    pipe.memory_usage(key)
                found = sum(size or 0 for size in pipe.execute())
        except AccessDeniedError:
            return None  # MEMORY is no right that a user of ours needs
        return found

    def _keys(self, run: str) -> list[list[str]]:
        """Return all keys of a run: those of each stream together, then the others."""
        members = self._client.smembers(keys.streams(run))
        groups: list[list[str]] = []
        for member in members:
            with suppress(ValueError):  # no stream of ours
                stream = keys.stream_of_member(as_text(member))
                tiers = [keys.tier(run, stream, tier) for tier in TIERS]
                groups.append([keys.raw(run, stream), *tiers])
        return [*groups, [part(run) for part in _PARTS]]

    def begin_attempt(self, run: str) -> int:
        with self._translated():
            attempt = int(self._client.hincrby(keys.meta(run), "attempt", 1))
            self._client.zadd(keys.runs(), {run: time.time()})
        return attempt

    def write_meta(self, run: str, fields: Mapping[str, Json]) -> None:
        if fields:
            with self._translated():
                self._client.hset(keys.meta(run), mapping=meta_fields(fields))
                self._client.zadd(keys.runs(), {run: time.time()})

    def meta(self, run: str) -> Meta:
        with self._translated():
            rows = self._client.hgetall(keys.meta(run))
        if not rows:
            raise UnknownRunError(
                f"no run {run!r} in this store; `otoscope runs` lists those it has"
            )
        return meta_of(rows)

    # -- frames -------------------------------------------------------------------------------

    def add_schema(self, run: str, schema: Schema) -> None:
        with self._translated():
            self._client.hset(keys.schema(run), schema.hash, schema.to_json())

    def schemas(self, run: str) -> dict[str, Schema]:
        with self._translated():
            rows = self._client.hgetall(keys.schema(run))
        found: dict[str, Schema] = {}
        for name, text in rows.items():
            with suppress(KeyError, TypeError, ValueError, OtoscopeError):  # no schema of ours
                found[as_text(name)] = Schema.from_json(text)
        return found

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
        if resent and events:
            stored = self._recent_event_ids(run)
            events = [event for event in events if event.id not in stored]
        # tuples: to make and hash a StreamName a frame costs three times as much
        streams = sorted({(frame.family, frame.rank, frame.attempt) for frame in checked(frames)})
        known = self._known.get(run, set())
        raw = {stream: keys.raw(run, StreamName(*stream)) for stream in streams}
        adds, begun = {s: _xadd(raw[s], known) for s in streams}, set(raw.values())
        with self._translated(), self._doubted(run):
            pipe = self._client.pipeline(transaction=True)
            for frame in frames:
                h, t, v = encode(frame)
                place = encode_id(*frame.id)
                add = adds[frame.family, frame.rank, frame.attempt]
                pipe.execute_command(*add, place, "h", h, "t", t, "v", v)
            rolled = self._rolled.setdefault(run, set()) if self._faithful else set()
            # tiers that are gone are begun anew only where all that is known of them comes at once
            for command in bucket_commands(run, buckets, rolled if frames or not resent else ()):
                pipe.execute_command(*command)
            for event in events:
                begun.add(keys.events(run))
                add = _xadd(keys.events(run), known)
                pipe.execute_command(*add, "*", "e", dumps(event.to_json()))
            new = [StreamName(*s) for s in streams if raw[s] not in known]
            if new:
                pipe.sadd(keys.streams(run), *map(keys.stream_member, new))
            if fields:
                pipe.hset(keys.meta(run), mapping=meta_fields(fields))
            answers = pipe.execute(raise_on_error=False)
            refused = refusals(answers) - refusals(answers[len(frames) :][: len(buckets)])
            if None in answers:  # XADD NOMKSTREAM found no stream
                raise StoreLostError(
                    f"the server no longer holds what it had stored of run {run} (flushed, failed "
                    "over or deleted); what is still known here is sent again"
                )
            if fields or events or not known:  # a sender has news every second
                self._client.zadd(keys.runs(), {run: time.time()})
        self._know(run, begun)
        rolled |= {keys.tier(run, bucket.stream, bucket.tier) for bucket in buckets}
        return refused

    def _know(self, run: str, begun: set[str]) -> None:
        if self._faithful:
            self._known.setdefault(run, set()).update(begun)

    @contextmanager
    def _doubted(self, run: str) -> Iterator[None]:
        """Write over the connection of the last call; after an error nothing is known any more."""
        try:
            if self._known.get(run):
                with self._same_connection():
                    yield
            else:
                yield
        except Exception:
            self._known.pop(run, None)
            raise

    def last_id(self, run: str, stream: StreamName) -> tuple[int, int] | None:
        with self._translated():
            rows = self._client.xrevrange(keys.raw(run, stream), count=1)
        if rows:
            self._know(run, {keys.raw(run, stream)})
        return decode_id(rows[0][0]) if rows else None

    def streams(self, run: str) -> list[StreamName]:
        with self._translated():
            members = self._client.smembers(keys.streams(run))
        found: list[StreamName] = []
        for member in members:
            with suppress(ValueError):  # no stream of ours
                found.append(keys.stream_of_member(as_text(member)))
        return sorted(found)

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
        low = "-" if start is None else encode_id(max(start, 0), 0)
        if after is not None and (start is None or after >= (start, 0)):
            low = f"({encode_id(*after)}"
        high = "+" if stop is None else f"{stop}"
        if stop is not None and stop < 0:
            return []
        with self._translated():
            rows = self._client.xrange(keys.raw(run, stream), min=low, max=high, count=count)
        return frames_of(stream, rows)

    def latest(self, run: str, stream: StreamName, count: int = 1) -> list[Frame]:
        if count < 1:
            return []
        with self._translated():
            rows = self._client.xrevrange(keys.raw(run, stream), count=count)
        return frames_of(stream, list(reversed(rows)))

    # -- events and labels --------------------------------------------------------------------

    def events(
        self, run: str, after: str = FIRST_EVENT, count: int | None = None
    ) -> list[tuple[str, Event]]:
        with self._translated():
            rows = self._client.xrange(keys.events(run), min=f"({after}", count=count)
        found: list[tuple[str, Event]] = []
        for place, row in rows:
            with suppress(KeyError, TypeError, ValueError, AttributeError):  # no event of ours
                found.append((as_text(place), Event.from_json(json.loads(row[b"e"]))))
        return once(found)

    def add_event(self, run: str, event: Event) -> str:
        with self._translated():
            return as_text(self._client.xadd(keys.events(run), {"e": dumps(event.to_json())}))

    def _recent_event_ids(self, run: str) -> set[str]:
        with self._translated():
            rows = self._client.xrevrange(keys.events(run), count=RESENT_EVENTS)
        if rows:
            self._know(run, {keys.events(run)})
        found: set[str] = set()
        for _, row in rows:
            with suppress(KeyError, TypeError, ValueError):  # no event of ours
                found.add(json.loads(row[b"e"])["id"])
        return found

    def labels(self, run: str) -> dict[str, Json]:
        with self._translated():
            rows = self._client.hgetall(keys.labels(run))
        return labels_of(rows)

    def set_labels(self, run: str, labels: Mapping[str, Json]) -> None:
        kept = {key: dumps(value) for key, value in labels.items() if value is not None}
        gone = [key for key, value in labels.items() if value is None]
        with self._translated():
            if kept:
                self._client.hset(keys.labels(run), mapping=kept)
            if gone:
                self._client.hdel(keys.labels(run), *gone)


_PARTS = (
    keys.meta,
    keys.schema,
    keys.streams,
    keys.labels,
    keys.events,
    keys.findings,
    keys.obstacles,
    keys.cursor,
    keys.state,
    keys.lease,
)


def _xadd(key: str, known: set[str]) -> tuple[str, ...]:
    """Return the beginning of the command that adds to a stream: to a known one only if it is there."""
    return ("XADD", key, "NOMKSTREAM") if key in known else ("XADD", key)
