"""The client of a Redis Cluster of several nodes, opened when it is first asked."""

from __future__ import annotations

from threading import Lock
from typing import Any

from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

CLUSTER = "+cluster"
"""Behind the scheme: redis+cluster://host:7000, rediss+cluster://…; any node will do."""


class LazyCluster:
    """Stands for a RedisCluster, which connects when it is made; nothing is tried twice.

    All keys of a run share a slot, so that a batch goes to one node, in one transaction. What is
    sent to a node that has moved on fails once; the next call knows the new one.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url, self._options = url.replace(CLUSTER, "", 1), options
        self._made: Any = None
        self._lock = Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client(), name)

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = RedisCluster.from_url(
                    self._url, retry=Retry(NoBackoff(), 0), **self._options
                )
            return self._made

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None


def pool_of(client: Any) -> Any:
    """Return the connections to the server, or to one node of a cluster."""
    if isinstance(client, LazyCluster):
        node = client.get_default_node()
        return client.get_redis_connection(node).connection_pool
    return client.connection_pool
