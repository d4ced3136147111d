"""The page's server: `python -m otoscope.dashboard`, the store's address from $OTOSCOPE_URL."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import ThreadWorker

from ..store import OtoscopeError, connect
from .access import LOOPBACK
from .app import create_app

THREADS = 32
"""Requests in flight: each waits for Redis most of its time."""


PATIENCE_SECONDS = 5
"""How long a connection may stay silent in the middle of a request, while it holds a thread."""


class PatientWorker(ThreadWorker):
    """Threads that no silent connection holds for good: a phone that left, or malice."""

    def enqueue_req(self, conn: Any) -> None:
        for side in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            conn.sock.setsockopt(socket.SOL_SOCKET, side, struct.pack("ll", PATIENCE_SECONDS, 0))
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        kept = super().handle(conn)
        if not kept:
            # closing waits up to 2 s for the peer's own close: in this thread, not where the
            # worker would do it, in the one thread that accepts connections
            conn.close(graceful=True)
            conn.close = lambda graceful=False: None
        return kept


class Server(BaseApplication):
    """One gunicorn worker with threads: all state is in Redis, so more workers may be added."""

    def __init__(self, make: Callable[[], Flask], options: dict[str, Any]) -> None:
        self._make = make
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        if self.cfg is None:
            return
        for key, value in self._options.items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        return self._make()


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m otoscope.dashboard",
        description="Serve the page. $OTOSCOPE_URL is the store's address; $OTOSCOPE_TOKEN and "
        "$OTOSCOPE_READ_TOKEN ask viewers for a token.",
        epilog="example: OTOSCOPE_URL=redis://localhost:6379/0 python -m otoscope.dashboard --port 8050",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8050, help="port to listen at (8050)")
    parser.add_argument("--prefix", default="/", help="path below which a proxy serves the page")
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which a proxy reaches a page without a token",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="serve other machines without asking for a token"
    )
    return parser.parse_args(arguments)


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    return host in LOOPBACK or host.startswith("127.")


def refusal(options: argparse.Namespace, token: str | None) -> str | None:
    """Return why these options cannot be served, None where they can."""
    if not 0 < options.port < 65536:
        return f"--port must be between 1 and 65535, got {options.port}"
    if not is_loopback(options.host) and not token and not options.insecure:
        return (
            f"refusing to serve {options.host} without a token: others could read and change runs; "
            "set $OTOSCOPE_TOKEN, or say --insecure"
        )
    return why_not_free(options.host, options.port)


def why_not_free(host: str, port: int) -> str | None:
    """Return why an address cannot be listened at, None where it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} on {host} is taken; choose another with --port"
            return (
                f"cannot listen at {host} port {port}: {error.strerror}; choose --host and --port"
            )
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it; returns the exit code."""
    options = parsed(arguments)
    token = os.environ.get("OTOSCOPE_TOKEN") or None
    read_token = os.environ.get("OTOSCOPE_READ_TOKEN") or None
    why = refusal(options, token)
    if why is not None:
        print(f"error: {why}", file=sys.stderr)
        return 1
    # without a token a foreign site could point its own name at 127.0.0.1 and read the page
    named = is_loopback(options.host) and not token and not read_token
    hosts = (*LOOPBACK, options.host, *options.allow_host) if named else None

    def make() -> Flask:
        return create_app(
            connect, prefix=options.prefix, token=token, read_token=read_token, hosts=hosts
        )

    try:
        app = make()
    except OtoscopeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    address = f"[{options.host}]" if ":" in options.host else options.host
    Server(
        lambda: app,
        {
            "bind": f"{address}:{options.port}",
            "workers": options.workers,
            "worker_class": PatientWorker,
            "threads": THREADS,
            "loglevel": "warning",
            "graceful_timeout": 3,
            "proc_name": "otoscope-dashboard",
            "control_socket_disable": True,
        },
    ).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
