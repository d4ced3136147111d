"""A bucket: what many frames of a stream became, with the extremes that none of them may lose.

Tier k has buckets of 8^k steps, aligned to steps: bucket b holds the steps from b · 8^k on. It is
stored in parts where something ended in the middle of it (the schema changed, the attempt ended and
went on); nothing that is stored is ever replaced.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from .errors import ConfigError
from .frames import VECTOR
from .schemas import StreamName

TIERS = (1, 2, 3, 4)
FACTOR_BITS = 3
"""Each tier's buckets are 2^3 times as long as the one's below it."""

TIER_LENGTH = 1024
"""Buckets that a tier keeps; the coarsest keeps all of them (a week at 2 steps a second: 295)."""

_HEAD = struct.Struct("<8sdIIIBBB")
_COUNTS = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}
_NUMBER = struct.Struct("<I")
_ONE = 9
"""Kind of counts that are one number for all columns."""

_AGREED = struct.Struct(_HEAD.format + "II")
_BOTH_ONE = bytes([_ONE, _ONE])
"""A header in which both counts are one number: most are, and are read at once."""


def bucket_steps(tier: int) -> int:
    """Return how many steps a bucket of a tier spans.

    >>> [bucket_steps(tier) for tier in TIERS]
    [8, 64, 512, 4096]
    """
    return 1 << (FACTOR_BITS * tier)


@dataclass(slots=True, eq=False)
class Bucket:
    """Frames of one stream and one schema within one bucket of a tier.

    `step` is the bucket's aligned first step, `first` and `last` are the steps of its first and last
    frame, `time` is that of the first, `frames` how many there were. `values` is float32[3, c]: lowest, mean and highest value
    of each column, or float32[1, c] where the three agree. The mean is that of the finite values;
    NaN means *not measured* and counts nowhere, infinities show as extremes. `n` counts the finite
    values of each column and `bad` the infinite ones: int64[c], or one number where all columns
    agree.
    """

    family: str
    rank: int
    attempt: int
    tier: int
    step: int
    schema: str
    time: float
    first: int
    last: int
    frames: int
    values: np.ndarray
    n: np.ndarray | int
    bad: np.ndarray | int = 0
    seq: int = 1

    @property
    def id(self) -> tuple[int, int]:
        """Return (step, seq): the place of the part in its stream."""
        return (self.step, self.seq)

    @property
    def stream(self) -> StreamName:
        """Return the stream of frames that the bucket was made of."""
        return StreamName(self.family, self.rank, self.attempt)

    @property
    def lo(self) -> np.ndarray:
        """Return the lowest value of each column, float32[c]."""
        return self.values[0]

    @property
    def mean(self) -> np.ndarray:
        """Return the mean of each column's finite values, float32[c]."""
        return self.values[len(self.values) // 2]

    @property
    def hi(self) -> np.ndarray:
        """Return the highest value of each column, float32[c]."""
        return self.values[-1]


def encode_bucket(bucket: Bucket) -> tuple[bytes, bytes]:
    """Return a bucket's fields (b, v): header with counts, and the vectors behind each other."""
    n_kind, n = _encode_counts(bucket.n)
    bad_kind, bad = _encode_counts(bucket.bad)
    head = _HEAD.pack(
        bytes.fromhex(bucket.schema),
        bucket.time,
        bucket.first - bucket.step,
        bucket.last - bucket.step,
        bucket.frames,
        len(bucket.values),
        n_kind,
        bad_kind,
    )
    return head + n + bad, np.ascontiguousarray(bucket.values, dtype=VECTOR).tobytes()


def decode_bucket(
    stream: StreamName, tier: int, step: int, seq: int, head: bytes, vectors: bytes
) -> Bucket:
    """Read what `encode_bucket` wrote; raises ValueError or struct.error where it is none."""
    if len(head) == _AGREED.size and head[_HEAD.size - 2 : _HEAD.size] == _BOTH_ONE:
        schema, time, first, last, frames, rows, _, _, n, bad = _AGREED.unpack(head)
        values = np.frombuffer(vectors, VECTOR).reshape(rows, -1)
    else:
        schema, time, first, last, frames, rows, n_kind, bad_kind = _HEAD.unpack_from(head)
        values = np.frombuffer(vectors, VECTOR).reshape(rows, -1)
        n, place = _decode_counts(head, _HEAD.size, n_kind, values.shape[1])
        bad, _ = _decode_counts(head, place, bad_kind, values.shape[1])
    return Bucket(
        stream.family,
        stream.rank,
        stream.attempt,
        tier,
        step,
        schema.hex(),
        time,
        step + first,
        step + last,
        frames,
        values,
        n,
        bad,
        seq,
    )


def _encode_counts(counts: np.ndarray | int) -> tuple[int, bytes]:
    """Return the kind and bytes of counts: one number where all columns agree, else an array."""
    if not isinstance(counts, int):
        if len(counts) and (counts != counts[0]).any():
            most = int(counts.max())
            kind = next(size for size in _COUNTS if most < 256**size)
            return kind, counts.astype(_COUNTS[kind]).tobytes()
        counts = int(counts[0]) if len(counts) else 0
    return _ONE, _NUMBER.pack(counts)


def _decode_counts(
    head: bytes, place: int, kind: int, columns: int
) -> tuple[np.ndarray | int, int]:
    """Return counts and the place behind them."""
    if kind == _ONE:
        return _NUMBER.unpack_from(head, place)[0], place + _NUMBER.size
    if kind not in _COUNTS:
        raise ValueError(f"no kind of counts: {kind}")
    counts = np.frombuffer(head, _COUNTS[kind], columns, place)
    return counts.astype(np.int64), place + counts.nbytes


def checked_tier(tier: int) -> int:
    """Return the tier, or raise where there is none of that number."""
    if tier not in TIERS:
        raise ConfigError(f"a tier is one of {TIERS}, got {tier!r}")
    return tier
