"""Batches on their way to the store, and the backlog of them that waits on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..store import Event, Frame, Schema, Sink
from ..store.memory import MERGED
from ..store.recording import RecordingSink, read_recording
from ..store.schemas import Json


@dataclass(slots=True)
class Batch:
    """What one write holds. `in_doubt` says that an earlier try may have reached the store."""

    frames: list[Frame] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    schemas: list[Schema] = field(default_factory=list)
    fields: dict[str, Json] = field(default_factory=dict)
    in_doubt: bool = False
    failures: int = 0

    def merge(self, fields: dict[str, Json]) -> None:
        """Take fields of Meta: the later value wins, ranks are merged."""
        for key, value in fields.items():
            merged = key in MERGED and key in self.fields
            self.fields[key] = {**self.fields[key], **value} if merged else value

    def number(self, attempt: int) -> None:
        """Write the attempt into everything that counts by it."""
        for frame in self.frames:
            frame.attempt = attempt
        for event in self.events:
            event.attempt = attempt
        ended = self.fields.get("ended")
        if isinstance(ended, dict):
            ended["attempt"] = attempt


class Backlog:
    """Frames and events on disk that the store has not taken yet, in order."""

    def __init__(self, run: str, directory: Path) -> None:
        self.run = run
        self.directory = directory
        self.frames = 0
        self.events = 0
        self._sink: RecordingSink | None = None
        self._waiting = Batch()

    def keep(self, batch: Batch, schemas: Iterable[Schema], told: dict[str, Json]) -> None:
        """Write a batch behind what waits already; raises StoreError where the disk is full.

        `told` is all of Meta so far: the folder shall be a recording of its own.
        """
        if self._sink is None:
            self._sink = RecordingSink(self.directory, self.run)
            self._sink.write_meta(self.run, {**told, **self._waiting.fields})
        for schema in schemas:
            self._sink.add_schema(self.run, schema)
        self._sink.append(self.run, batch.frames, batch.events, batch.fields)
        self._waiting.merge(batch.fields)
        self.frames += len(batch.frames)
        self.events += len(batch.events)

    def replay(self, sink: Sink, attempt: int) -> int:
        """Send everything that waits, once and in order; returns the count of frames it held.

        The files are removed once the store has all of them.
        """
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        recording = read_recording(self.directory)
        source, run = recording.home, recording.run
        for schema in source.schemas(run).values():
            sink.add_schema(run, schema)
        sent = 0
        for stream in source.streams(run):
            frames = source.frames(run, stream)
            for frame in frames:
                frame.attempt = attempt
            behind = sink.last_id(run, frames[0].stream) or (-1, 0)
            rest = [frame for frame in frames if frame.id > behind]
            for start in range(0, len(rest), 500):
                sink.append(run, rest[start : start + 500], resent=True)
            sent += len(frames)
        events = [event for _, event in source.events(run)]
        for event in events:
            event.attempt = attempt
        sink.append(run, [], events, self._waiting.fields, resent=True)
        self._forget()
        return sent

    def _forget(self) -> None:
        self.frames = self.events = 0
        self._waiting = Batch()
        for path in [*self.directory.glob("*.spool"), self.directory / "events.jsonl"]:
            path.unlink(missing_ok=True)
        for name in ("meta.json", "schema.json"):
            (self.directory / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.directory.rmdir()
