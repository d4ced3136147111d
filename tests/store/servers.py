"""Servers of odd kinds for the tests of connecting: with TLS, and those that only pretend."""

from __future__ import annotations

import datetime
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
import trustme
from otoscope.store.login import port_is_free

from tests.conftest import RedisProcess, find_free_port, missing, redis_binary


class Certificates:
    """A CA of the test's own, and what it signs, as PEM files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)

    def issue(self, name: str, *, expired: bool = False) -> tuple[Path, Path]:
        """Return (certificate, key) for a host or an address."""
        now = datetime.datetime.now(datetime.UTC)
        leaf = self.authority.issue_cert(
            name,
            not_before=now - datetime.timedelta(days=9),
            not_after=now + datetime.timedelta(days=-1 if expired else 9),
        )
        certificate, key = (
            self.folder / f"{name}.{expired}.crt",
            self.folder / f"{name}.{expired}.key",
        )
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(key)
        return certificate, key


class TlsServer(RedisProcess):
    """A Redis that speaks TLS on one port and nothing else."""

    def __init__(
        self, directory: Path, certificates: Certificates, *, clients: bool = False, **leaf: object
    ) -> None:
        certificate, key = certificates.issue(**{"name": "127.0.0.1", **leaf})  # type: ignore[arg-type]
        port = find_free_port()
        super().__init__(
            directory,
            *("--port", "0", "--tls-port", str(port)),
            *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
            *("--tls-ca-cert-file", str(certificates.ca)),
            *("--tls-auth-clients", "yes" if clients else "no"),
            port=port,
        )
        self.url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificates.ca}"


class ClusterServer(RedisProcess):
    """A node in cluster mode, with the slots up to `slots` (all of them: a whole cluster)."""

    def __init__(self, directory: Path, *, slots: int = 16383) -> None:
        # the nodes' own bus listens 10,000 ports higher
        ports = iter(find_free_port, 0)
        port = next(port for port in ports if port < 55_000 and port_is_free(port + 10_000))
        super().__init__(directory, "--cluster-enabled", "yes", port=port)
        self.slots = slots

    def start(self) -> ClusterServer:
        super().start()
        if self.slots:
            node: Any = redis.Redis.from_url(self.url)
            node.execute_command("CLUSTER", "ADDSLOTS", *range(self.slots + 1))
            deadline = time.monotonic() + 20
            while self.slots == 16383 and node.cluster("info")["cluster_state"] != "ok":
                assert time.monotonic() < deadline, "the cluster never was whole"
                time.sleep(0.05)
        return self


def need_tls() -> None:
    """Fail where TLS is required of the server, and skip elsewhere, if it was built without."""
    command = [redis_binary(), "--port", "0", "--tls-port", "0", "--tls-protocols", "x"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if "Bad directive" in said.stdout + said.stderr:
        missing("redis", f"{command[0]} was built without TLS")


@contextmanager
def answering(answer: Callable[[list[bytes]], bytes]) -> Iterator[str]:
    """Serve Redis' protocol on a loopback port: `answer` gets a command and returns bytes.

    Yields the URL.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def serve() -> None:
        while not stopped.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                threading.Thread(target=converse, args=(connection,), daemon=True).start()

    def converse(connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection, connection.makefile("rb") as file:
            while head := file.readline():
                words: list[bytes] = []
                for _ in range(int(head[1:])):
                    words.append(file.read(int(file.readline()[1:]) + 2)[:-2])
                connection.sendall(answer(words))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    finally:
        stopped.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
