"""The least rights (ACL) of each part on the server, and what of them a user lacks."""

from __future__ import annotations

from typing import Any

from redis import exceptions

from . import keys
from .redis_client import RedisClient
from .redis_cluster import pool_of

READING = ("hgetall", "smembers", "xrange", "xrevrange", "xlen", "get")
"""What reading a run takes; the callback reads its own for the verdict, and to go on after an error."""
EVERYONE = ("ping", "multi", "exec", "select", *READING)

RIGHTS: dict[str, tuple[str, ...]] = {
    "callback": (*EVERYONE, "set", "hset", "hincrby", "sadd", "zadd", "xadd", "xtrim"),
    "daemon": (
        *(*EVERYONE, "watch", "unwatch", "info", "zrevrange", "hmget", "memory|usage"),
        *("set", "del", "hset", "zrem", "xadd", "xtrim"),
    ),
    "page": (
        *(*EVERYONE, "info", "zrevrange", "hmget"),
        *("del", "hset", "hdel", "zrem", "xadd"),
    ),
    "tools": (
        *(*EVERYONE, "info", "zrevrange", "hmget", "memory|usage"),
        *("del", "hset", "zrem", "sadd", "zadd", "xadd", "xtrim"),
    ),
}
"""By part. `tools` is for a person: `otoscope runs`, `show`, `export`, `replay`, `prune`, `doctor`."""

_PROBE = "doctor"
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "ping": (),
    "multi": (),
    "exec": (),
    "select": (0,),
    "unwatch": (),
    "info": ("server",),
    "memory|usage": (),
    "set": ("x",),
    "hset": ("field", "x"),
    "hdel": ("field",),
    "hmget": ("field",),
    "hincrby": ("field", 1),
    "sadd": ("x",),
    "zadd": (0, "x"),
    "zrem": ("x",),
    "zrevrange": (0, 0),
    "xadd": ("*", "x", "x"),
    "xtrim": ("MAXLEN", 0),
    "xrange": ("-", "+"),
    "xrevrange": ("+", "-"),
}
_WITHOUT_KEY = ("ping", "multi", "exec", "select", "unwatch", "info")


def acl_rule(part: str) -> str:
    """Return the rules of ACL SETUSER for a part, behind its password.

    >>> acl_rule("callback").split()[1:3]
    ['-@all', '+ping']
    """
    return " ".join([f"~{keys.PREFIX}*", "-@all", *(f"+{right}" for right in RIGHTS[part])])


def missing_rights(client: RedisClient) -> dict[str, list[str]]:
    """Return what the connection's user may not do, by part; an empty list means that it may all.

    Every command is put into a transaction that is never executed: a server refuses what a user may
    not do when it is queued. Raises StoreError where the server does not answer.
    """
    asked = dict.fromkeys(right for rights in RIGHTS.values() for right in rights)
    with client._translated():
        connection = pool_of(client._client).get_connection()
        try:
            if _is_refused(connection, "multi"):  # whatever followed would be executed
                return {part: ["multi"] for part in RIGHTS}
            refused = {
                right
                for right in asked
                if right not in ("multi", "exec") and _is_refused(connection, right)
            }
        finally:
            connection.disconnect()  # and with it the transaction
            pool_of(client._client).release(connection)
    return {part: [right for right in RIGHTS[part] if right in refused] for part in RIGHTS}


def _is_refused(connection: Any, right: str) -> bool:
    words = right.split("|")
    key = () if right in _WITHOUT_KEY else (keys.of_run(_PROBE, "probe"),)
    connection.send_command(*words, *key, *_ARGUMENTS.get(right, ()))
    try:
        connection.read_response()
    except exceptions.NoPermissionError:
        return True
    except exceptions.ResponseError:
        return False  # not in a transaction, out of memory, read-only: the right is there
    return False
