"""The sender: one background thread between the training loop and the place where runs are kept.

`emit` appends to a deque; the thread writes batches. Where the server is away, frames wait in
memory, then on disk, and leave in order once it is back, each once.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..store import Event, Frame, Schema, Sink, StoreError, StreamName
from ..store.places import register_recording
from ..store.schemas import Json
from .backlog import Backlog, Batch
from .ranks import FirstRank, Identity

log = logging.getLogger("otoscope")

LINGER_SECONDS = 0.25
"""35 µs of background CPU a frame; lingering 50 ms costs four times that."""
BATCH = 500
HELD = 2048
"""Frames that wait in memory for a server before they go to disk; about 10 MB at 1,200 columns."""
LONGEST_PAUSE = 2.0

_senders: weakref.WeakSet[Sender] = weakref.WeakSet()


class Sender:
    """Writes the frames and events of one run on one rank.

    Args:
        run: the run's id.
        open_sink: returns where to write; called in the thread.
        spool: folder that frames wait in while the server is away for long.
        attempt: the attempt's number where it is certain before a server was asked (1 for a new
            run), or the least that it can be where `ask_attempt` is set (a resumed run).
        linger: seconds between two writes.
        on_attempt: told the attempt's number, in the thread, once it is certain.
        identify: asked in the thread, again and again until it returns, which run and attempt this
            is and where to keep what waits; None begins an attempt of `run`.
    """

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
        self.spool = spool
        self.sink: Sink | None = None
        self.sent_frames = 0
        self.dropped_frames = 0
        self.late_frames = 0
        self.cpu_seconds = 0.0
        self.last_error: str | None = None
        self._open_sink = open_sink
        self._linger = linger
        self._held = held
        self._on_attempt = on_attempt
        self._queue: deque[Frame | Event | Schema | dict[str, Json]] = deque()
        self._schemas: dict[str, Schema] = {}
        self._told = Batch()
        self._unsent: Batch | None = None
        self._backlog = Backlog(run, spool)
        self._began = False
        self._pause = 0.0
        self._retry_at = 0.0
        self._random = random.Random(os.urandom(8))  # never the user's generator
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._done = threading.Event()
        self._dead = False
        self._thread: threading.Thread | None = None
        _senders.add(self)

    def start(self) -> None:
        """Start the thread; ends with `close`, and at the latest with the process."""
        self._thread = threading.Thread(target=self._loop, name="otoscope-sender", daemon=True)
        atexit.register(self.close, 2.0)
        self._thread.start()

    def emit(self, item: Frame | Event | Schema | dict[str, Json]) -> None:
        """Take a frame, an event, a schema (before its frames) or fields of Meta; never waits."""
        if not self._dead:
            self._queue.append(item)

    @property
    def queue_frames(self) -> int:
        """Frames that wait in memory."""
        return len(self._queue) + (len(self._unsent.frames) if self._unsent else 0)

    @property
    def spooled_frames(self) -> int:
        """Frames that wait on disk."""
        return self._backlog.frames

    def flush(self, deadline: float = 2.0) -> bool:
        """Wait until everything emitted so far was written; False where the deadline came first."""
        end = time.monotonic() + deadline
        while not self._dead and (self._queue or self._unsent or self._backlog.frames):
            self._wake.set()
            if time.monotonic() >= end or self._done.is_set():
                return False
            self._done.wait(0.005)
        return True

    def close(self, deadline: float = 5.0) -> bool:
        """Write what is left and end the thread; what no server took stays in the spool.

        Returns whether the thread ended in time.
        """
        thread = self._thread
        if self._dead or thread is None:
            return True
        self._deadline = time.monotonic() + deadline
        self._closing.set()
        self._wake.set()
        thread.join(deadline + 1.5)
        atexit.unregister(self.close)
        self._thread = None if not thread.is_alive() else thread
        return not thread.is_alive()

    def _loop(self) -> None:
        try:
            while not self._closing.is_set() and not self._dead:
                self._wake.wait(self._linger)
                self._wake.clear()
                self._turn()
            self._last_turns()
        finally:
            self._done.set()
            if self.sink is not None:
                self.sink.close()

    def _turn(self) -> None:
        """Write what waits, as far as the server takes it."""
        before = time.thread_time()
        if time.monotonic() >= self._retry_at:
            try:
                self._write()
                self._recovered()
            except StoreError as error:
                self._failed(error)
            except Exception as error:
                self._failed(error)
                self._drop_unwritable(error)
        if self._pause and (self.queue_frames > self._held or self._backlog.frames):
            self._to_disk()
        self.cpu_seconds += time.thread_time() - before

    def _last_turns(self) -> None:
        while (self._queue or self._unsent or self._backlog.frames) and not self._dead:
            self._retry_at = 0.0
            self._turn()
            if self._pause:
                if time.monotonic() + self._pause >= self._deadline:
                    break
                time.sleep(min(self._pause, 0.2))
        if self._queue or self._unsent or self._backlog.frames:
            self._to_disk()
            self._tell_what_is_left()

    def _tell_what_is_left(self) -> None:
        if self._unsent is not None or self._queue:  # the disk did not take it either
            while self._queue and self._unsent is not None:
                rest = self._next_batch()
                self._unsent.frames += rest.frames
            lost = len(self._unsent.frames) if self._unsent else 0
            self.dropped_frames += lost
            log.error("run %s: %d samples are lost: %s", self.run, lost, self.last_error)
        if self._backlog.frames:
            register_recording(self.spool)
            log.warning(
                "run %s: the store did not take everything (%s); what is left waits in %s, and "
                "`otoscope up` takes it in",
                self.run,
                self.last_error,
                self.spool,
            )

    def _write(self) -> None:
        sink = self._connected()
        if self._backlog.frames or self._backlog.events:
            self.sent_frames += self._backlog.replay(sink, self.attempt)
        while self._unsent is not None or self._queue:
            if self._unsent is None:
                self._unsent = self._next_batch()
            self._send(sink, self._unsent)
            self._unsent = None

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
        if found.run != self.run and not self._backlog.waits:
            self.spool, self._backlog = found.spool, Backlog(found.run, found.spool)
        self.run = found.run

    @property
    def identified(self) -> bool:
        """Whether it is certain which run and attempt this is."""
        return self._began

    def _next_batch(self) -> Batch:
        batch = Batch()
        while self._queue and len(batch.frames) < BATCH:
            item = self._queue.popleft()
            if isinstance(item, Frame):
                batch.frames.append(item)
            elif isinstance(item, Event):
                batch.events.append(item)
            elif isinstance(item, Schema):
                batch.schemas.append(item)
                self._schemas[item.hash] = item
            else:
                batch.merge(item)
                self._told.merge(item)
        return batch

    def _send(self, sink: Sink, batch: Batch) -> None:
        batch.number(self.attempt)
        for schema in batch.schemas:
            sink.add_schema(self.run, schema)
        count = len(batch.frames)
        frames = batch.frames
        if batch.in_doubt:
            # the reply was lost, or the write refused: only the store knows which
            last: dict[StreamName, tuple[int, int] | None] = {
                stream: sink.last_id(self.run, stream) for stream in {f.stream for f in frames}
            }
            frames = [f for f in frames if f.id > (last[f.stream] or (-1, 0))]
        refused = sink.append(self.run, frames, batch.events, batch.fields, resent=batch.in_doubt)
        self.dropped_frames += refused
        self.sent_frames += count - refused

    def _failed(self, error: Exception) -> None:
        if self._unsent is not None:
            self._unsent.in_doubt = True
        if not self._pause:
            log.warning("run %s: cannot write to the store yet, frames wait: %s", self.run, error)
        self.last_error = str(error)
        self._pause = min(LONGEST_PAUSE, max(0.05, 2 * self._pause))
        self._retry_at = time.monotonic() + self._pause * self._random.uniform(0.5, 1.0)

    def _drop_unwritable(self, error: Exception) -> None:
        """Give up a batch that fails for a reason that no waiting mends: an error of ours."""
        if self._unsent is None:
            return
        self._unsent.failures += 1
        if self._unsent.failures >= 3:
            self.dropped_frames += len(self._unsent.frames)
            log.error("run %s: %d frames dropped: %r", self.run, len(self._unsent.frames), error)
            self._unsent = None

    def _recovered(self) -> None:
        if self._pause:
            log.info("run %s: the store answers again", self.run)
        self._pause = 0.0

    def _to_disk(self) -> None:
        """Move everything that waits in memory to the spool, in order."""
        try:
            while self._unsent is not None or self._queue:
                batch = self._unsent or self._next_batch()
                self._unsent = batch
                batch.number(self.attempt)
                told = {**self._told.fields, "attempt": self.attempt}
                self._backlog.keep(batch, self._schemas.values(), told)
                self._unsent = None
        except StoreError as error:
            self.last_error = str(error)
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Neither server nor disk: hold on to the newest, count what is lost."""
        excess = self.queue_frames - 4 * self._held
        if excess <= 0 or self._unsent is None:
            return
        lost = self._unsent.frames[:excess]
        del self._unsent.frames[:excess]
        self.dropped_frames += len(lost)
        while len(self._queue) > 4 * self._held:
            item = self._queue.popleft()
            if isinstance(item, Frame):
                self.dropped_frames += 1
            elif isinstance(item, Schema):
                self._unsent.schemas.append(item)
            elif isinstance(item, Event):
                self._unsent.events.append(item)
            else:
                self._unsent.merge(item)

    def _abandon(self) -> None:
        """Forget everything: this is a forked child, and its parent sends."""
        self._dead = True
        self._queue.clear()
        self._unsent = None
        self._thread = None

    _deadline = 0.0


def _after_fork() -> None:
    for sender in list(_senders):
        sender._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
