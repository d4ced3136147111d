"""The rules of the catalogue, one file each; the order is that of judging, root causes first."""

from __future__ import annotations

from types import ModuleType

from ..rule import Rule
from . import lr_too_high, non_finite

MODULES: tuple[ModuleType, ...] = (non_finite, lr_too_high)

RULES: tuple[Rule, ...] = tuple(
    Rule(module.__name__.rpartition(".")[2], module.FAMILY, module.judge, module.__doc__ or "")
    for module in MODULES
)
