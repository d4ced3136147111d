"""Nets that held-out cases alone train: no architecture of them is tuned on."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from . import tables

NETS: dict[str, Callable[..., nn.Module]] = {
    **tables.NETS,
}
