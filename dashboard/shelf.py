"""The store as the page holds it: opened at the first request, opened again after it went away."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

from ..store import RunInfo, Store, StoreError, StoreUnavailableError

LIST_SECONDS = 1.0
"""How long a list of runs may be shown again: many viewers cost one reading a second."""


class Shelf:
    """One store for all threads of the server."""

    def __init__(
        self, connect: Callable[[], Store], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._lock = Lock()
        self._store: Store | None = None
        self._runs: tuple[float, list[RunInfo]] | None = None

    def store(self) -> Store:
        """Return the store; raises StoreError where it cannot be opened."""
        with self._lock:
            if self._store is None:
                self._store = self._connect()
            return self._store

    def runs(self) -> list[RunInfo]:
        """Return the list of runs, at most a second old."""
        now = self._clock()
        kept = self._runs
        if kept is not None and now - kept[0] < LIST_SECONDS:
            return kept[1]
        rows = self.store().runs()
        self._runs = (now, rows)
        return rows

    def forget_runs(self) -> None:
        """Drop the kept list, after something in it was changed."""
        self._runs = None

    def lost(self, error: StoreError) -> None:
        """Take note of an error: after a lost connection the next request opens a new one."""
        if isinstance(error, StoreUnavailableError):
            with self._lock:
                self._store, self._runs = None, None
