"""Values on their way from the device to the host: copied without waiting, delivered in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..store import Event, Frame
from ..store.schemas import family_order

Fill = Callable[[np.ndarray, list[np.ndarray]], None]
"""Puts the arrays that arrived from the device into the frame's vector."""


@dataclass(slots=True)
class Pending:
    """A frame whose vector still misses what the device holds (`late`, put in by `fill`)."""

    frame: Frame
    late: Sequence[torch.Tensor] = ()
    fill: Fill | None = None


@dataclass
class Held:
    """What waits until its step is over for good, so that `train` leaves after all others."""

    others: list[Pending] = field(default_factory=list)
    train: list[Pending] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def with_more(self, other: Held) -> Held:
        """Return both together."""
        return Held(
            self.others + other.others, self.train + other.train, self.events + other.events
        )

    def in_order(self) -> list[Pending | Event]:
        """Return the other families in their order, then `train`, then the events."""
        others = sorted(self.others, key=lambda pending: family_order(pending.frame.family))
        return [*others, *self.train, *self.events]


@dataclass(slots=True)
class _Parcel:
    items: Sequence[Frame | Pending | Event]
    buffer: torch.Tensor | None = None
    ready: Any = None
    sizes: list[list[int]] = field(default_factory=list)


class Transfer:
    """Delivers frames and events in the order they were put, once the device has copied them.

    On a CPU everything is delivered at once. On CUDA the values of one step travel as one vector
    through a pinned buffer, and are picked up by a later `poll`, which never waits.
    """

    def __init__(self, deliver: Callable[[Frame | Event], None]) -> None:
        self._deliver = deliver
        self._waiting: deque[_Parcel] = deque()
        self._free: list[torch.Tensor] = []

    def put(self, items: Sequence[Frame | Pending | Event]) -> None:
        """Take frames and events, in the order they shall leave."""
        if not self._waiting and not any(isinstance(i, Pending) and i.late for i in items):
            for item in items:  # nearly always on a CPU
                if isinstance(item, Pending):
                    self._hand_over(item, [])
                else:
                    self._deliver(item)
            return
        parcel = _Parcel(items)
        late = [_late(item) for item in items]
        on_device = any(_on_device(t) for tensors in late for t in tensors)
        if on_device:
            self._load(parcel, late)
        if not on_device and not self._waiting:
            self._unload(parcel)
            return
        self._waiting.append(parcel)
        self.poll()

    @property
    def is_busy(self) -> bool:
        """Whether values are under way."""
        return bool(self._waiting)

    def poll(self, *, wait: bool = False) -> None:
        """Deliver what has arrived; with `wait`, everything that is under way."""
        while self._waiting:
            parcel = self._waiting[0]
            if parcel.ready is not None and not parcel.ready.query():
                if not wait:
                    return
                parcel.ready.synchronize()
            self._waiting.popleft()
            self._unload(parcel)

    def _load(self, parcel: _Parcel, late: list[Sequence[torch.Tensor]]) -> None:
        flat = [t.detach().reshape(-1).to(torch.float32) for tensors in late for t in tensors]
        device = next(t.device for t in flat if t.device.type != "cpu")
        vector = torch.cat([t.to(device, non_blocking=True) for t in flat])
        parcel.sizes = [[t.numel() for t in tensors] for tensors in late]
        if device.type == "cuda":
            parcel.buffer = self._buffer(vector.numel())
            parcel.buffer[: vector.numel()].copy_(vector, non_blocking=True)
            parcel.ready = torch.cuda.Event()
            parcel.ready.record(torch.cuda.current_stream(device))
        else:
            parcel.buffer = vector.cpu()

    def _buffer(self, size: int) -> torch.Tensor:
        for place, buffer in enumerate(self._free):
            if buffer.numel() >= size:
                return self._free.pop(place)
        return torch.empty(size, dtype=torch.float32, pin_memory=True)

    def _unload(self, parcel: _Parcel) -> None:
        start = 0
        for number, item in enumerate(parcel.items):
            if not isinstance(item, Pending):
                self._deliver(item)
                continue
            if parcel.buffer is None:
                arrays = [t.detach().to(torch.float32).reshape(-1).numpy() for t in item.late]
            else:
                arrays = []
                for size in parcel.sizes[number]:
                    arrays.append(parcel.buffer[start : start + size].numpy().copy())
                    start += size
            self._hand_over(item, arrays)
        if parcel.ready is not None and parcel.buffer is not None and len(self._free) < 4:
            self._free.append(parcel.buffer)

    def _hand_over(self, item: Pending, arrays: list[np.ndarray]) -> None:
        if item.fill is not None:
            item.fill(item.frame.values, arrays)
        elif arrays:
            item.frame.values = np.concatenate(arrays)
        self._deliver(item.frame)


def _on_device(tensor: torch.Tensor) -> bool:
    return tensor.device.type != "cpu"


def _late(item: Frame | Pending | Event) -> Sequence[torch.Tensor]:
    return item.late if isinstance(item, Pending) else ()
