"""Nets over tables, sets, graphs and places that held-out cases alone train, and losses of their own."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

NETS: dict[str, Callable[..., nn.Module]] = {}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
