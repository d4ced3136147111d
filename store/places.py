"""Places on this machine: Otoscope's home folder, the address of its server, known recordings."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from .locks import held_lock

_log = logging.getLogger("otoscope")


def home_folder() -> Path:
    """Return `$OTOSCOPE_HOME`, else the platform's user data folder; it may not exist yet."""
    asked = os.environ.get("OTOSCOPE_HOME")
    return Path(asked).expanduser() if asked else Path(platformdirs.user_data_dir("otoscope"))


def boot_id() -> str:
    """Return what tells one boot of this machine from the next; empty where nothing does."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


@dataclass(slots=True)
class Address:
    """Where the embedded server of this machine listens, and who started it.

    `url` carries the password, so the file that holds it is readable by its owner alone.
    """

    url: str = field(repr=False)
    socket: str
    dashboard: str | None
    pid: int
    hostname: str
    boot_id: str
    server_pid: int | None = None

    def is_here(self) -> bool:
        """Tell whether the address was written on this host, in this boot, by a living process.

        A home folder may be shared: another host must not be sent to its own loopback.
        """
        return (
            self.hostname == socket.gethostname()
            and self.boot_id == boot_id()
            and process_lives(self.pid)
        )


def process_lives(pid: int) -> bool:
    """Tell whether a process of this id runs (also where it belongs to another user)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OSError:
        return False
    # A killed process that nobody has waited for (PID 1 of a container often does not) is dead.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def process_started() -> float:
    """Return when this process started, in epoch seconds; 0 where nobody tells."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - age
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def address_file() -> Path:
    return home_folder() / "server.json"


def write_address(address: Address) -> None:
    """Write the address file, readable by its owner alone."""
    write_private(address_file(), asdict(address))


def read_address() -> Address | None:
    """Return the address of the embedded server, None where none runs on this host."""
    try:
        address = Address(**json.loads(address_file().read_text()))
    except (OSError, ValueError, TypeError):
        return None
    sound = isinstance(address.url, str) and type(address.pid) is int
    return address if sound and address.is_here() else None


def forget_address() -> None:
    """Remove the address file; it may be gone already."""
    with contextlib.suppress(OSError):
        address_file().unlink()


def recordings_file() -> Path:
    return home_folder() / "recordings.json"


def register_recording(directory: Path) -> None:
    """Remember a recording's folder, so that `otoscope up` finds it.

    A home folder that cannot be written to is said in the log: the recording itself is whole.
    """
    here = str(directory.resolve())
    try:
        with held_lock(_recordings_lock()):  # ranks of a job begin at one moment
            rows = [*(row for row in _recorded() if row != here), here][-1000:]
            write_private(recordings_file(), {"recordings": rows})
    except OSError as error:
        _log.warning(
            "`otoscope up` will not find the recording in %s by itself, for %s cannot be written "
            "(%s); set OTOSCOPE_HOME to a folder that can be, or `otoscope diagnose` it by its path",
            directory,
            recordings_file(),
            error.strerror or error,
        )


def recordings() -> list[Path]:
    """Return the known recordings that still exist, oldest first."""
    return [Path(row) for row in _recorded()]


def _recorded() -> list[str]:
    try:
        rows = json.loads(recordings_file().read_text())["recordings"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    # beside a training: hundreds of `Path`s take 20 ms of its time
    return [row for row in rows if isinstance(row, str) and os.path.isdir(row)]  # noqa: PTH112


def forget_recording(directory: Path) -> None:
    """Take a recording off the list; its folder stays."""
    with held_lock(_recordings_lock()):
        rows = [str(path) for path in recordings() if path != directory]
        write_private(recordings_file(), {"recordings": rows})


def _recordings_lock() -> Path:
    return home_folder() / "recordings.lock"


def write_private(path: Path, body: dict[str, Any]) -> None:
    """Replace a JSON file by one that its owner alone can read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as file:
        json.dump(body, file, indent=1)
    Path(temporary).replace(path)
