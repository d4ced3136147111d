"""Replaying: a recording on disk goes into a home, once, without being held in memory."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UnknownRunError
from .home import Home
from .recording import OpenRecording
from .retention import Retention
from .rollups import Rollups
from .runs import last_seen
from .schemas import Event, Frame, Json, Meta, StreamName
from .spool import record_bytes

FRAMES_AT_ONCE = 500
BYTES_AT_ONCE = 4 * 2**20
"""A batch is one transaction: beyond this size it would hold up the server's other clients."""
KEPT_SHARE = 4.0
"""Of the hard caps of what a live run keeps: nobody has judged a recording yet that comes in at
once, and the daemon cuts behind itself when it has. 160 MB at 1,200 columns."""
LAST = ("heartbeat", "left", "progress", "ended", "overhead", "sending")
"""Fields that are told once all samples are there, so that nobody takes half a run for a whole."""

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Replayed:
    """What a replay did. `samples` and `events` are the new ones, `found` all sound samples."""

    run: str
    samples: int = 0
    found: int = 0
    events: int = 0
    damage: list[str] = field(default_factory=list)
    growing: bool = False


@dataclass(slots=True)
class _Batch:
    frames: list[Frame] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    size: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.frames) >= FRAMES_AT_ONCE or self.size >= BYTES_AT_ONCE


def replay(directory: Path, home: Home, progress: Progress | None = None) -> Replayed:
    """Take a recording into a home, once: what the home holds already is left alone.

    Frames and events go in by their time, as they did when the run trained, so that a daemon that
    watches judges the same. Two processes may replay the same folder at once. `progress` is told
    (bytes read, bytes in all).

    Raises DamagedRecordingError where the folder holds no recording, StoreError where the home
    refuses; what was taken in stays, and the same call goes on from there.
    """
    source = OpenRecording(directory)
    done = Replayed(source.run, growing=source.is_growing)
    fields = _newer(source.meta, source.fields, _there(home, source.run))
    _write(home, source.run, {k: v for k, v in fields.items() if k not in LAST})
    for name in source.schemas.keys() - home.schemas(source.run).keys():
        home.add_schema(source.run, source.schemas[name])
    _take_in(source, home, done, progress or (lambda done, of: None))
    _write(home, source.run, {k: v for k, v in fields.items() if k in LAST})
    done.damage = source.damage
    return done


def _take_in(source: OpenRecording, home: Home, done: Replayed, progress: Progress) -> None:
    run, size, read = source.run, source.size, 0
    behind: dict[StreamName, tuple[int, int]] = {}
    stored = {event.id for _, event in home.events(run)}
    intake, added = _Intake(home, run, done), set(source.schemas)
    batch = _Batch()
    for item in _by_time(source):
        if isinstance(item, Event):
            if item.id not in stored:
                stored.add(item.id)
                batch.events.append(item)
            continue
        done.found += 1
        length = record_bytes(item)
        read += length
        if item.stream not in behind:
            behind[item.stream] = intake.last_id(item.stream)
        if item.id > behind[item.stream]:
            if item.schema not in added:
                home.add_schema(run, source.schemas[item.schema])
                added.add(item.schema)
            batch.frames.append(item)
            batch.size += length
        if batch.is_full:
            intake.send(batch)
            batch = _Batch()
        if done.found % FRAMES_AT_ONCE == 0:
            progress(read, size)
    intake.send(batch)
    progress(size, size)


class _Intake:
    """Stores batches with the buckets that they complete, and cuts what is beyond the caps."""

    def __init__(self, home: Home, run: str, done: Replayed) -> None:
        self.home, self.run, self.done = home, run, done
        self._rollups, self._retention = Rollups(), Retention(KEPT_SHARE)

    def last_id(self, stream: StreamName) -> tuple[int, int]:
        """Return where the home's part of a stream ends, and go on with its buckets from there."""
        last = self.home.last_id(self.run, stream)
        if last is None:
            return (-1, 0)
        self._rollups.restore(self.home, self.run, stream)
        return last

    def send(self, batch: _Batch) -> None:
        if not batch.frames and not batch.events:
            return
        buckets = self._rollups.take(batch.frames)
        refused = self.home.append(self.run, batch.frames, batch.events, buckets=buckets)
        self.done.samples += len(batch.frames) - refused
        self.done.events += len(batch.events)
        self._retention.note(batch.frames)
        self._retention.enforce(self.home, self.run)


def _by_time(source: OpenRecording) -> Iterator[Frame | Event]:
    """Yield frames and events in the order in which they were written."""
    events = sorted(source.events, key=lambda event: event.t)
    return heapq.merge(
        source.frames(),
        events,
        key=lambda item: item.t if isinstance(item, Event) else item.time,
    )


def _there(home: Home, run: str) -> Meta | None:
    try:
        return home.meta(run)
    except UnknownRunError:
        return None


def _newer(told: Meta, fields: dict[str, Json], there: Meta | None) -> dict[str, Json]:
    """Return the fields of Meta that the home should take: none where it knows as much or more.

    A folder may hold only the beginning of a run that went on elsewhere.
    """
    if there is None or not there.name or told.attempt > there.attempt:
        return fields
    if told.attempt < there.attempt:
        return {}
    ends = told.ended is not None and there.ended is None
    if ends or last_seen(told) > last_seen(there):
        return fields
    ranks: dict[str, Json] = {}
    for key in ("heartbeat", "left"):  # a folder may be that of one rank alone
        known = getattr(there, key)
        ranks[key] = {r: t for r, t in getattr(told, key).items() if t > known.get(r, 0.0)}
    return {key: newer for key, newer in ranks.items() if newer}


def _write(home: Home, run: str, fields: dict[str, Json]) -> None:
    if fields:
        home.write_meta(run, fields)
