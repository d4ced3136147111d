"""The client of one Redis or Valkey server: its options, and its errors in our words."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from . import keys
from .addresses import check_files, checked_url, password_of, redacted
from .errors import OtoscopeError
from .jobs import JOB_SECONDS
from .redis_cluster import CLUSTER, LazyCluster, pool_of
from .redis_errors import in_our_words
from .redis_greeting import checked_server
from .schemas import Json


class RedisClient:
    """A connection pool to one server, opened when first asked.

    `timeout` bounds every call in seconds; nothing is tried twice. The pool replaces a connection
    that was closed while it was idle without a word; within `_same_connection` that is an error.
    """

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        url = checked_url(url)
        self.where = redacted(url).partition("?")[0]
        """The address without its password and options, to be shown."""
        check_files(url)
        self._loyal = False
        password = password_of(url)
        self.server: dict[str, str] = {}
        """What the server said of itself when it was connected to: server, version, mode, role."""
        options = {
            "protocol": 2,
            "socket_timeout": timeout,
            "socket_connect_timeout": min(timeout, 2.0),
            "health_check_interval": 0,
            **({"password": password} if password else {}),
            **_unnamed(),
        }
        self._client: Any
        if CLUSTER in url.partition("://")[0]:
            self._client = LazyCluster(url, redis_connect_func=self._greet, **options)
        else:
            # the defaults retry ten times: a refused connection blocked for 3.6 s
            once = Retry(NoBackoff(), 0)
            self._client = redis.Redis.from_url(
                url, retry=once, redis_connect_func=self._on_connect, **options
            )

    def ping(self) -> None:
        with self._translated():
            self._client.ping()

    def close(self) -> None:
        self._client.close()

    def server_info(self) -> dict[str, Json]:
        """Return the server's INFO: version, memory in bytes, eviction policy."""
        with self._translated():
            return dict(self._client.info())

    def tls(self) -> tuple[str, float | None] | None:
        """Return TLS version and end of the server's certificate (epoch s), None without TLS.

        The end is None where the certificate was not asked to be valid (`ssl_cert_reqs=none`).
        """
        with self._translated():
            connection = pool_of(self._client).get_connection()
            try:
                link = connection._sock
                if not isinstance(link, ssl.SSLSocket):
                    return None
                ends = (link.getpeercert() or {}).get("notAfter")
                told = link.version() or "unknown"
                return told, ssl.cert_time_to_seconds(str(ends)) if ends else None
            finally:
                pool_of(self._client).release(connection)

    def tell_job(self, job: str, text: str) -> None:
        """Remember a text under a job's key for a day."""
        with self._translated():
            self._client.set(keys.job(job), text, ex=JOB_SECONDS)

    def job(self, job: str) -> str | None:
        """Return what was told under a job's key, None where nothing was."""
        with self._translated():
            told = self._client.get(keys.job(job))
        return None if told is None else told.decode(errors="replace")

    @contextmanager
    def _same_connection(self) -> Iterator[None]:
        """Refuse to connect anew: a new connection may lead to another server, which holds less."""
        self._loyal = True
        try:
            yield
        finally:
            self._loyal = False

    def _on_connect(self, connection: Any) -> None:
        if not self._loyal:
            connection.on_connect()
        self._greet(connection)

    def _greet(self, connection: Any) -> None:
        """Check what is at the other end of a new connection, which has logged in."""
        if self._loyal:
            raise exceptions.ConnectionError("the connection was lost since the last call")
        try:
            self.server = checked_server(connection, self.where)
        except OtoscopeError:
            connection.disconnect()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
            raise in_our_words(error, self.where) from error


def _unnamed() -> dict[str, None]:
    """Return the options that keep the client from telling the server its own name and version.

    It would look its version up in the installed packages at the first connection, in the sender's
    thread: with Lightning's import hooks that held the GIL, and a training step, for 0.4 s.
    """
    known = inspect.signature(AbstractConnection.__init__).parameters
    names = ("driver_info",) if "driver_info" in known else ("lib_name", "lib_version")
    return dict.fromkeys(names)
