"""Jobs: where the ranks of one job meet to learn which run they record."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Protocol, runtime_checkable

from .errors import StoreError

JOB_SECONDS = 86_400
"""How long a store remembers which run a job records."""

FOLDER = ".jobs"

UNTOLD = "job-"
"""Before a job's key: the run id that a rank writes under which was not told yet which run it is."""


@runtime_checkable
class Jobs(Protocol):
    """A home in which ranks can meet."""

    def tell_job(self, job: str, text: str) -> None:
        """Remember a text under a job's key for a day."""
        ...

    def job(self, job: str) -> str | None:
        """Return what was told under a job's key, None where nothing was."""
        ...


def write_job(root: Path, job: str, text: str) -> None:
    """Tell the other ranks through a folder that they see too; raises StoreError."""
    path = root / FOLDER / job
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget_old(path.parent)
        temporary = path.with_name(f"{job}.{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"cannot tell the other ranks of this run in {path.parent}: {error.strerror or error}; "
            "set spool= to a folder that can be written to"
        ) from error


def read_job(root: Path, job: str) -> str | None:
    """Return what `write_job` wrote; None where it has not yet."""
    try:
        return (root / FOLDER / job).read_text(encoding="utf-8")
    except OSError:
        return None


def _forget_old(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another run may tidy up at the same time
            if time.time() - path.stat().st_mtime > JOB_SECONDS:
                path.unlink()
