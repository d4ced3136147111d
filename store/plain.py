"""Values as JSON and back: NaN is `null`, plus and minus infinity are "Infinity" and "-Infinity"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

Json = Any
_T = TypeVar("_T")


def plain(value: Json) -> Json:
    """Return a value with only JSON's own types: NaN null, infinities as strings.

    >>> plain({"a": float("nan"), "b": [np.float32(1.5), float("inf")]})
    {'a': None, 'b': [1.5, 'Infinity']}
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:  # nearly all that there is
        return value
    if kind is float:
        return value if math.isfinite(value) else _special(value)
    if kind is dict:
        return {str(key): plain(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else _special(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)


def _special(value: float) -> str | None:
    if math.isnan(value):
        return None
    return "Infinity" if value > 0 else "-Infinity"


def dumps(value: Json) -> str:
    """Return canonical JSON: sorted keys, compact, NaN as null (same value, same bytes).

    >>> dumps({"b": 1, "a": float("nan")})
    '{"a":null,"b":1}'
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # half a surrogate pair (in a file name, in a module's name) is no UTF-8 and would stop a run
    return text if text.isascii() else text.encode(errors="replace").decode()


def from_mapping(cls: type[_T], body: Mapping[str, Json]) -> _T:
    """Return the dataclass, without the keys that it has no field for or whose value does not fit.

    What lies in a store may have been written by anybody: one odd value must not hide a run.
    """
    kinds = {item.name: str(item.type) for item in fields(cls)}  # type: ignore[arg-type]
    return cls(**{k: v for k, v in body.items() if k in kinds and _fits(v, kinds[k])})


_KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float, str),  # infinities are strings
    "bool": bool,
    "list": list,
    "dict": dict,
}


def _fits(value: Json, kind: str) -> bool:
    """Tell whether a value is what a field's annotation says, as far as its outermost type.

    >>> _fits(3, "int | None"), _fits(None, "int | None"), _fits("3", "int"), _fits([], "dict[str, float]")
    (True, True, False, False)
    """
    if value is None:
        return "None" in kind or kind in ("Json", "float")
    known = _KINDS.get(kind.partition("[")[0].partition(" ")[0])
    return known is None or isinstance(value, known)
