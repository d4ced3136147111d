"""Redis's answers as ours: texts, JSON, labels, findings and meta, whoever may have written them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis import exceptions

from .frames import decode, decode_id
from .memory import MERGED
from .schemas import Finding, Frame, Json, Meta, StreamName, dumps


def as_text(value: bytes | str) -> str:
    """Return the text of an answer."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def labels_of(rows: Mapping[bytes, bytes]) -> dict[str, Json]:
    """Return the labels of a hash; what is no JSON is left out."""
    known = {as_text(key): as_json(value) for key, value in rows.items()}
    return {key: value for key, value in known.items() if value is not None}


def findings_of(rows: Mapping[bytes, bytes]) -> list[Finding]:
    """Return the findings of a hash, in any order; what is none is left out."""
    found: list[Finding] = []
    for text in rows.values():
        with suppress(TypeError, ValueError, AttributeError):  # no finding of ours
            found.append(Finding.from_json(json.loads(text)))
    return found


def as_json(text: bytes) -> Json:
    """Return what a JSON text holds, None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def as_object(text: bytes | None) -> dict[str, Json]:
    """Return the object that a JSON text holds, an empty one where it is none."""
    kept = as_json(text) if text else None
    return kept if isinstance(kept, dict) else {}


def is_of_another_type(answer: Any) -> bool:
    """Tell whether a key held another type than ours; any other error is raised."""
    if isinstance(answer, exceptions.ResponseError) and str(answer).startswith("WRONGTYPE"):
        return True
    if isinstance(answer, Exception):
        raise answer
    return False


def refusals(results: Sequence[Any]) -> int:
    """Count the frames refused for their id; raise any other error."""
    refused = 0
    for result in results:
        if isinstance(result, exceptions.ResponseError) and "equal or smaller" in str(result):
            refused += 1
        elif isinstance(result, Exception):
            raise result
    return refused


def meta_fields(fields: Mapping[str, Json]) -> dict[str, str]:
    """Return fields of Meta as those of a hash: one a rank where ranks are merged."""
    rows: dict[str, str] = {}
    for key, value in fields.items():
        if key in MERGED:
            rows |= {f"{key}:{rank}": dumps(item) for rank, item in value.items()}
        else:
            rows[key] = dumps(value)
    return rows


def meta_of(rows: Mapping[bytes, bytes]) -> Meta:
    """Read what `meta_fields` wrote."""
    body: dict[str, Json] = {}
    for raw_key, raw_value in rows.items():
        key, _, rank = as_text(raw_key).partition(":")
        value = as_json(raw_value)
        if key in MERGED:
            body.setdefault(key, {})[rank] = value
        else:
            body[key] = value
    return Meta.from_json(body)


def frames_of(stream: StreamName, rows: Sequence[Any]) -> list[Frame]:
    """Return the frames of a stream's entries; what is no frame is left out.

    Anybody who may write to the server can put an entry into a stream, and one odd entry must not
    hide a run.
    """
    try:
        return [
            decode(stream, *decode_id(place), body[b"h"], body[b"t"], body[b"v"])
            for place, body in rows
        ]
    except (KeyError, ValueError, struct.error):
        return (
            [frame for row in rows for frame in frames_of(stream, [row])] if len(rows) > 1 else []
        )
