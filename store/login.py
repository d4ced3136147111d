"""The login of the embedded server: port and password, the same from one start to the next."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from pathlib import Path

from .places import write_private

LOOPBACK = "127.0.0.1"
PASSWORD_LETTERS = 32


def kept_login(path: Path) -> tuple[int, str]:
    """Return port and password of the last start, another port where that one is taken by now.

    A training that goes on while the server is started anew finds it at the same address.
    """
    port, password = 0, ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_text())
        port, password = int(kept["port"]), str(kept["password"])
    if len(password) < PASSWORD_LETTERS:
        password = secrets.token_urlsafe(PASSWORD_LETTERS)
    if not (1024 <= port < 65536 and port_is_free(port)):
        port = free_port()
    write_private(path, {"port": port, "password": password})
    return port, password


def port_is_free(port: int) -> bool:
    """Tell whether nobody listens on a port of this machine."""
    with socket.socket() as probe:
        # as servers do: a port of closed connections that still linger is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
