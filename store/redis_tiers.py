"""The part of a Redis home that bounds its memory: buckets of the four tiers, and cuts."""

from __future__ import annotations

import struct
from collections.abc import Container, Sequence
from typing import Any

from . import keys
from .buckets import TIER_LENGTH, TIERS, Bucket, checked_tier, decode_bucket, encode_bucket
from .frames import decode_id, encode_id
from .home import Rows
from .redis_client import RedisClient
from .redis_rows import frames_of
from .schemas import StreamName
from .tiers import Extent, Piece

PIECES_AT_ONCE = 64
"""Ranges read in one round trip, where many ranks are read."""

UNENDED = TIERS[-1]
"""The coarsest tier is never cut."""


class RedisTiers(RedisClient):
    """Buckets in streams beside those of the frames that they were made of."""

    def buckets(
        self,
        run: str,
        stream: StreamName,
        tier: int,
        *,
        start: int | None = None,
        stop: int | None = None,
        count: int | None = None,
        latest: bool = False,
    ) -> list[Bucket]:
        key = keys.tier(run, stream, checked_tier(tier))
        low = "-" if start is None else encode_id(max(start, 0), 0)
        high = "+" if stop is None else f"{stop}"
        if stop is not None and stop < 0:
            return []
        with self._translated():
            if latest:
                rows = self._client.xrevrange(key, max=high, min=low, count=count)[::-1]
            else:
                rows = self._client.xrange(key, min=low, max=high, count=count)
        return _buckets(stream, tier, rows)

    def extents(
        self, run: str, streams: Sequence[StreamName], *, tiers: bool = True
    ) -> dict[StreamName, tuple[Extent | None, ...]]:
        asked = TIERS if tiers else ()
        with self._translated():
            pipe = self._client.pipeline(transaction=False)
            for stream in streams:
                raw = keys.raw(run, stream)
                pipe.xlen(raw)
                for key in (raw, *(keys.tier(run, stream, tier) for tier in asked)):
                    pipe.xrange(key, count=1)
                    pipe.xrevrange(key, count=1)
            answers = iter(pipe.execute())
        found: dict[StreamName, tuple[Extent | None, ...]] = {}
        for stream in streams:
            rows, first, last = next(answers), next(answers), next(answers)
            levels: list[Extent | None] = [None]
            if first and last:
                begin = decode_id(first[0][0])[0]
                levels = [Extent(begin, begin, decode_id(last[0][0])[0], rows)]
            for tier in asked:
                ends = _buckets(stream, tier, [*next(answers), *next(answers)])
                levels.append(Extent(ends[0].step, ends[0].first, ends[-1].last) if ends else None)
            found[stream] = tuple(levels)
        return found

    def pieces(self, run: str, asked: Sequence[tuple[StreamName, Piece]]) -> list[Rows]:
        found: list[Rows] = []
        for first in range(0, len(asked), PIECES_AT_ONCE):
            part = asked[first : first + PIECES_AT_ONCE]
            with self._translated():
                pipe = self._client.pipeline(transaction=False)
                for stream, piece in part:
                    level = piece.level
                    key = keys.tier(run, stream, level) if level else keys.raw(run, stream)
                    pipe.xrange(key, min=encode_id(piece.start, 0), max=f"{piece.stop}")
                answers = pipe.execute()
            for (stream, piece), rows in zip(part, answers, strict=True):
                level = piece.level
                found.append(_buckets(stream, level, rows) if level else frames_of(stream, rows))
        return found

    def trim(self, run: str, stream: StreamName, before: int) -> None:
        # alone and never in a transaction: a full server refuses every MULTI, but takes this
        with self._translated():
            self._client.xtrim(keys.raw(run, stream), minid=encode_id(before, 0), approximate=True)


def bucket_commands(
    run: str, buckets: Sequence[Bucket], known: Container[str] = ()
) -> list[tuple[Any, ...]]:
    """Return the commands that store buckets; those that are stored already are refused.

    A stream whose key is `known` is not begun anew where it is gone: the answer is None then.

    Cutting the finer tiers travels with the XADD, since nothing waits for a bucket to be read.
    """
    commands: list[tuple[Any, ...]] = []
    for bucket in buckets:
        cut = () if bucket.tier == UNENDED else ("MAXLEN", "~", TIER_LENGTH)
        head, vectors = encode_bucket(bucket)
        key, place = keys.tier(run, bucket.stream, bucket.tier), encode_id(*bucket.id)
        only = ("NOMKSTREAM",) if key in known else ()
        commands.append(("XADD", key, *only, *cut, place, "b", head, "v", vectors))
    return commands


def _buckets(stream: StreamName, tier: int, rows: Sequence[Any]) -> list[Bucket]:
    """Return the buckets of a stream's entries; what is no bucket is left out."""
    try:
        return [
            decode_bucket(stream, tier, *decode_id(place), body[b"b"], body[b"v"])
            for place, body in rows
        ]
    except (KeyError, ValueError, struct.error):
        if len(rows) == 1:
            return []
        return [bucket for row in rows for bucket in _buckets(stream, tier, [row])]
