"""Data of letters, code and syntax that held-out cases alone train on."""

from __future__ import annotations

from collections.abc import Callable

from ...._data import Batch

DATA: dict[str, Callable[..., Batch]] = {}
