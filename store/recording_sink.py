"""The writer of a recording: one run in a folder of its own, where there is no server.

A folder holds `meta.json`, `schema.json`, `events.jsonl` and `<rank>-<attempt>-<n>.spool`.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .buckets import Bucket
from .errors import OtoscopeError, StoreError, StoreFullError
from .frames import checked
from .memory import MERGED
from .schemas import Event, Frame, Json, Schema, StreamName, dumps
from .spool import encode_record

NEWS = frozenset({"heartbeat", "progress", "overhead", "clock_offset", "sending"})
"""Fields of Meta that change all the time."""
NEWS_SECONDS = 10.0

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class RecordingSink:
    """Writes one run into a folder. One process writes; nobody else may."""

    def __init__(self, directory: Path, run: str) -> None:
        self.directory = Path(directory)
        self.run = run
        self._meta: dict[str, Json] = {}
        self._schemas: dict[str, Schema] = {}
        self._last: dict[tuple[str, int, int], tuple[int, int]] = {}
        self._files: dict[tuple[int, int], int] = {}
        self._event_ids: set[str] = set()
        self._told_at, self._untold = 0.0, False
        with _disk(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._meta = _kept(self.directory / "meta.json")
            schemas = _kept(self.directory / "schema.json")
        for name, text in schemas.items():
            with suppress(ValueError, TypeError, KeyError, OtoscopeError):  # edited by hand
                self._schemas[name] = Schema.from_json(text)

    def begin_attempt(self, run: str) -> int:
        attempt = int(self._meta.get("attempt", 0)) + 1
        self.write_meta(run, {"attempt": attempt})
        return attempt

    def write_meta(self, run: str, fields: Mapping[str, Json]) -> None:
        if not fields:
            return
        for key, value in fields.items():
            merged = key in MERGED
            self._meta[key] = {**self._meta.get(key, {}), **value} if merged else value
        # the whole of Meta is not written for each heartbeat: who follows a folder reads its frames
        now = time.monotonic()
        if NEWS.issuperset(fields) and now - self._told_at < NEWS_SECONDS:
            self._untold = True
            return
        self._told_at, self._untold = now, False
        with _disk(self.directory):
            _replace(self.directory / "meta.json", dumps({**self._meta, "run": self.run}))

    def add_schema(self, run: str, schema: Schema) -> None:
        if schema.hash in self._schemas:
            return
        known = {**self._schemas, schema.hash: schema}
        rows = {name: item.to_json() for name, item in known.items()}
        with _disk(self.directory):
            _replace(self.directory / "schema.json", json.dumps(rows))
        self._schemas = known  # not before it is written: a full disk is asked again

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
        refused = 0
        batches: dict[tuple[int, int], list[bytes]] = {}
        last = dict(self._last)
        for frame in checked(frames):
            # tuples: to make and hash a StreamName a frame costs more than its record
            stream, place = (frame.family, frame.rank, frame.attempt), (frame.step, frame.seq)
            if place <= last.get(stream, (-1, 0)):
                refused += 1
                continue
            last[stream] = place
            batches.setdefault(stream[1:], []).append(encode_record(frame))
        with _disk(self.directory):
            for (rank, attempt), records in batches.items():
                _write_all(self._file(rank, attempt), b"".join(records))
            self._last = last
            new = [event for event in events if event.id not in self._event_ids]
            if new:
                lines = "".join(dumps(event.to_json()) + "\n" for event in new)
                _append_to(self.directory / "events.jsonl", lines.encode())
                self._event_ids |= {event.id for event in new}
        self.write_meta(run, fields or {})
        return refused

    def _file(self, rank: int, attempt: int) -> int:
        """Return the descriptor of a file of our own: a later process begins another number."""
        if (rank, attempt) not in self._files:
            number = len(list(self.directory.glob(f"{rank}-{attempt}-*.spool")))
            path = self.directory / f"{rank}-{attempt}-{number}.spool"
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._files[rank, attempt] = os.open(path, flags, 0o644)
        return self._files[rank, attempt]

    def last_id(self, run: str, stream: StreamName) -> tuple[int, int] | None:
        return self._last.get((stream.family, stream.rank, stream.attempt))

    def trim(self, run: str, stream: StreamName, before: int) -> None:
        return None  # a recording keeps all of its frames

    def judged_to(self, run: str) -> tuple[int, int] | None:
        return None

    def close(self) -> None:
        if self._untold:
            with suppress(StoreError), _disk(self.directory):
                _replace(self.directory / "meta.json", dumps({**self._meta, "run": self.run}))
        for handle in self._files.values():
            os.close(handle)
        self._files.clear()


def read_json(path: Path) -> Json:
    """Return what a JSON file holds, None where there is no such file; ValueError where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except RecursionError:
        raise ValueError("brackets within brackets, too many to be read") from None


def _kept(path: Path) -> dict[str, Json]:
    """Return the object in a JSON file of an earlier process; what is none is set aside, not lost."""
    try:
        body = read_json(path)
    except ValueError:
        body = []
    if body is None or isinstance(body, dict):
        return body or {}
    path.replace(path.with_name(f"{path.name}.damaged"))
    return {}


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def _append_to(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _write_all(handle, data)
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes) -> None:
    """Write all of the bytes, or none: a full disk must not leave half a record."""
    size = os.fstat(handle).st_size
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(handle, view) :]
    except OSError:
        os.ftruncate(handle, size)
        raise


class _disk:  # noqa: N801 (reads as a statement: with _disk(directory))
    """Turns trouble with the disk into the store's errors."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            full = error.errno in _FULL
            what = StoreFullError if full else StoreError
            raise what(
                f"cannot record into {self.directory}: {error.strerror or error}; "
                "free some space or set spool= to another folder"
            ) from error
