"""Run ids: slug(name) + "-" + ULID in lower case. A display name is never an identity."""

from __future__ import annotations

import os
import re
import time
import unicodedata

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
SLUG_LENGTH = 53
"""80 characters less the dash and the 26 of a ULID."""


def slug(name: str) -> str:
    """Return a name in the letters of a run id; "run" where nothing of it is left.

    >>> slug("ResNet-50 (baseline)")
    'resnet-50-baseline'
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9._]+", "-", ascii_name).strip("-._")
    return words[:SLUG_LENGTH].rstrip("-._") or "run"


def ulid(milliseconds: int | None = None) -> str:
    """Return a ULID in lower case: 10 letters of time and 16 of chance.

    >>> len(ulid())
    26
    """
    now = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    value = (now << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def new_run_id(name: str) -> str:
    """Return a fresh run id for a display name.

    >>> new_run_id("Baseline").startswith("baseline-")
    True
    """
    return f"{slug(name)}-{ulid()}"
