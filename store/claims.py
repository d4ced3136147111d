"""Claims: a folder in which samples wait for a server belongs to the process that will send them.

Nobody else takes it in while that process lives: it may have older samples in memory, which a server
refuses once it has these.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from .places import boot_id, process_lives

CLAIM = ".waiting"
"""The file that marks a folder as somebody's."""
ELSEWHERE_SECONDS = 3600.0
"""A claim of another host, whose processes cannot be seen from here, counts for so long."""


def claim(folder: Path) -> None:
    """Make a folder this process's; raises FileExistsError where it is somebody's already."""
    owner = {"pid": os.getpid(), "hostname": socket.gethostname(), "boot_id": boot_id()}
    handle = os.open(folder / CLAIM, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(owner, file)


def let_go(folder: Path) -> None:
    """Leave a folder to whoever takes it in."""
    with suppress(OSError):
        (folder / CLAIM).unlink()


def is_claimed(folder: Path) -> bool:
    """Tell whether a process that lives will send what waits in a folder, or in another rank's below."""
    return any(_has_owner(path) for path in (folder / CLAIM, *folder.glob(f"rank-*/{CLAIM}")))


def _has_owner(path: Path) -> bool:
    try:
        silent = time.time() - path.stat().st_mtime
        owner = json.loads(path.read_text(encoding="utf-8"))
        pid, host = int(owner["pid"]), (owner["hostname"], owner["boot_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # there is none, or a full disk left none of it
    if host != (socket.gethostname(), boot_id()):
        return host[0] != socket.gethostname() and silent < ELSEWHERE_SECONDS
    return process_lives(pid)
