"""A run recorded on disk, read back: as far as its files are sound, and where they are not.

`RecordingSink` writes it, `read_recording` reads it into memory, `replaying.replay` takes it into
another home without holding it in memory.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .claims import CLAIM, is_claimed
from .memory import MemoryHome
from .recording_reader import OpenRecording
from .recording_sink import RecordingSink, read_json
from .rollups import Rollups
from .runs import run_info
from .schemas import Event, Frame, RunInfo

__all__ = [
    "OpenRecording",
    "Recording",
    "RecordingSink",
    "is_of_others",
    "is_recording",
    "read_recording",
]

FILES = ("*.spool", "events.jsonl", "schema.json", "meta.json", "*.json.damaged", CLAIM)
"""What a recording is made of: nothing else is ever deleted."""

AT_ONCE = 2000
"""Frames that are put into a home in one call."""


@dataclass(slots=True)
class Recording:
    """A folder read back: a home that holds its one run, and what of it could not be read."""

    home: MemoryHome
    run: str
    damage: list[str] = field(default_factory=list)


def is_recording(directory: Path) -> bool:
    """Tell whether a folder holds a recorded run, or what is left of one."""
    directory = Path(directory)
    if any(directory.glob("*-*-*.spool")):
        return True
    return (directory / "meta.json").is_file() and not is_of_others(directory)


def is_of_others(directory: Path) -> bool:
    """Tell whether a folder's `meta.json` is another tool's: the name is a common one.

    Ours names its run and its attempt from the first write on. One that cannot be read may be ours.
    """
    path = Path(directory) / "meta.json"
    try:
        body = read_json(path)
    except (OSError, ValueError):
        return False
    if not path.is_file() or (path.parent / "schema.json").is_file():
        return False
    return not (isinstance(body, dict) and {"run", "attempt"} <= body.keys())


def read_recording(directory: Path, *, mapped: bool = False) -> Recording:
    """Read a recorded run into memory, as far as its files are sound.

    With `mapped` the numbers stay in the files, so that a run of a week fits; nobody may cut them.

    Raises DamagedRecordingError where the folder holds no recording at all.
    """
    source = OpenRecording(directory)
    recording = Recording(MemoryHome(), source.run, source.damage)
    home, run = recording.home, recording.run
    rollups, batch = Rollups(), list[Frame]()
    for frame in source.frames(mapped=mapped):
        batch.append(frame)
        if len(batch) == AT_ONCE:
            home.append(run, batch, buckets=rollups.take(batch))
            batch = []
    home.append(run, batch, buckets=rollups.take(batch))
    for schema in source.schemas.values():
        home.add_schema(run, schema)
    home.append(run, [], source.events, resent=True)
    home.write_meta(run, source.fields)
    _tell_of_a_missing_beginning(recording, source.events)
    return recording


def _tell_of_a_missing_beginning(recording: Recording, events: list[Event]) -> None:
    """Note where a folder holds only what a server had not taken when the training ended."""
    home, run = recording.home, recording.run
    firsts = [home.frames(run, stream, count=1) for stream in home.streams(run)]
    first = min((frame.step for frames in firsts for frame in frames), default=0)
    if first > 1 and not any(event.kind == "started" for event in events):
        recording.damage.append(
            f"the steps before {first} are not in this folder, so that a judgement of it may be "
            "wrong: a server has them; `otoscope up` puts the run together again"
        )


def read_card(directory: Path) -> tuple[RunInfo, int]:
    """Return a recording's row of the list of runs, and its bytes on disk; no sample is read.

    Raises DamagedRecordingError where the folder holds no recording.
    """
    source = OpenRecording(directory)
    info = run_info(source.run, source.meta, {}, [], {}, time.time())
    if source.is_growing or is_claimed(source.directory):
        info.status = "live"
    files = [path for folder in source.folders() for glob in FILES for path in folder.glob(glob)]
    return info, sum(path.stat().st_size for path in files)


def remove_recording(directory: Path) -> None:
    """Delete the files of a recording, and its folder where nothing else lies in it."""
    for folder in (*sorted(Path(directory).glob("rank-*")), Path(directory)):
        for glob in FILES:
            for path in folder.glob(glob):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()
