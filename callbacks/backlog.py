"""Batches on their way to the store, and the backlog of them that waits on disk."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..store import Event, Frame, Schema, StoreError
from ..store.buckets import Bucket
from ..store.claims import claim, let_go
from ..store.memory import MERGED
from ..store.places import forget_recording, register_recording
from ..store.recording import FILES, RecordingSink
from ..store.schemas import Json
from ..store.spool import decode_records

BATCH = 500
"""Frames in one write, at most."""
BATCH_BYTES = 8 * 2**20
"""Bytes in one write, at most: the models of many thousand layers have frames of 100 kB."""


@dataclass(slots=True)
class Batch:
    """What one write holds. `in_doubt` says that an earlier try may have reached the store."""

    frames: list[Frame] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    schemas: list[Schema] = field(default_factory=list)
    fields: dict[str, Json] = field(default_factory=dict)
    in_doubt: bool = False
    failures: int = 0
    buckets: list[Bucket] | None = None
    """What the frames completed, once they were rolled up, which happens once."""
    unreadable: int = 0
    """Frames that were on disk and cannot be read back."""
    on_disk: bool = False

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


@dataclass(slots=True)
class _Portion:
    """A stretch of a spool file, and the events that came with it."""

    path: Path
    start: int
    end: int
    frames: int
    events: list[Event]
    buckets: list[Bucket] | None


class Backlog:
    """Frames and events on disk that the store has not taken yet, in order.

    They lie in a folder that is nobody else's, so that it can be removed: a sibling of `directory`
    where that exists already (an earlier attempt's, or the recording itself). The folder is a
    recording; it is registered while it waits, so that a killed process leaves it to be found.
    """

    def __init__(self, run: str, directory: Path) -> None:
        self.run = run
        self.directory = directory
        self.frames = 0
        self.lock = threading.Lock()
        """Held while something is written: at the end another thread may have to."""
        self._sink: RecordingSink | None = None
        self._told = False
        self._under_way: Batch | None = None
        self._portions: deque[_Portion] = deque()
        self._waiting = Batch()

    @property
    def waits(self) -> bool:
        """Whether anything waits on disk."""
        return bool(self._portions)

    @property
    def folder(self) -> Path:
        """The folder that what waits lies in."""
        return self.directory if self._sink is None else self._sink.directory

    def keep(self, batch: Batch, schemas: Iterable[Schema], told: dict[str, Json]) -> None:
        """Write a batch behind what waits already; raises StoreError where the disk is full.

        `told` is all of Meta so far: the folder shall be a recording of its own. Where it raises
        no frame of the batch was written.
        """
        sink = self._sink = self._sink or self._claimed()
        sink.write_meta(self.run, batch.fields if self._told else {**told, **batch.fields})
        self._told = True
        for schema in schemas:
            sink.add_schema(self.run, schema)
        sink.append(self.run, [], batch.events)
        place, start = self._end_of(sink, batch)
        sink.append(self.run, batch.frames)  # last, for it is all or nothing
        self._waiting.merge(batch.fields)
        self.frames += len(batch.frames)
        _, end = self._end_of(sink, batch)
        self._add(_Portion(place, start, end, len(batch.frames), list(batch.events), batch.buckets))

    def _add(self, new: _Portion) -> None:
        """Put a portion behind the others, or into the last one: a week has a million batches."""
        last = self._portions[-1] if len(self._portions) > 1 else None  # the first may be under way
        size = 0 if last is None else new.end - last.start
        if (
            last is None
            or last.buckets is not None
            or new.buckets is not None
            or last.path != new.path
            or size > BATCH_BYTES
            or last.frames + new.frames > BATCH
        ):
            self._portions.append(new)
            return
        last.end, last.frames = new.end, last.frames + new.frames
        last.events += new.events

    def belong(self, run: str, directory: Path) -> None:
        """Learn which run this is; what waits on disk already stays where it is."""
        self.run, self.directory = run, directory
        if self._sink is not None:
            self._sink.run = run

    def _claimed(self) -> RecordingSink:
        """Return a folder that no other process and no other attempt writes to."""
        for number in itertools.count():
            name = self.directory.name + (f"-{number}" if number else "")
            path = self.directory.with_name(name)
            try:
                path.mkdir(parents=True, exist_ok=True)
                if not _is_free(path):
                    continue
                claim(path)
            except FileExistsError:
                if path.is_dir():
                    continue
                raise StoreError(
                    f"cannot record into {path}: it is a file; set spool= to another folder"
                ) from None
            except OSError as error:
                raise StoreError(
                    f"cannot record into {path}: {error.strerror or error}; "
                    "free some space or set spool= to another folder"
                ) from error
            register_recording(path)
            return RecordingSink(path, self.run)
        raise AssertionError  # itertools.count has no end

    def _end_of(self, sink: RecordingSink, batch: Batch) -> tuple[Path, int]:
        if not batch.frames:
            return sink.directory, 0
        frame = batch.frames[0]
        path = sink.directory / f"{frame.rank}-{frame.attempt}-0.spool"
        return path, path.stat().st_size if path.exists() else 0

    def first(self, attempt: int) -> Batch:
        """Return what has waited longest, read back; the same batch until `done` is called."""
        if self._under_way is not None:
            return self._under_way
        portion = self._portions[0]
        batch = Batch(events=portion.events, in_doubt=True, on_disk=True, buckets=portion.buckets)
        if portion.frames:
            rank = int(portion.path.name.partition("-")[0])
            with contextlib.suppress(OSError), portion.path.open("rb") as file:
                file.seek(portion.start)
                data = file.read(portion.end - portion.start)
                batch.frames = [f for f in decode_records(data, rank, attempt) if type(f) is Frame]
            batch.unreadable = portion.frames - len(batch.frames)
        if len(self._portions) == 1:
            batch.fields = dict(self._waiting.fields)
        batch.number(attempt)
        self._under_way = batch
        return batch

    def done(self) -> None:
        """Forget what has waited longest; with the last of it the folder goes."""
        self._under_way = None
        self.frames -= self._portions.popleft().frames
        self.tidy()

    def leave(self) -> None:
        """Let others take in what waits: this process will not send it any more."""
        if self._sink is not None:
            let_go(self._sink.directory)

    def tidy(self) -> None:
        """Remove the folder where nothing waits in it: a full disk may have left a beginning."""
        if self._portions or self._sink is None:
            return
        self._sink.close()
        folder = self._sink.directory
        self._sink, self._told, self._waiting = None, False, Batch()
        with contextlib.suppress(OSError):
            for glob in FILES:
                for path in folder.glob(glob):
                    path.unlink()
            folder.rmdir()
            if folder.name.startswith("rank-"):  # beside those of other ranks, or the last of them
                folder.parent.rmdir()
        with contextlib.suppress(OSError):
            forget_recording(folder.resolve())


def _is_free(folder: Path) -> bool:
    """Tell whether nobody's files lie in a folder, ours or others'; those of other ranks have one each."""
    return all(path.name.startswith("rank-") and path.is_dir() for path in folder.iterdir())
