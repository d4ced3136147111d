"""The intake of `otoscope up`: recordings that are known on this machine go into the store, once.

A run that is still being recorded to disk is followed, so that it is seen on the page as it trains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from ..store import OtoscopeError, StoreUnavailableError, connect
from ..store.claims import is_claimed
from ..store.home import Home
from ..store.places import forget_recording, recordings
from ..store.recording import OpenRecording
from ..store.replaying import replay

LOOK_SECONDS = 5.0
GIVEN_UP_SECONDS = 86_400.0
"""A recording that nobody has written to for a day, though it never ended: its training was killed.
One that goes on makes itself known again."""
PATIENCE = 10
"""A look takes at most one tenth of the time: what is taken in again is read from its start."""


class _StoppedError(Exception):
    """Raised out of a replay when `up` ends."""


class Intake:
    """Takes known recordings into the store at `url`; `say` gets a line for each."""

    def __init__(self, url: str, stop: Event, say: Callable[[str], None]) -> None:
        self.url = url
        self._stop = stop
        self._say = say
        self._seen: dict[Path, tuple[int, float]] = {}
        self._refused: dict[Path, str] = {}
        self._thread: Thread | None = None

    def look(self) -> None:
        """Take in what has changed since the last look. Raises StoreError where nobody answers."""
        store = connect(self.url)
        try:
            for directory in recordings():
                if self._stop.is_set():
                    return
                self._take_in(directory, store.home)
        except _StoppedError:
            return
        finally:
            store.close()

    def _take_in(self, directory: Path, home: Home) -> None:
        state = _state_of(directory)
        if self._seen.get(directory) == state or is_claimed(directory):
            return
        try:
            source = OpenRecording(directory)
            if source.is_fragment and not _holds(home, source.run):
                # alone here it would be half a run, and its server would go without it
                self._refuse(
                    directory,
                    f"is the end of {source.run}, whose beginning another server has; take it in "
                    f"there: otoscope replay {directory} --url …",
                )
                self._seen[directory] = state
                return
            done = replay(directory, home, self._go_on)
        except StoreUnavailableError:
            raise
        except (OtoscopeError, OSError) as error:
            self._refuse(directory, f"cannot be taken in: {error}")
            return
        known = directory in self._seen
        self._seen[directory] = state
        if done.samples and not known:
            more = "; it trains on and is followed" if done.growing else ""
            self._say(f"recording  {done.run} taken in, {done.samples} samples{more}")
            for line in done.damage:
                self._refuse(directory, f"damaged: {line}")
        silent = time.time() - state[1] > GIVEN_UP_SECONDS
        if not done.growing and (silent or home.meta(done.run).ended is not None):
            forget_recording(directory)

    def _refuse(self, directory: Path, line: str) -> None:
        if self._refused.get(directory) != line:
            self._refused[directory] = line
            self._say(f"recording  {directory} {line}")

    def _go_on(self, done: int, of: int) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def follow(self) -> None:
        """Look again and again in a thread of its own, until `stop` is set."""
        self._thread = Thread(target=self._follow, name="otoscope-intake", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        wait = LOOK_SECONDS
        while not self._stop.wait(wait):
            began = time.monotonic()
            try:
                self.look()
            except OtoscopeError:
                pass  # the server is away: `up` itself notices, or it comes back
            wait = max(LOOK_SECONDS, PATIENCE * (time.monotonic() - began))

    def end(self) -> None:
        """Wait until the thread has ended; `stop` is set."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join(10)
            self._thread = None


def _holds(home: Home, run: str) -> bool:
    return any(known == run for known, _ in home.run_ids())


def _state_of(directory: Path) -> tuple[int, float]:
    """Return what changes when a recording does: bytes, and the time of the last change."""
    try:
        source = OpenRecording(directory)
        files = [path for folder in source.folders() for path in folder.iterdir()]
        return source.size, max((path.stat().st_mtime for path in files), default=0.0)
    except (OtoscopeError, OSError):
        return 0, 0.0
