"""The rules of the catalogue, one file each; the order is that of judging, root causes first."""

from __future__ import annotations

from types import ModuleType

from ..rule import Rule
from . import (
    dead_units,
    exploding_gradients,
    lr_too_high,
    lr_too_low,
    non_finite,
    plateau,
    vanishing_gradients,
)

MODULES: tuple[ModuleType, ...] = (
    non_finite,
    lr_too_high,
    exploding_gradients,
    dead_units,
    vanishing_gradients,
    lr_too_low,
    plateau,
)

RULES: tuple[Rule, ...] = tuple(
    Rule(
        module.__name__.rpartition(".")[2],
        module.FAMILY,
        module.judge,
        module.__doc__ or "",
        from_start=getattr(module, "FROM_START", False),
        remember=getattr(module, "remember", None),
    )
    for module in MODULES
)
