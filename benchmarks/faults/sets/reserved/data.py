"""Data that held-out cases alone train on: no threshold was chosen on any of it."""

from __future__ import annotations

from collections.abc import Callable

from ...._data import Batch
from . import texts

DATA: dict[str, Callable[..., Batch]] = {
    **texts.DATA,
}
