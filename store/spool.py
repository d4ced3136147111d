"""Records of a spool file: frames on disk, each with its length and checksum, read as far as sound.

A record is u32 length, u32 crc32, then header (schema hash, time, step, seq, letters of the
family), family and vector. A file holds one rank of one attempt: `<rank>-<attempt>-<n>.spool`.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .frames import VECTOR
from .schemas import Frame

_SIZE = struct.Struct("<II")
_HEAD = struct.Struct("<8sdqIB")
_LARGEST = 64 * 2**20
"""No record is larger: a length beyond it is damage, not a frame."""

Bytes = bytes | mmap.mmap | memoryview
"""What a file's records are read from; from a memoryview their vectors are views too, no copies."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """A place of a spool file that cannot be read.

    `at_end` says that only the end is missing, as in a file that is being written right now;
    `after` is where the next record should begin, None where nobody can tell.
    """

    byte: int
    what: str
    at_end: bool = False
    after: int | None = None

    def __str__(self) -> str:
        return f"{self.what} at byte {self.byte}"


def encode_record(frame: Frame) -> bytes:
    """Return a frame as a record of a spool file."""
    family = frame.family.encode()
    head = _HEAD.pack(bytes.fromhex(frame.schema), frame.time, frame.step, frame.seq, len(family))
    vector = np.ascontiguousarray(frame.values, dtype=VECTOR).tobytes()
    body = head + family + vector
    return _SIZE.pack(len(body), zlib.crc32(body)) + body


def record_bytes(frame: Frame) -> int:
    """Return how long a frame's record is."""
    return (
        _SIZE.size + _HEAD.size + len(frame.family.encode()) + VECTOR.itemsize * len(frame.values)
    )


def decode_records(data: Bytes, rank: int, attempt: int) -> Iterator[Frame | Flaw]:
    """Yield the frames of a spool file, and a Flaw for each place that cannot be read.

    A record with a wrong checksum is left out; reading goes on behind it where a sound record
    begins there, and ends where none does.
    """
    place = 0
    while place < len(data):
        body = _body(data, place)
        if not isinstance(body, Flaw):
            after: int | None = place + _SIZE.size + len(body)
            found = _frame(body, place, after, rank, attempt)
            yield found
        else:
            yield body
            after = body.after
            if after is not None and after < len(data):
                after = None if isinstance(_body(data, after), Flaw) else after
        if after is None:
            return
        place = after


def read_spool(
    path: Path, rank: int, attempt: int, *, mapped: bool = False
) -> Iterator[Frame | Flaw]:
    """Yield what `decode_records` finds in a file, which is mapped and never read whole.

    With `mapped` the vectors stay in the file, whose pages come and go as they are used; it must
    not be cut while they are.

    Raises OSError where the file cannot be opened.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if mapped:
        yield from decode_records(memoryview(data), rank, attempt)
        return
    with data:
        yield from decode_records(data, rank, attempt)


def _body(data: Bytes, place: int) -> bytes | memoryview | Flaw:
    """Return the body of the record at a place, or what is wrong there."""
    if place + _SIZE.size > len(data):
        return Flaw(place, f"cut short ({len(data) - place} bytes of a record are left)", True)
    size, crc = _SIZE.unpack_from(data, place)
    if size == crc == 0 and _only_zeros(data, place):
        return Flaw(place, f"nothing but zeros ({len(data) - place} bytes, after a power cut?)")
    if not _HEAD.size <= size <= _LARGEST:
        what = "no record begins" if place else "this is no spool file: no record begins"
        return Flaw(place, what)
    begin = place + _SIZE.size
    body = data[begin : begin + size]
    if len(body) < size:
        there = len(data) - place
        return Flaw(place, f"cut short ({there} of {size + _SIZE.size} bytes of a record)", True)
    if zlib.crc32(body) != crc:
        return Flaw(place, "the checksum does not match", after=begin + size)
    return body


def _frame(
    body: bytes | memoryview, place: int, after: int | None, rank: int, attempt: int
) -> Frame | Flaw:
    schema, time, step, seq, letters = _HEAD.unpack_from(body)
    start = _HEAD.size + letters
    name = bytes(body[_HEAD.size : start])
    sound = len(name) == letters > 0 and name.isascii() and (len(body) - start) % 4 == 0
    if not sound or step < 0 or seq < 1:
        return Flaw(place, "a record that no frame can be", after=after)
    return Frame(
        family=name.decode(),
        rank=rank,
        attempt=attempt,
        step=step,
        seq=seq,
        time=time,
        schema=schema.hex(),
        values=np.frombuffer(body, dtype=VECTOR, offset=start),
    )


def _only_zeros(data: Bytes, place: int) -> bool:
    step = 1 << 20
    return not any(
        bytes(data[first : first + step]).strip(b"\0") for first in range(place, len(data), step)
    )
