"""The reader of a recording: its files one by one, as far as they are sound, and where not.

A folder holds `meta.json`, `schema.json`, `events.jsonl` and `<rank>-<attempt>-<n>.spool`; what
the other ranks of a distributed run wrote lies in folders `rank-<n>` of the same kind below it.
"""

from __future__ import annotations

import heapq
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .errors import DamagedRecordingError, OtoscopeError
from .jobs import UNTOLD, read_job
from .keys import RUN_ID
from .memory import MERGED
from .recording_sink import read_json
from .schemas import Event, Frame, Json, Meta, Schema
from .spool import read_spool

WRITTEN_SECONDS = 15.0
"""A run that has not ended and whose files changed so lately is still being recorded."""
STILL_WRITTEN = " (it may be written right now)"


class OpenRecording:
    """The folder of a recorded run, read frame by frame; `damage` grows as flaws are met.

    Raises DamagedRecordingError where the folder holds no recording at all.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.damage: list[str] = []
        self.fields = self._meta()
        self.run = self._run_id()
        if not self.fields:  # without any, no list would show the run
            attempts = [spool_order(path)[1] for path in self.spools()]
            self.fields = {"name": self.run, "attempt": max(attempts, default=1)}
        self.events = self._events()
        self.schemas = self._schemas()
        self._unknown: Counter[tuple[str, str]] = Counter()

    @property
    def meta(self) -> Meta:
        """What the run told of itself."""
        return Meta.from_json(self.fields)

    @property
    def is_growing(self) -> bool:
        """Whether the run seems to be recorded right now: its last sample may be half written."""
        ended = self.meta.ended
        if ended and ended.get("attempt", self.meta.attempt) == self.meta.attempt:
            return False
        newest = max((path.stat().st_mtime for path in self.spools()), default=0.0)
        return time.time() - newest < WRITTEN_SECONDS

    @property
    def is_fragment(self) -> bool:
        """Whether this is only what a server had not taken when the training ended."""
        if any(event.kind == "started" for event in self.events):
            return False
        return next((frame.step for frame in self.frames()), 1) > 1

    @property
    def size(self) -> int:
        """Bytes of all spool files."""
        return sum(path.stat().st_size for path in self.spools())

    def spools(self) -> list[Path]:
        """Return the spool files in the order in which they were written."""
        found = [path for folder in self.folders() for path in folder.glob("*.spool")]
        return sorted(found, key=spool_order)

    def folders(self) -> list[Path]:
        """Return the folder itself, and those of the other ranks."""
        return [self.directory, *sorted(self.directory.glob("rank-*"))]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.directory).as_posix()

    def frames(self, *, mapped: bool = False) -> Iterator[Frame]:
        """Yield the frames attempt by attempt, the ranks of an attempt side by side by their time.

        With `mapped` their vectors stay in the files (see `read_spool`).
        """
        files: dict[int, dict[int, list[Path]]] = {}
        for path in self.spools():
            rank, attempt, _ = spool_order(path)
            files.setdefault(attempt, {}).setdefault(rank, []).append(path)
        for attempt in sorted(files):
            ranks = [self._of_files(paths, mapped) for _, paths in sorted(files[attempt].items())]
            yield from heapq.merge(*ranks, key=lambda frame: frame.time)
        for (name, schema), count in sorted(self._unknown.items()):
            self.damage.append(
                f"{name}: {count} samples left out, their schema {schema} is not in schema.json"
            )
        self._unknown.clear()

    def _of_files(self, paths: list[Path], mapped: bool) -> Iterator[Frame]:
        for path in paths:
            rank, attempt, _ = spool_order(path)
            count = 0
            try:
                for item in read_spool(path, rank, attempt, mapped=mapped):
                    if isinstance(item, Frame):
                        count += 1
                        if self._is_known(item.schema):
                            yield item
                        else:
                            self._unknown[self._name(path), item.schema] += 1
                    else:
                        more = STILL_WRITTEN if item.at_end and self.is_growing else ""
                        self._tell(
                            f"{self._name(path)}: {item}; {count} samples before it read{more}"
                        )
            except OSError as error:
                self.damage.append(
                    f"{self._name(path)}: cannot be read ({error.strerror or error})"
                )

    def _is_known(self, schema: str) -> bool:
        if schema not in self.schemas and self.is_growing:
            self.schemas |= self._schemas()  # written a moment ago, before its first frame
        return schema in self.schemas

    def _meta(self) -> dict[str, Json]:
        path = self.directory / "meta.json"
        try:
            body = read_json(path)
        except (OSError, ValueError) as error:
            if not self.spools():
                raise DamagedRecordingError(
                    f"cannot read the recording in {self.directory}: {path.name}: {_why(error)}"
                ) from error
            self.damage.append(f"{path.name}: {_why(error)}; what the run told of itself is lost")
            return {}
        if body is None and self.spools():
            self.damage.append(f"{path.name}: missing; what the run told of itself is lost")
        found = self._fitting(body) if isinstance(body, dict) else {}
        for folder in self.folders()[1:]:
            with suppress(OSError, ValueError, AttributeError):  # its samples are read all the same
                told = read_json(folder / "meta.json") or {}
                for key in MERGED:
                    found[key] = {**told.get(key, {}), **found.get(key, {})}
        return found

    def _fitting(self, body: dict[str, Json]) -> dict[str, Json]:
        """Return the fields of Meta whose value is of their kind."""
        kept: dict[str, Json] = {}
        for key, value in body.items():
            if getattr(Meta.from_json({key: value}), key, value) == value:
                kept[key] = value
            else:
                self._tell(f"meta.json: {key} cannot be {str(value)[:60]!r}; left out")
        return kept

    def _told_by_rank_0(self, run: str) -> str:
        """Return the run of a rank that had not learnt it, where rank 0 left it beside."""
        told = read_job(self.directory.parent.parent, run.removeprefix(UNTOLD))
        return told.split()[0] if run.startswith(UNTOLD) and told else run

    def _run_id(self) -> str:
        told = self._told_by_rank_0(str(self.fields.pop("run", "")))
        if RUN_ID.match(told):
            return told
        if not self.spools():
            raise DamagedRecordingError(
                f"{self.directory} holds no recording (no meta.json with a run id); "
                "give the folder that the callback named, ./.otoscope/<run id>"
            )
        name = self.directory.resolve().name
        if not RUN_ID.match(name):
            raise DamagedRecordingError(
                f"{self.directory} holds samples, but no meta.json tells of which run; "
                "name the folder as the run's id and try again"
            )
        if (self.directory / "meta.json").exists() and not self.damage:
            self.damage.append(f"meta.json: no run id, got {told!r}; taken from the folder's name")
        return name

    def _schemas(self) -> dict[str, Schema]:
        found: dict[str, Schema] = {}
        for folder in self.folders():
            found |= self._schemas_of(folder)
        return found

    def _schemas_of(self, folder: Path) -> dict[str, Schema]:
        path = folder / "schema.json"
        name = self._name(path)
        try:
            rows = read_json(path)
        except (OSError, ValueError) as error:
            self._tell(f"{name}: {_why(error)}")
            return {}
        if not isinstance(rows, dict):
            if rows is not None or any(folder.glob("*.spool")):
                self._tell(f"{name}: {'missing' if rows is None else 'holds no schemas'}")
            return {}
        found: dict[str, Schema] = {}
        for key, text in rows.items():
            try:
                schema = Schema.from_json(text)
            except (ValueError, TypeError, KeyError, OtoscopeError) as error:
                self._tell(f"{name}: schema {key} cannot be read ({_why(error)})")
                continue
            if schema.hash != key:
                # its columns would be put under wrong names, which nobody could see later
                self._tell(f"{name}: schema {key} was changed, its hash is {schema.hash}")
                continue
            found[key] = schema
        return found

    def _tell(self, line: str) -> None:
        if line not in self.damage:
            self.damage.append(line)

    def _events(self) -> list[Event]:
        return [event for folder in self.folders() for event in self._events_of(folder)]

    def _events_of(self, folder: Path) -> list[Event]:
        path, events, place = folder / "events.jsonl", [], 0
        try:
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            self.damage.append(f"{self._name(path)}: cannot be read ({error.strerror or error})")
            return events
        for number, line in enumerate(data.splitlines(keepends=True), 1):
            try:
                events.append(Event.from_json(json.loads(line.decode())))
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                more = STILL_WRITTEN if not line.endswith(b"\n") and self.is_growing else ""
                at = f"line {number} at byte {place}"
                self._tell(f"{self._name(path)}: {at} cannot be read ({_why(error)}){more}")
            place += len(line)
        return events


def spool_order(path: Path) -> tuple[int, int, int]:
    """Return rank, attempt and number of a spool file, from its name."""
    try:
        rank, attempt, number = path.stem.split("-")
        return int(rank), int(attempt), int(number)
    except ValueError:
        raise DamagedRecordingError(
            f"{path} is not named <rank>-<attempt>-<number>.spool; move it out of the recording"
        ) from None


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON at byte {error.pos}: {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return f"no UTF-8 at byte {error.start}"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    return f"{type(error).__name__}: {error}"
