"""Frames as bytes: little-endian float32 in the order of the schema, with hash and time.

4.3 bytes a number in Redis against 20 to 25 for a field or a stream per series.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from .errors import ConfigError
from .schemas import Frame, StreamName

_TIME = struct.Struct("<d")
VECTOR = np.dtype("<f4")


def encode_id(step: int, seq: int = 1) -> str:
    """Return the stream id of a step.

    >>> encode_id(1200)
    '1200-1'
    """
    return f"{step}-{seq}"


def decode_id(text: str | bytes) -> tuple[int, int]:
    """Return (step, seq) of a stream id.

    >>> decode_id(b"1200-1")
    (1200, 1)
    """
    step, _, seq = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(step), int(seq)


def encode(frame: Frame) -> tuple[bytes, bytes, bytes]:
    """Return a frame's fields (h, t, v): schema hash, time, vector."""
    vector = np.ascontiguousarray(frame.values, dtype=VECTOR)
    return bytes.fromhex(frame.schema), _TIME.pack(frame.time), vector.tobytes()


def decode(
    stream: StreamName, step: int, seq: int, schema: bytes, time: bytes, vector: bytes
) -> Frame:
    """Return the frame of a stream's entry."""
    return Frame(  # by position: a read of 1,000 frames spends a third of its time here
        stream.family,
        stream.rank,
        stream.attempt,
        step,
        _TIME.unpack(time)[0],
        schema.hex(),
        np.frombuffer(vector, VECTOR),
        seq,
    )


def checked(frames: Sequence[Frame]) -> Sequence[Frame]:
    """Return the frames, or raise where one could not be read back."""
    for frame in frames:
        if frame.step < 0 or frame.seq < 1 or len(frame.schema) != 16:
            raise ConfigError(
                "a frame needs step >= 0, seq >= 1 and an 8-byte schema hash, got "
                f"step {frame.step}, seq {frame.seq}, schema {frame.schema!r}"
            )
    return frames
