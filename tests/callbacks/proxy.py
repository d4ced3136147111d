"""A TCP proxy in front of a Redis server, for what a network does at the worst moment."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field

EXEC = b"*1\r\n$4\r\nEXEC\r\n"


@dataclass(eq=False)
class _Pair:
    """A connection to us and the one to the server; what the server says may be kept back."""

    client: socket.socket
    server: socket.socket
    muted: bool = False
    heard: bytes = b""
    executed: threading.Event = field(default_factory=threading.Event)

    def end(self) -> None:
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()


class Proxy:
    """`cut` ends what flows, `swallow` loses the reply of a transaction that was executed."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.swallowed = 0
        self._swallow = False
        self._pairs: list[_Pair] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        """Let the next transaction be executed, but its reply be lost with the connection."""
        self._swallow = True

    def cut(self) -> None:
        """End every connection; a new one goes to `target` as it is then."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.end()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = _Pair(client, server)
            self._pairs.append(pair)
            threading.Thread(target=self._up, args=(pair,), daemon=True).start()
            threading.Thread(target=self._down, args=(pair,), daemon=True).start()

    def _up(self, pair: _Pair) -> None:
        tail = b""
        with contextlib.suppress(OSError):
            while data := pair.client.recv(65536):
                tail = (tail + data)[-len(EXEC) :]
                if self._swallow and tail == EXEC:
                    self._swallow, pair.muted = False, True
                    pair.server.sendall(data)
                    assert pair.executed.wait(10)
                    self.swallowed += 1
                    break
                pair.server.sendall(data)
        pair.end()

    def _down(self, pair: _Pair) -> None:
        with contextlib.suppress(OSError):
            while data := pair.server.recv(65536):
                if not pair.muted:
                    pair.client.sendall(data)
                    continue
                pair.heard += data
                if b"*" in pair.heard:  # the array that EXEC answers: it was executed
                    pair.executed.set()
        pair.end()
