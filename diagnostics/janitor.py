"""The janitor: makes room on a server before it is full, and lets finished runs go when they are old.

A full server refuses every batch of every live run, and deleting is what it still takes. Never
deleted: a run that was heard of lately, and one that is tagged `keep`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping

from ..store import AccessDeniedError, ConfigError, Home, RunInfo, Store, StoreFullError
from ..store.pruning import seconds_of
from ..store.retention import FULL_SHARE, Memory
from ..store.schemas import Json

LOOK_SECONDS = 10.0
OLD_SECONDS = 300.0
"""Seconds between two looks at the memory, and at the age of the runs, which reads them all."""

RECENT_SECONDS = 600.0
"""A run that was heard of since then stays, whatever it is called: it may be resumed in a minute, and
one that a person closed on the page may train on."""
LOST_SECONDS = 86_400.0
"""A run that broke off without a word is taken for finished a day later."""

KEEP = "keep"
KEPT_NAMES = 20
VARIABLE = "OTOSCOPE_TTL"

_log = logging.getLogger("otoscope")


def ttl_of(environment: Mapping[str, str]) -> float | None:
    """Return after how many seconds finished runs go, None where they stay.

    Raises ConfigError where the variable holds no length of time.

    >>> ttl_of({"OTOSCOPE_TTL": "14d"}), ttl_of({})
    (1209600.0, None)
    """
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        seconds = seconds_of(text)
    except ConfigError as error:
        raise ConfigError(f"{VARIABLE}: {error}; unset it to keep finished runs") from None
    if seconds <= 0:
        raise ConfigError(f"{VARIABLE} must be longer than nothing, got {text!r}; write 14d")
    return seconds


class Janitor:
    """Deletes finished runs of a home: the oldest ones at 80 % of its memory, and those over age.

    What it did is told in the log and under `janitor` in the home's settings: `{t, why: memory|age,
    deleted: [{id, name, last_seen}], used, most}`.
    """

    def __init__(
        self,
        home: Home,
        *,
        ttl: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.home, self.ttl, self._clock = home, ttl, clock
        self._store = Store(home, clock=clock)
        self._looked = self._aged = self._weighed = float("-inf")
        self._helpless = self._refused = self._foreign = False

    def sweep(self) -> list[str]:
        """Look whether something has to go, at most every ten seconds; returns what went."""
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return []
        self._looked = now
        gone = self._make_room()
        if self.ttl is not None and now - self._aged >= OLD_SECONDS:
            self._aged = now
            gone += self._let_old_go(self.ttl, now)
        return [row.id for row in gone]

    def _make_room(self) -> list[RunInfo]:
        memory = self._memory()
        if memory is None or memory.share < FULL_SHARE or memory.evicts_live_runs:
            self._helpless = False  # a server that evicts is always full, and others would fill it
            return []
        if self._others_fill(memory):
            if not self._helpless:
                _log.warning(
                    "%.0f %% of the server's memory is in use, most of it by other than runs; no "
                    "run is deleted for that: raise maxmemory, or give Otoscope a server of its own",
                    100 * memory.share,
                )
            self._helpless = True
            return []
        gone: list[RunInfo] = []
        for row in self._finished():
            self.home.delete(row.id)
            gone.append(row)
            memory = self._memory() or memory
            if memory.share < FULL_SHARE:
                break
        if gone:
            self._tell("memory", gone, memory)
        if memory.share >= FULL_SHARE and not self._helpless:
            _log.warning(
                "%.0f %% of the server's memory is in use and no finished run is left to delete; "
                "raise maxmemory, or delete runs that are tagged %r",
                100 * memory.share,
                KEEP,
            )
        self._helpless = memory.share >= FULL_SHARE
        return gone

    def _others_fill(self, memory: Memory) -> bool:
        """Tell whether runs take less than half of what is used: deleting them would help nobody.

        Where nobody may ask for sizes the server is taken for ours.
        """
        now = self._clock()
        if now - self._weighed >= OLD_SECONDS:
            self._weighed, self._foreign, ours = now, True, 0
            for run, _ in self.home.run_ids():
                size = self.home.size(run)
                ours += memory.used if size is None else size
                if 2 * ours >= memory.used:
                    self._foreign = False
                    break
        return self._foreign

    def _memory(self) -> Memory | None:
        """Return how full the home is, None where nobody may ask."""
        try:
            return self.home.memory()
        except AccessDeniedError as error:
            if not self._refused:
                _log.warning("no run will be deleted to make room on the server: %s", error)
            self._refused = True
            return None

    def _let_old_go(self, ttl: float, now: float) -> list[RunInfo]:
        gone = [row for row in self._finished() if now - row.last_seen > ttl]
        for row in gone:
            self.home.delete(row.id)
        if gone:
            self._tell("age", gone, self._memory())
        return gone

    def _finished(self) -> Iterator[RunInfo]:
        """Yield the runs that may go: finished ones, the oldest first, then those that broke off."""
        now = self._clock()
        rows = sorted(self._store.runs(), key=lambda row: row.last_seen)
        rows = [
            row for row in rows if KEEP not in row.tags and now - row.last_seen > RECENT_SECONDS
        ]
        yield from (row for row in rows if row.status in ("finished", "failed"))
        # an old recording that is being taken in has not told of its end yet, but it is written to
        written = {run: now - seen for run, seen in self.home.run_ids()}
        for row in rows:
            lost = row.status == "lost" and now - row.last_seen > LOST_SECONDS
            if lost and written.get(row.id, 0.0) > RECENT_SECONDS:
                yield row

    def _tell(self, why: str, gone: list[RunInfo], memory: Memory | None) -> None:
        reason = {"memory": "to make room", "age": f"older than {VARIABLE}"}[why]
        _log.warning("deleted %s: %s", reason, ", ".join(f"{row.name} ({row.id})" for row in gone))
        note: dict[str, Json] = {
            "t": self._clock(),
            "why": why,
            "deleted": [
                {"id": row.id, "name": row.name, "last_seen": row.last_seen}
                for row in gone[-KEPT_NAMES:]
            ],
        }
        if memory is not None:
            note |= {"used": memory.used, "most": memory.most}
        try:
            self.home.set_settings({"janitor": note})
        except StoreFullError:
            _log.warning("the server is full, and what was deleted is told in this log alone")
