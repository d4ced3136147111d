"""The signals that end a long-running command: they set an event, and nothing is cut short."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextmanager
def ending_signals() -> Iterator[Event]:
    """Yield an event that Ctrl-C, SIGTERM and a closed terminal set."""
    stop = Event()
    before = [(number, signal.getsignal(number)) for number in ENDING]
    for number in ENDING:
        signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before:
            signal.signal(number, handler)
