"""Broadcasts: a forward pass under DDP first makes the buffers of all ranks alike, and waits for the slowest.

A model with batch norms waits there, and hardly any more where gradients are averaged. DDP tells nobody
of it, and hooks of ours on the wrapper would go along wherever a user pickles it: so its own method is
timed, on the class, as long as somebody listens.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.nn.parallel import DistributedDataParallel

METHOD = "_sync_buffers"
"""What DDP calls for it; where a version of torch has no such method, that wait is not measured."""


class Listener(Protocol):
    """Who is told before and after buffers are made alike."""

    def broadcast_begins(self) -> None: ...

    def broadcast_ended(self) -> None: ...


_Method = Callable[..., Any]
_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
_put: tuple[_Method, _Method] | None = None
"""What stands in the place of the method, and what stood there."""


def listen(listener: Listener) -> None:
    """Tell a listener of each forward pass that will have a backward pass, until `unlisten`."""
    global _put
    original = getattr(DistributedDataParallel, METHOD, None)
    if _put is None and original is not None:
        _put = _timed(original), original
        setattr(DistributedDataParallel, METHOD, _put[0])
    _listeners.add(listener)


def unlisten(listener: Listener) -> None:
    """Tell it no more; with the last one the method is torch's own again."""
    global _put
    _listeners.discard(listener)
    # somebody else may have put another one in its place since, which calls this one
    if not _listeners and _put and getattr(DistributedDataParallel, METHOD, None) is _put[0]:
        setattr(DistributedDataParallel, METHOD, _put[1])
        _put = None


def _timed(original: _Method) -> _Method:
    """Return the method that tells all listeners; it works on, whoever kept it, when nobody listens."""

    def told(wrapper: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return original(wrapper, *args, **kwargs)
        listeners = tuple(_listeners)
        for listener in listeners:
            listener.broadcast_begins()
        try:
            return original(wrapper, *args, **kwargs)
        finally:
            for listener in listeners:
                listener.broadcast_ended()

    return told
