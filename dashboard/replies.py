"""Answers of the data endpoints: JSON that never holds NaN, and errors in one shape."""

from __future__ import annotations

import json
from typing import Any

from flask import Response

from ..store import (
    ConfigError,
    OtoscopeError,
    StoreError,
    UnknownRunError,
)


def reply(body: Any, status: int = 200) -> Response:
    """Return a value of JSON's own types as an answer that no cache may keep."""
    return reply_text(as_text(body), status)


def as_text(body: Any) -> bytes:
    """Return compact JSON; raises ValueError for NaN, which is no JSON."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="replace")  # half a surrogate pair in a name is no UTF-8


def reply_text(text: bytes, status: int = 200) -> Response:
    """Return JSON that is text already."""
    answer = Response(text, status, content_type="application/json; charset=utf-8")
    answer.headers["Cache-Control"] = "no-store"
    return answer


def failure(status: int, message: str) -> Response:
    """Return `{"error": message}`."""
    return reply({"error": message}, status)


def failure_of(error: OtoscopeError) -> Response:
    """Return an error of ours as an answer: 404, 400, or 503 where the store does not answer."""
    if isinstance(error, UnknownRunError):
        return failure(404, str(error))
    if isinstance(error, ConfigError):
        return failure(400, str(error))
    return failure(503 if isinstance(error, StoreError) else 500, str(error))
