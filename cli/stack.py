"""The stack of `otoscope up`: server, daemon and page, started in this order and ended in reverse."""

from __future__ import annotations

import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import IO
from urllib.parse import urlsplit

from ..store import OtoscopeError, ServerError, connect
from ..store.locks import try_lock
from ..store.login import LOOPBACK, port_is_free
from ..store.places import (
    Address,
    boot_id,
    forget_address,
    home_folder,
    read_address,
    write_address,
)
from ..store.server import EmbeddedServer
from .children import Child
from .intake import Intake


@dataclass
class AlreadyUpError(OtoscopeError):
    """Raised when another `otoscope up` runs on this home folder; `address` is where, if known."""

    address: Address | None

    @property
    def port(self) -> int | None:
        """Port of the page that runs."""
        page = self.address.dashboard if self.address else None
        return urlsplit(page).port if page else None

    def __str__(self) -> str:
        if self.address is None:
            return (
                f"another `otoscope up` uses {home_folder()}, on another host or still starting; "
                "end it, or set OTOSCOPE_HOME to a folder of its own"
            )
        return (
            f"Otoscope is already up at {self.address.dashboard} (pid {self.address.pid}); "
            f"end it with Ctrl-C in its terminal, or `kill {self.address.pid}`"
        )


class Stack:
    """Server (unless a URL is given), daemon and page.

    `stop` ends a start that still waits; `say` gets one line a part.
    """

    def __init__(
        self,
        *,
        port: int,
        url: str | None = None,
        stop: Event | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.port = port
        self.url = url or ""
        self.stopped = stop or Event()
        self.address: Address | None = None
        self._server = EmbeddedServer() if url is None else None
        self._children: list[Child] = []
        self._lock: IO[str] | None = None
        self._intake: Intake | None = None
        self._say = say

    @classmethod
    def of(cls, address: Address, stop: Event) -> Stack:
        """Return a stack that another process runs; it is not ours to start or end."""
        port = urlsplit(address.dashboard or "").port or 0
        stack = cls(port=port, url=address.url, stop=stop)
        stack.address = address
        return stack

    @property
    def foreign(self) -> bool:
        """Whether another process runs these parts: they outlive this one."""
        return self._lock is None

    @property
    def page(self) -> str:
        """Address of the page."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start all parts and return once the page answers, or `stop` was set.

        Raises AlreadyUpError, and OtoscopeError where a port is taken or a part does not start;
        nothing is left running then.
        """
        try:
            self._lock = try_lock(home_folder() / "up.lock")
        except OSError as error:
            raise ServerError(
                f"cannot use the home folder {home_folder()}: {error.strerror or error}; "
                "set OTOSCOPE_HOME to a folder that you may write to"
            ) from error
        if self._lock is None:
            raise AlreadyUpError(read_address())
        try:
            self._start()
        except BaseException:
            self.end()
            raise

    def _start(self) -> None:
        steps = (
            self._check_port,
            self._start_server,
            self._take_in_recordings,
            self._start_children,
            self._wait_for_page,
            self._publish,
        )
        for step in steps:
            if self.stopped.is_set():
                return
            step()

    def _check_port(self) -> None:
        if not port_is_free(self.port):
            raise ServerError(
                f"port {self.port} is taken by another program; choose another one: "
                f"--port {self.port + 1}"
            )

    def _start_server(self) -> None:
        if self._server is None:
            connect(self.url).close()
            return
        self._server.start(self.stopped.is_set)
        self.url = self._server.url
        self._say(f"server     {self._server.binary}, data in {self._server.directory}")

    def _start_children(self) -> None:
        self._start_child("daemon", ["-m", "otoscope.cli.main", "daemon"])
        page = ["-m", "otoscope.dashboard", "--host", LOOPBACK, "--port", str(self.port)]
        self._start_child("dashboard", page)

    def _publish(self) -> None:
        self.address = Address(
            url=self.url,
            socket=self._server.socket if self._server else "",
            dashboard=self.page,
            pid=os.getpid(),
            hostname=socket.gethostname(),
            boot_id=boot_id(),
            server_pid=self._server.pid if self._server else None,
        )
        write_address(self.address)
        if self._intake is not None:
            self._intake.follow()

    def _start_child(self, name: str, arguments: list[str]) -> None:
        log = home_folder() / "logs" / f"{name}.log"
        # The address holds a password: in the environment only the same user can read it.
        environment = {"OTOSCOPE_URL": self.url}
        self._children.append(Child(name, arguments, log=log, environment=environment))

    def _take_in_recordings(self) -> None:
        """Copy runs that were recorded without a server into it, each once."""
        self._intake = Intake(self.url, self.stopped, self._say)
        self._intake.look()

    def _wait_for_page(self, patience: float = 60.0) -> None:
        deadline = time.monotonic() + patience
        while not self.stopped.is_set():
            self.check()
            if answers(f"{self.page}/healthz"):
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the page did not answer at {self.page} within {patience:.0f} s; "
                    f"see {home_folder() / 'logs' / 'dashboard.log'}"
                )
            self.stopped.wait(0.1)

    def check(self) -> None:
        """Raise ServerError where a part has ended by itself, with its last words."""
        for child in self._children:
            if child.poll() is not None:
                raise ServerError(
                    f"the {child.name} ended by itself with status {child.poll()}; "
                    f"its last words in {child.log}:\n  {child.last_words()}"
                )
        if self._server is not None and self._server.poll() is not None:
            raise ServerError(
                f"the Redis server ended by itself with status {self._server.poll()}; "
                f"see {self._server.log}"
            )

    def watch(self) -> None:
        """Return when `stop` is set; raises ServerError where a part ends before."""
        while not self.stopped.wait(0.3):
            self.check()

    def end(self) -> None:
        """End the page, then the daemon (after its commit), then the server; repeatable."""
        if self._intake is not None:
            self.stopped.set()
            self._intake.end()
        while self._children:
            self._children.pop().end()
        if self._server is not None:
            self._server.stop()
        if self._lock is not None:
            if self.address is not None:
                forget_address()
            self._lock.close()
            self._lock = None


def answers(url: str) -> bool:
    """Tell whether an address of this machine answers with success."""
    # A proxy of the environment ($http_proxy) would look for 127.0.0.1 on its own machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False
