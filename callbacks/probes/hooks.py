"""The hook that stays behind when its module is copied or pickled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

Look = Callable[..., None]
"""Called with module, inputs (and keyword arguments, where the hook asks for them), output."""


class StayingHook:
    """A forward hook that looks at one module and at no copy of it.

    Users copy their module in the middle of a run (averaged weights) and pickle it (`torch.save`).
    A function would travel along: it cannot be pickled, and a copy would count into the run. In
    its place a copy holds a method of the standard library that does nothing, so that what was
    saved loads where Otoscope is not installed.

    >>> import copy
    >>> from torch import nn
    >>> seen = []
    >>> layer = nn.Identity()
    >>> handle = layer.register_forward_hook(StayingHook(lambda *told: seen.append(told)))
    >>> copied = copy.deepcopy(layer)
    >>> _ = layer(1), copied(2)
    >>> len(seen)
    1
    """

    def __init__(self, look: Look) -> None:
        self.look = look

    def __call__(self, *told: Any) -> None:
        self.look(*told)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")  # takes any arguments and returns None
