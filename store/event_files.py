"""TensorBoard event files: their scalars as curves by step, as far as their records are whole."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any

from .errors import MissingExtraError, UnreadableLogError
from .log_curves import LARGEST, Log, Writing

EVENTS = "events.out.tfevents."
"""What the name of an event file holds."""
NO_EVENTS = ".profile-empty"
"""Ends the names of those that hold none by intent."""
HEADER = struct.Struct("<QI")
"""In front of each record: its length in bytes, and the checksum of that."""
CHECKSUM = struct.Struct("<I")
"""Behind each record."""


def is_event_file(path: Path) -> bool:
    """Tell whether a path is called as TensorBoard calls its event files."""
    return EVENTS in path.name and not path.name.endswith(NO_EVENTS)


def read_events(path: Path, loss: str | None = None) -> Log:
    """Return the scalars of an event file, or of all in a folder, in the order of their names.

    `loss` is the tag whose steps tell where a run was started again; None finds it by name.

    Raises:
        UnreadableLogError: no scalar can be read.
        MissingExtraError: the package `tensorboard`, which reads them, is not there.
    """
    files = sorted(filter(is_event_file, path.iterdir())) if path.is_dir() else [path]
    log, events = Log(), _Events()
    for file in files:
        end = events.read(file)
        if end:
            log.remarks.append(f"{file.name!r} {end}")
    if not events.writing:
        left_out = f"its {events.left_out:,} points have steps that are negative or too large"
        cause = left_out if events.left_out else "it is cut off or empty, or no event file"
        raise UnreadableLogError(f"{str(path)!r} holds no scalar that can be read: {cause}")
    log.times = events.times
    log.remark(events.left_out, "point whose step is negative or too large was left out",
               "points whose step is negative or too large were left out")  # fmt: skip
    events.writing.settle(log, lead=loss, together=False)  # a tag may count what it likes
    return log


class _Events:
    """What several event files hold.

    TensorBoard's own accumulator stops at a damaged record as it does at the end, and does not tell
    where: so its reader of records is asked.
    """

    def __init__(self) -> None:
        try:
            from google.protobuf.message import DecodeError
            from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
            from tensorboard.compat.proto import event_pb2
            from tensorboard.util.tensor_util import make_ndarray
        except ImportError:
            raise MissingExtraError(
                "TensorBoard event files are read by the package tensorboard, which is not installed: "
                "pip install 'otoscope[tensorboard]'"
            ) from None
        kinds: Any = event_pb2  # its classes are made when it is imported
        self._records, self._array = RawEventFileLoader, make_ndarray
        self._decode, self._undecodable = kinds.Event.FromString, DecodeError
        self._start = kinds.SessionLog.START
        self.writing = Writing()
        self.times: dict[int, float] = {}
        self.left_out = 0

    def read(self, file: Path) -> str | None:
        """Take a file's scalars; return how it ends, None where its last record is whole."""
        try:
            file.open("rb").close()
        except OSError as error:
            raise UnreadableLogError(f"cannot read {str(file)!r}: {error.strerror}") from error
        place, step, is_sound = 0, None, True
        for record in self._records(str(file)).Load():
            try:
                event = self._decode(record)
            except self._undecodable:
                is_sound = False
                break
            place += HEADER.size + len(record) + CHECKSUM.size
            if self._take(event):
                step = event.step
        end = _end(file, place) if is_sound else "damaged"
        if end == "cut off":
            read = "nothing could be read" if step is None else f"read up to step {step:,}"
            return f"ends within a record, as where it is still being written: {read}"
        if end == "damaged":
            behind = "" if step is None else f" behind step {step:,}"
            size = file.stat().st_size
            return f"is damaged{behind}, at byte {place:,} of {size:,}: what follows was not read"
        return None

    def _take(self, event: Any) -> bool:
        """Take an event's scalars; tell whether it had any."""
        if event.HasField("session_log") and event.session_log.status == self._start:
            self.writing.begin_again(max(event.step, 0))
            return False
        values = [(value.tag, self._scalar(value)) for value in event.summary.value]
        scalars = [(tag, value) for tag, value in values if value is not None]
        if not 0 <= event.step <= LARGEST:
            self.left_out += len(scalars)
            return False
        self.writing.at(event.step)
        for tag, value in scalars:
            self.writing.add(tag, value)
        if scalars and math.isfinite(event.wall_time):
            self.times[event.step] = event.wall_time
        return bool(scalars)

    def _scalar(self, value: Any) -> float | None:
        if value.HasField("simple_value"):
            return value.simple_value
        if not value.HasField("tensor"):
            return None
        if math.prod(dim.size for dim in value.tensor.tensor_shape.dim) != 1:
            return None
        try:
            array = self._array(value.tensor)
        except (TypeError, ValueError):  # of a kind that holds no numbers
            return None
        return (
            float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiu" else None
        )


def _end(file: Path, place: int) -> str | None:
    """Return what stands where reading ended: None (nothing, or a whole record that came since), cut off, damaged."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    with file.open("rb") as stream:
        left = os.fstat(stream.fileno()).st_size - place
        stream.seek(place)
        header = stream.read(HEADER.size)
        if not header:
            return None
        if len(header) < HEADER.size:
            return "cut off"
        length, checksum = HEADER.unpack(header)
        if masked_crc32c(header[:8]) != checksum:
            return "damaged"
        if length + CHECKSUM.size > left - HEADER.size:
            return "cut off"
        record, behind = stream.read(length), stream.read(CHECKSUM.size)
    return None if CHECKSUM.pack(masked_crc32c(record)) == behind else "damaged"
