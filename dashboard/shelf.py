"""The store as the page holds it: opened at the first request, opened again after it went away."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from threading import Lock

from ..store import RunInfo, Store, StoreError, StoreUnavailableError

LIST_SECONDS = 1.0
ANSWER_SECONDS = 0.5
"""How long a list of runs, or an answer to the same question, may be given again: many viewers of
one run hold the same cursor, and cost one reading."""
ANSWERS_BYTES = 16 << 20
"""What is kept of answers at a time: a whole run is 0.6 MB, a tick 1 kB."""


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
        self._answers: dict[Hashable, tuple[float, bytes]] = {}

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

    def answer(self, question: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the answer to a question, at most half a second old."""
        now = self._clock()
        kept = self._answers.get(question)
        if kept is not None and now - kept[0] < ANSWER_SECONDS:
            return kept[1]
        made = make()
        with self._lock:
            self._answers = {
                asked: kept
                for asked, kept in self._answers.items()
                if now - kept[0] < ANSWER_SECONDS
            }
            if sum(len(kept[1]) for kept in self._answers.values()) + len(made) <= ANSWERS_BYTES:
                self._answers[question] = (now, made)
        return made

    def forget(self) -> None:
        """Drop what is kept, after something was changed."""
        with self._lock:
            self._runs = None
            self._answers.clear()

    def lost(self, error: StoreError) -> None:
        """Take note of an error: after a lost connection the next request opens a new one."""
        if isinstance(error, StoreUnavailableError):
            with self._lock:
                self._store, self._runs = None, None
                self._answers.clear()
