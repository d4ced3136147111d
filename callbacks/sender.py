"""The sender: one background thread between the training loop and the place where runs are kept.

`emit` appends to a deque; the thread writes batches. Where the server is away, frames wait in
memory, then on disk, and leave in order once it is back, each once.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from ..store import Sink, StoreError
from .outbox import Item, Outbox
from .pace import LINGER_SECONDS
from .ranks import Identity
from .writing import HELD, Writing

log = logging.getLogger("otoscope")

CUT_OFF_SECONDS = 10.0
"""How long after a fit was cut off its end is waited for: other callbacks may write checkpoints."""
MARGIN = 1.5
"""Seconds that `close` may take beyond its deadline: one call that is under way (1 s), the disk."""

_senders: weakref.WeakSet[Sender] = weakref.WeakSet()


class Sender(Writing):
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
        super().__init__(
            run,
            open_sink,
            spool,
            attempt=attempt,
            linger=linger,
            held=held,
            on_attempt=on_attempt,
            identify=identify,
        )
        self.cpu_seconds = 0.0
        self.is_over: Callable[[], bool] | None = None
        """Asked now and then whether what this records was cut off without a word."""
        self._over_since: float | None = None
        self._put = self._outbox.queue.append
        self._wake = threading.Event()
        self._done = threading.Event()
        self._interrupted = False
        self._thread: threading.Thread | None = None
        _senders.add(self)

    def start(self) -> None:
        """Start the thread; ends with `close`, and at the latest with the process."""
        atexit.register(self.close, 2.0)
        self._begin_thread()

    def _begin_thread(self) -> None:
        self._done.clear()
        self._thread = threading.Thread(target=self._loop, name="otoscope-sender", daemon=True)
        self._thread.start()

    def emit(self, item: Item) -> None:
        """Take a frame, an event, a schema (before its frames) or fields of Meta; never waits."""
        if not self._dead:
            self._put(item)

    def flush(self, deadline: float = 2.0) -> bool:
        """Wait until everything emitted so far was written; False where the deadline came first."""
        end = time.monotonic() + deadline
        while not self._dead and self._waits:
            self._wake.set()
            if time.monotonic() >= end or self._done.is_set():
                return False
            self._done.wait(0.005)
        return True

    def close(self, deadline: float = 5.0) -> bool:
        """Write what is left and end the thread; what no server took stays in the spool.

        Returns whether the thread ended in time: within the deadline and MARGIN seconds. A second
        signal ends the waiting, and what no server took by then goes to the spool.
        """
        thread = self._thread
        if self._dead or thread is None:
            return True
        now = time.monotonic()
        end = now + deadline
        self._deadline = min(self._deadline, end) if self._interrupted else end
        self._closing.set()
        self._wake.set()
        self._interrupted = True
        if self._done.is_set() and self._outbox.waits:  # it ended before: see `_cut_off`
            try:
                self._begin_thread()
            except RuntimeError:  # the interpreter ends and starts no thread any more
                self._rescue()
                return False
        # not join: where a signal ends it, CPython 3.11 takes the thread for finished
        self._done.wait(max(self._deadline - now, 0.0) + MARGIN)
        self._interrupted = False
        atexit.unregister(self.close)
        if not self._done.is_set():
            self._rescue()
            return False
        if self._thread is not None:
            self._thread.join(MARGIN)
        self._thread = None
        return True

    def _rescue(self) -> None:
        """Put what waits onto the disk from outside: the thread hangs, and dies with the process."""
        self._dead = True
        if self._backlog.lock.acquire(timeout=MARGIN):  # else it is the disk that hangs
            try:
                self._move()
            finally:
                self._backlog.lock.release()
        self._tell_what_is_left()

    def _loop(self) -> None:
        try:
            while not self._closing.is_set() and not self._dead:
                self._wake.wait(self._pace.linger)
                self._wake.clear()
                self._turn()
                if self._cut_off():
                    break
            self._last_turns()
        finally:
            try:
                if self.sink is not None:
                    self.sink.close()
            finally:
                self._done.set()

    def _turn(self) -> None:
        """Write what waits, as far as the server takes it."""
        before = time.thread_time()
        if self._pace.may_try:
            try:
                self._write()
                self._recovered()
            except Exception as error:
                self._failed(error)
                if self._under_way is not None and not isinstance(error, StoreError):
                    self._drop_unwritable(self._under_way, error)
        if self._pace.pause and (self._backlog.waits or self._outbox.excess()):
            self._to_disk()
        self.cpu_seconds += time.thread_time() - before

    def _cut_off(self) -> bool:
        """Tell whether the end was missed; what is emitted nevertheless, `close` sends."""
        if self.is_over is None or not self.is_over():
            self._over_since = None
            return False
        now = time.monotonic()
        self._over_since = self._over_since or now
        if now - self._over_since < CUT_OFF_SECONDS:
            return False
        self._deadline = now + 5.0
        reason = "the fit was cut off, and its callbacks were not told"
        ended = {"attempt": self.attempt, "how": "failed", "t": time.time(), "reason": reason}
        self.emit({"ended": ended})
        return True

    def _last_turns(self) -> None:
        while self._waits and not self._dead:
            self._pace.hurry()
            self._turn()
            if self._pace.pause:
                if time.monotonic() + self._pace.pause >= self._deadline:
                    break
                time.sleep(min(self._pace.pause, 0.2))
        if self._waits and not self._dead:
            self._to_disk()
            self._tell_what_is_left()
        elif self.sink is not None and not self._pace.pause and not self._dead:
            # once: what these parts are made of is stored, so that nothing is lost without them
            with contextlib.suppress(StoreError):
                self.delivery.finish(self.sink)

    def _tell_what_is_left(self) -> None:
        lost = self._outbox.clear()  # the disk did not take it either
        self.dropped_frames += lost
        if lost:
            log.error("run %s: %d samples are lost: %s", self.run, lost, self.last_error)
        self._backlog.leave()
        if self._backlog.waits:
            log.warning(
                "run %s: the store did not take everything (%s); what is left waits in %s, and "
                "`otoscope up` takes it in",
                self.run,
                self.last_error,
                self.spool,
            )

    def _abandon(self) -> None:
        """Forget everything: this is a forked child, and its parent sends."""
        self._dead = True
        self._outbox = Outbox(0)
        self._thread = None


def _after_fork() -> None:
    for sender in list(_senders):
        sender._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
