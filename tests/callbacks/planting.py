"""Errors planted into every function of ours that a training reaches, each once."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import otoscope.callbacks

OURS = tuple(
    str(Path(next(iter(otoscope.callbacks.__path__))).parent / folder) + "/"
    for folder in ("callbacks", "store", "diagnostics")
)
THROUGH = ("/callbacks/guard.py", "/callbacks/probes/hooks.py")
"""The guards themselves, and what only passes a call of torch's on."""


class PlantedError(Exception):
    """Raised when a function is entered that had no error planted yet."""


class Planter:
    """Raises at the entry of a function of ours, of each once; `arm` allows the next one.

    It is a profiler: Python calls it whenever a function is entered in this thread, and lets what it
    raises come out of the call. A function that others than we call (torch, the Trainer, the user's
    loop) is a border: it must hold a guard itself, so that the functions which *it* calls may fail.
    Functions of `spared` files are left alone.
    """

    def __init__(self, spared: tuple[str, ...] = ()) -> None:
        self.planted: list[str] = []
        self._spared = THROUGH + spared
        self._seen: set[CodeType] = set()

    def arm(self) -> None:
        """Plant the next error in this thread."""
        sys.setprofile(self._called)

    def disarm(self) -> None:
        """Plant none until `arm`."""
        sys.setprofile(None)

    def _called(self, frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if event != "call" or code in self._seen or not _is_ours(code):
            return
        caller = frame.f_back
        while caller is not None and caller.f_code.co_filename.endswith(THROUGH):
            caller = caller.f_back
        if caller is None or not _is_ours(caller.f_code):
            return
        self._seen.add(code)
        if code.co_filename.endswith(self._spared):
            return
        self.planted.append(f"{Path(code.co_filename).stem}.{code.co_qualname}")
        raise PlantedError(self.planted[-1])  # Python takes the profiler away before it comes out


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(OURS)
