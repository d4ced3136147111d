"""The rolled up part of a Redis home: buckets of the four tiers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from . import keys
from .buckets import TIER_LENGTH, TIERS, Bucket, checked_tier, decode_bucket, encode_bucket
from .frames import decode_id, encode_id
from .redis_client import RedisClient
from .schemas import StreamName

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


def bucket_commands(run: str, buckets: Sequence[Bucket]) -> list[tuple[Any, ...]]:
    """Return the commands that store buckets; those that are stored already are refused.

    Cutting the finer tiers travels with the XADD, since nothing waits for a bucket to be read.
    """
    commands: list[tuple[Any, ...]] = []
    for bucket in buckets:
        cut = () if bucket.tier == UNENDED else ("MAXLEN", "~", TIER_LENGTH)
        head, vectors = encode_bucket(bucket)
        key, place = keys.tier(run, bucket.stream, bucket.tier), encode_id(*bucket.id)
        commands.append(("XADD", key, *cut, place, "b", head, "v", vectors))
    return commands


def _buckets(stream: StreamName, tier: int, rows: Sequence[Any]) -> list[Bucket]:
    """Return the buckets of a stream's entries; what is no bucket is left out."""
    found: list[Bucket] = []
    for place, body in rows:
        with suppress(KeyError, ValueError, struct.error):
            found.append(decode_bucket(stream, tier, *decode_id(place), body[b"b"], body[b"v"]))
    return found
