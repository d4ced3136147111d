"""The end of the process: a recording that nobody has ended by then is ended here."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable


class AtExit:
    """Calls a method when the process ends, with the exception that nobody caught, or None.

    It keeps nothing alive: whose owner is gone is not called. A fork of the process is not its end.
    """

    def __init__(self, ended: Callable[[BaseException | None], None]) -> None:
        self._ended = weakref.WeakMethod(ended)
        self._process = os.getpid()
        atexit.register(self._call)

    def _call(self) -> None:
        ended = self._ended()
        if ended is not None and os.getpid() == self._process:
            ended(getattr(sys, "last_value", None))  # the interpreter keeps the last uncaught one

    def close(self) -> None:
        """Call nobody any more."""
        atexit.unregister(self._call)
