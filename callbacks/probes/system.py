"""The system probe: memory of this process and of its GPU, and how the sender fares."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ...store import Column
from .probe import Probe, Training

UNITS = {"rss_bytes": "B", "gpu_memory_bytes": "B"}
QUANTITIES = (
    "rss_bytes",
    "gpu_memory_bytes",
    "gpu_utilization_ratio",
    "queue_frames",
    "spooled_frames",
    "dropped_frames",
    "sent_frames",
    "late_frames",
)
_STATM = Path("/proc/self/statm")


def resident_bytes() -> float:
    """Return the resident memory of this process in bytes, NaN where nobody tells."""
    try:
        return float(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return _peak_bytes()


def _peak_bytes() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)


class System(Probe):
    """Memory, and the counters of the sender."""

    def __init__(self, every: int | None = None) -> None:
        super().__init__(every=every)
        self.family = "system"
        self.weight = 0.3
        self.least = 10

    def is_on(self, training: Training) -> bool:
        return True  # each rank has a memory of its own; nothing adds up, so no steps in common

    def attach(self, training: Training) -> Sequence[Column]:
        self._training = training
        return [Column.of(name, unit=UNITS.get(name, ""), ranks="each") for name in QUANTITIES]

    def sample(self, step: int) -> list[float]:
        gpu = float(torch.cuda.memory_allocated()) if torch.cuda.is_initialized() else math.nan
        counters = self._training.counters()
        return [resident_bytes(), gpu, math.nan, *(float(counters[n]) for n in QUANTITIES[3:])]
