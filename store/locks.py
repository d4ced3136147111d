"""A lock on a file: held by whoever has it open, let go when the last of them ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no flock; there is no embedded server to protect there either
    fcntl = None


def try_lock(path: Path) -> IO[str] | None:
    """Return the locked file, or None where another process holds it; closing it lets go.

    A child that inherits the descriptor holds the lock with us, and after us.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = path.open("a+")
    if fcntl is None:
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


@contextmanager
def held_lock(path: Path, seconds: float = 2.0) -> Iterator[bool]:
    """Hold a lock for a moment's work, and yield whether it was to be had in so many seconds.

    Raises OSError where the file cannot be made.
    """
    end = time.monotonic() + seconds
    file = try_lock(path)
    while file is None and time.monotonic() < end:
        time.sleep(0.005)
        file = try_lock(path)
    try:
        yield file is not None
    finally:
        if file is not None:
            file.close()
