"""Waiting: how long a rank waits for the others, for their buffers and from its last own gradient on.

A step takes equally long on all ranks; only the wait shows who is slow: the slow rank waits least.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from .broadcasts import listen, unlisten
from .guard import HookGuard

LEARNT_AFTER = 3
"""Backward passes in which every parameter is listened to, to learn which come last."""

Mark = Any
"""A moment: a reading of the clock, or an event on the device's stream."""


class Waiting:
    """Measures, in every step, the time between the last local gradient and the averaged ones.

    And what a forward pass takes to make buffers alike, as DDP does where a model has batch norms: the
    ranks meet there first.

    Hooks on parameters see a rank's own gradient before it is averaged. A hook costs about a
    microsecond, and a model has hundreds of parameters: once it is known which of them come last,
    the others are let go. Under sharded strategies such hooks do not fire, and the wait is unknown.

    On a GPU the host does not wait, so that events on its stream are compared; `close_step` then
    returns a function that gives the seconds once the device is through.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        found = [p for p in parameters if not is_lazy(p) and p.requires_grad]
        self._parameters = found
        self._on_device = bool(found) and all(p.device.type == "cuda" for p in found)
        self._handles: dict[int, Any] = {}
        self._lasts: set[int] = set()
        self._learnt = 0
        self.error: Exception | None = None
        """What went wrong in a hook; it must not be raised there."""
        self._guarded = HookGuard(self._failed)
        self._last: tuple[Mark, int] | None = None
        self._pairs: list[tuple[Mark, Mark]] = []
        self._begun: Mark = None
        self._broadcasts: list[tuple[Mark, Mark]] = []
        self._listen(range(len(found)))
        listen(self)

    def _listen(self, places: Sequence[int]) -> None:
        for place in places:
            if place not in self._handles:
                hook = self._hook(place)
                self._handles[place] = self._parameters[place].register_hook(hook)

    def _hook(self, place: int) -> Callable[[torch.Tensor], None]:
        def came(gradient: torch.Tensor) -> None:
            with self._guarded:
                self._last = (self._mark(), place)

        return came

    def _mark(self) -> Mark:
        if not self._on_device:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def broadcast_begins(self) -> None:
        """Note that a forward pass makes buffers alike from now on."""
        with self._guarded:
            self._begun = self._mark()

    def broadcast_ended(self) -> None:
        """Note that it has."""
        with self._guarded:
            begun, self._begun = self._begun, None
            if begun is not None:
                self._broadcasts.append((begun, self._mark()))

    def _failed(self, error: Exception) -> None:
        self.error = error

    def backward_ended(self) -> None:
        """Note that the gradients are averaged by now; a second call for one pass does nothing."""
        last, self._last = self._last, None
        if last is None:
            return
        mark, place = last
        self._pairs.append((mark, self._mark()))
        self._lasts.add(place)
        self._learnt += 1
        if self._learnt == LEARNT_AFTER:
            for other in set(self._handles) - self._lasts:
                self._handles.pop(other).remove()

    def close_step(self) -> float | Callable[[], float]:
        """Return the seconds that this step's passes waited; NaN where no backward pass was seen.

        Raises what went wrong in a hook of the step.
        """
        pairs, self._pairs = self._pairs, []
        broadcasts, self._broadcasts = self._broadcasts, []
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if not pairs:
            # another part of the model trains now: learn anew
            self._learnt, self._lasts = 0, set()
            self._listen(range(len(self._parameters)))
            return math.nan
        pairs = broadcasts + pairs
        if self._on_device:
            return lambda: _elapsed(pairs)
        return sum(end - begun for begun, end in pairs)

    def close(self) -> None:
        """Remove the hooks."""
        unlisten(self)
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self._pairs.clear()
        self._broadcasts.clear()


def _elapsed(pairs: Sequence[tuple[Mark, Mark]]) -> float:
    """Return the seconds between events; NaN where the device is not through, for nobody waits."""
    if not all(end.query() for _, end in pairs):
        return math.nan
    return sum(begun.elapsed_time(end) for begun, end in pairs) / 1000
