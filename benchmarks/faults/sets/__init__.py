"""The nets, data and losses of one set after another, each held out until its runs had been looked at.

A set that was looked at is renamed from `reserved` to its number, and another takes its place.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..._data import Batch
from . import eighth, fifth, fourth, reserved, second, seventh, sixth, third

_ALL = (second, third, fourth, fifth, sixth, seventh, eighth, reserved)
DATA: dict[str, Callable[..., Batch]] = {
    name: made for each in _ALL for name, made in each.DATA.items()
}
NETS: dict[str, Callable[..., nn.Module]] = {
    name: made for each in _ALL for name, made in each.NETS.items()
}
LOSSES: dict[str, Callable[..., Tensor]] = {
    name: made
    for each in (fourth, fifth, sixth, seventh, eighth, reserved)
    for name, made in each.LOSSES.items()
}
