"""A run recorded on disk: no server needed, read back into memory, damaged files as far as sound.

A folder holds `meta.json`, `schema.json`, `events.jsonl` and `<rank>-<attempt>-<n>.spool`:
records of u32 length, u32 crc32, then header and vector, repeated.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import DamagedRecordingError, StoreError, StoreFullError
from .frames import VECTOR, checked
from .home import Home
from .keys import RUN_ID
from .memory import MERGED, MemoryHome
from .schemas import Event, Frame, Json, Schema, StreamName, dumps

_SIZE = struct.Struct("<II")
_HEAD = struct.Struct("<8sdqIB")
_LARGEST = 64 * 2**20
"""No record is larger: a length beyond it is damage, not a frame."""


def encode_record(frame: Frame) -> bytes:
    """Return a frame as a record of a spool file."""
    family = frame.family.encode()
    head = _HEAD.pack(bytes.fromhex(frame.schema), frame.time, frame.step, frame.seq, len(family))
    vector = np.ascontiguousarray(frame.values, dtype=VECTOR).tobytes()
    body = head + family + vector
    return _SIZE.pack(len(body), zlib.crc32(body)) + body


def decode_records(data: bytes, rank: int, attempt: int) -> Iterator[Frame | str]:
    """Yield the frames of a spool file; last, where it is damaged, one line that says so."""
    place = 0
    while place < len(data):
        if place + _SIZE.size > len(data):
            yield f"cut short at byte {place}"
            return
        size, crc = _SIZE.unpack_from(data, place)
        body = data[place + _SIZE.size : place + _SIZE.size + size]
        if size < _HEAD.size or size > _LARGEST or len(body) < size:
            yield f"cut short at byte {place}"
            return
        if zlib.crc32(body) != crc:
            yield f"damaged at byte {place} (checksum)"
            return
        schema, time, step, seq, letters = _HEAD.unpack_from(body)
        start = _HEAD.size + letters
        yield Frame(
            family=body[_HEAD.size : start].decode(),
            rank=rank,
            attempt=attempt,
            step=step,
            seq=seq,
            time=time,
            schema=schema.hex(),
            values=np.frombuffer(body, dtype=VECTOR, offset=start),
        )
        place += _SIZE.size + size


class RecordingSink:
    """Writes one run into a folder. One process writes; nobody else may."""

    def __init__(self, directory: Path, run: str) -> None:
        self.directory = Path(directory)
        self.run = run
        self._meta: dict[str, Json] = {}
        self._schemas: dict[str, Schema] = {}
        self._last: dict[StreamName, tuple[int, int]] = {}
        self._files: dict[tuple[int, int], int] = {}
        self._event_ids: set[str] = set()
        with _disk(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._meta = _read_json(self.directory / "meta.json") or {}
            schemas = _read_json(self.directory / "schema.json") or {}
        self._schemas = {name: Schema.from_json(text) for name, text in schemas.items()}

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
        with _disk(self.directory):
            _replace(self.directory / "meta.json", dumps({**self._meta, "run": self.run}))

    def add_schema(self, run: str, schema: Schema) -> None:
        if schema.hash in self._schemas:
            return
        self._schemas[schema.hash] = schema
        rows = {name: item.to_json() for name, item in self._schemas.items()}
        with _disk(self.directory):
            _replace(self.directory / "schema.json", json.dumps(rows))

    def append(
        self,
        run: str,
        frames: Sequence[Frame],
        events: Sequence[Event] = (),
        fields: Mapping[str, Json] | None = None,
        *,
        resent: bool = False,
    ) -> int:
        refused = 0
        batches: dict[tuple[int, int], list[bytes]] = {}
        last = dict(self._last)
        for frame in checked(frames):
            if frame.id <= last.get(frame.stream, (-1, 0)):
                refused += 1
                continue
            last[frame.stream] = frame.id
            batches.setdefault((frame.rank, frame.attempt), []).append(encode_record(frame))
        with _disk(self.directory):
            for (rank, attempt), records in batches.items():
                _write_all(self._file(rank, attempt), b"".join(records))
            self._last = last
            new = [event for event in events if event.id not in self._event_ids]
            if new:
                lines = "".join(dumps(event.to_json()) + "\n" for event in new)
                with (self.directory / "events.jsonl").open("a", encoding="utf-8") as file:
                    file.write(lines)
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
        return self._last.get(stream)

    def close(self) -> None:
        for handle in self._files.values():
            os.close(handle)
        self._files.clear()


@dataclass(slots=True)
class Recording:
    """A folder read back: a home that holds its one run, and what of it could not be read."""

    home: MemoryHome
    run: str
    damage: list[str] = field(default_factory=list)


def is_recording(directory: Path) -> bool:
    """Tell whether a folder holds a recorded run."""
    return (Path(directory) / "meta.json").is_file()


def read_recording(directory: Path) -> Recording:
    """Read a recorded run into memory, as far as its files are sound.

    Raises DamagedRecordingError where the folder holds no recording at all.
    """
    directory = Path(directory)
    try:
        meta = _read_json(directory / "meta.json")
        schemas = _read_json(directory / "schema.json") or {}
    except (OSError, ValueError) as error:
        raise DamagedRecordingError(f"cannot read the recording in {directory}: {error}") from error
    if not isinstance(meta, dict) or not RUN_ID.match(str(meta.get("run", ""))):
        raise DamagedRecordingError(
            f"{directory} holds no recording (no meta.json with a run id); "
            "give the folder that the callback named, ./.otoscope/<run id>"
        )
    recording = Recording(MemoryHome(), str(meta.pop("run")))
    home, run = recording.home, recording.run
    for text in schemas.values():
        home.add_schema(run, Schema.from_json(text))
    for path in sorted(directory.glob("*.spool"), key=_spool_order):
        rank, attempt, _ = _spool_order(path)
        frames: list[Frame] = []
        for item in decode_records(path.read_bytes(), rank, attempt):
            if isinstance(item, str):
                recording.damage.append(f"{path.name}: {item}; {len(frames)} frames before it read")
            else:
                frames.append(item)
        home.append(run, [frame for frame in frames if frame.schema in home.schemas(run)])
    events = _read_events(directory / "events.jsonl", recording)
    home.append(run, [], events, resent=True)
    home.write_meta(run, meta)
    _tell_of_a_missing_beginning(recording, events)
    return recording


def _tell_of_a_missing_beginning(recording: Recording, events: Sequence[Event]) -> None:
    """Note where a folder holds only what a server had not taken when the training ended."""
    home, run = recording.home, recording.run
    first = min(
        (frame.step for s in home.streams(run) for frame in home.frames(run, s)[:1]), default=0
    )
    if first > 1 and not any(event.kind == "started" for event in events):
        recording.damage.append(
            f"the steps before {first} are not in this folder, so that a judgement of it may be "
            "wrong: a server has them; `otoscope up` puts the run together again"
        )


def replay(directory: Path, home: Home) -> tuple[str, int]:
    """Take a recording into a home, once: what it holds already is left alone.

    Returns the run id and how many frames were new.
    """
    recording = read_recording(directory)
    source, run = recording.home, recording.run
    for schema in source.schemas(run).values():
        home.add_schema(run, schema)
    new = 0
    for stream in source.streams(run):
        behind = home.last_id(run, stream)
        frames = source.frames(run, stream, after=behind)
        for first in range(0, len(frames), 500):
            new += len(frames[first : first + 500]) - home.append(
                run, frames[first : first + 500], resent=True
            )
    events = [event for _, event in source.events(run)]
    home.append(run, [], events, source.meta(run).to_json(), resent=True)
    return run, new


def _read_events(path: Path, recording: Recording) -> list[Event]:
    events: list[Event] = []
    if not path.exists():
        return events
    for number, line in enumerate(
        path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
    ):
        try:
            events.append(Event.from_json(json.loads(line)))
        except (ValueError, TypeError):
            recording.damage.append(f"{path.name}: line {number} cannot be read")
    return events


def _spool_order(path: Path) -> tuple[int, int, int]:
    try:
        rank, attempt, number = path.stem.split("-")
        return int(rank), int(attempt), int(number)
    except ValueError:
        raise DamagedRecordingError(
            f"{path} is not named <rank>-<attempt>-<number>.spool; move it out of the recording"
        ) from None


def _read_json(path: Path) -> dict[str, Json] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


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
            full = error.errno in (28, 122)  # no space, quota
            what = StoreFullError if full else StoreError
            raise what(
                f"cannot record into {self.directory}: {error.strerror or error}; "
                "free some space or set spool= to another folder"
            ) from error
