"""Writing: what waits in memory or on disk, batch by batch into the sink, or onto the disk.

All of it happens in the sender's thread, but for what `close` puts onto the disk when that hangs.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..store import Sink, StoreError, StoreLostError, StoreUnavailableError
from .backlog import Backlog, Batch
from .delivery import Delivery
from .outbox import Outbox
from .pace import LINGER_SECONDS, Pace
from .ranks import FirstRank, Identity

log = logging.getLogger("otoscope")

HELD = 2048
"""Frames that wait in memory for a server before they go to disk; about 10 MB at 1,200 columns."""


class Writing:
    """The half of a sender that takes batches to where they belong; see `Sender`."""

    def __init__(
        self,
        run: str,
        open_sink: Callable[[], Sink],
        spool: Path,
        *,
        attempt: int = 1,
        linger: float = LINGER_SECONDS,
        held: int = HELD,
        on_attempt: Callable[[int], None] | None = None,
        identify: Callable[[Sink], Identity] | None = None,
    ) -> None:
        self.run = run
        self._identify = identify or FirstRank(run, spool, None)
        self.attempt = attempt
        self.sink: Sink | None = None
        self.sent_frames = 0
        self.dropped_frames = 0
        self.late_frames = 0
        self.last_error: str | None = None
        self.delivery = Delivery(run)
        self._open_sink = open_sink
        self._pace = Pace(linger)
        self._on_attempt = on_attempt
        self._outbox = Outbox(held)
        self._backlog = Backlog(run, spool)
        self._began = False
        self._under_way: Batch | None = None
        self._closing = threading.Event()
        self._dead = False
        self._deadline = 0.0

    @property
    def queue_frames(self) -> int:
        """Frames that wait in memory."""
        return self._outbox.frames

    @property
    def spooled_frames(self) -> int:
        """Frames that wait on disk."""
        return self._backlog.frames

    @property
    def spool(self) -> Path:
        """The folder that frames wait in, where the server does not take them."""
        return self._backlog.folder

    @property
    def identified(self) -> bool:
        """Whether it is certain which run and attempt this is."""
        return self._began

    @property
    def _waits(self) -> bool:
        return self._outbox.waits or self._backlog.waits

    def _write(self) -> None:
        self._under_way = None
        sink = self._connected()
        while self._waits and not self._dead:
            if self._closing.is_set() and time.monotonic() >= self._deadline:
                raise StoreUnavailableError("the training ended before it took everything")
            batch = self._under_way = self._next_batch()
            self._tell_counts(batch)
            refused = self.delivery.send(sink, batch, self.attempt)
            if self._dead:
                return
            self._count(batch, refused)
            self.delivery.tend(sink)
            if self._outbox.excess():  # the store takes less than the training brings
                self._to_disk()

    def _next_batch(self) -> Batch:
        if self._backlog.waits:  # older than what waits in memory
            return self._backlog.first(self.attempt)
        return self._taken()

    def _taken(self) -> Batch:
        if self._outbox.batch is None:
            self._outbox.batch = self._outbox.next_batch()
            self.delivery.remember(self._outbox.batch)
        return self._outbox.batch

    def _tell_counts(self, batch: Batch) -> None:
        """Put into a batch that tells of its rank what will be stored once it is there."""
        waiting = self.queue_frames + self.spooled_frames - len(batch.frames)
        for rank in batch.fields.get("heartbeat", {}):
            batch.fields["sending"] = {
                rank: {
                    "stored": self.sent_frames + len(batch.frames),
                    "waiting": max(waiting, 0),
                    "lost": self.dropped_frames + batch.unreadable,
                }
            }

    def _count(self, batch: Batch, refused: int) -> None:
        if batch.on_disk:
            refused = 0  # `otoscope up` took the spool in at the same time: they are stored
        self.sent_frames += len(batch.frames) - refused
        self.dropped_frames += refused + batch.unreadable
        self._let_go(batch)

    def _let_go(self, batch: Batch) -> None:
        self._under_way = None
        if batch.on_disk:
            self._backlog.done()
        else:
            self._outbox.batch = None

    def _connected(self) -> Sink:
        if self.sink is None:
            self.sink = self._open_sink()
        if not self._began:
            self._identified(self._identify(self.sink))
            self._began = True
            if self._on_attempt is not None:
                self._on_attempt(self.attempt)
        return self.sink

    def _identified(self, found: Identity) -> None:
        self.attempt = max(self.attempt, found.attempt)
        self.run = self.delivery.run = found.run
        if self._backlog.run != found.run:
            self._backlog.belong(found.run, found.spool)

    def _failed(self, error: Exception) -> None:
        self.delivery.in_doubt = True
        self.delivery.lost |= isinstance(error, StoreLostError)
        if self._under_way is not None:
            self._under_way.in_doubt = True
        if not self._pace.pause:
            log.warning("run %s: cannot write to the store yet, frames wait: %s", self.run, error)
        self.last_error = str(error)
        self._pace.failed()

    def _drop_unwritable(self, batch: Batch, error: Exception) -> None:
        """Give up a batch that fails for a reason that no waiting mends: an error of ours."""
        batch.failures += 1
        if batch.failures >= 3:
            self._drop(batch, error)
            self._let_go(batch)

    def _drop(self, batch: Batch, error: Exception) -> None:
        """Count the frames of a batch that nothing can write as lost."""
        self.last_error = str(error)
        self.dropped_frames += len(batch.frames) + batch.unreadable
        log.error("run %s: %d frames dropped: %r", self.run, len(batch.frames), error)

    def _recovered(self) -> None:
        if self._pace.pause:
            log.info("run %s: the store answers again", self.run)
            self._backlog.tidy()
        self._pace.pause = 0.0

    def _to_disk(self) -> None:
        """Move everything that waits in memory to the spool, in order."""
        with self._backlog.lock:
            self._move()

    def _move(self) -> None:
        try:
            while self._outbox.waits:
                batch = self._taken()
                batch.number(self.attempt)
                told = {**self.delivery.told.fields, "attempt": self.attempt}
                try:
                    self._backlog.keep(batch, self.delivery.schemas.values(), told)
                except (TypeError, ValueError, struct.error) as error:  # no frame of ours
                    self._drop(batch, error)
                self._outbox.batch = self._under_way = None
        except (StoreError, OSError) as error:
            if self._outbox.batch is not None:
                self._outbox.batch.in_doubt = True  # its events may be on disk
            self.last_error = str(error)
            # neither server nor disk: hold on to the newest
            self.dropped_frames += self._outbox.drop_oldest(4)
