"""The greeting: what a server is, asked once a connection and never on the way of a batch."""

from __future__ import annotations

from typing import Any

from redis import exceptions

from .errors import ServerTooOldError
from .server_binary import OLDEST, numbers_of


def checked_server(connection: Any, where: str) -> dict[str, str]:
    """Return what the server says of itself: server, version, mode, role; empty where it may not.

    One round trip over a new connection, which has logged in.

    Raises ServerTooOldError where it is older than 6.2, and what the client raises.
    """
    try:
        about = _pairs(_asked(connection, "HELLO"))
    except exceptions.NoPermissionError:
        return {}  # a user without this right can do all the rest
    except exceptions.ResponseError:
        about = {}  # older than 6, or the command was renamed away
    if "version" not in about:
        about = _from_info(connection)
    found = numbers_of(about.get("version", ""))
    if found and found < OLDEST:
        raise ServerTooOldError(
            f"the server at {where} is Redis {about['version']}, and Otoscope needs 6.2 or newer; "
            "update it, or start one of your own with `otoscope up`"
        )
    return about


def _asked(connection: Any, *command: str) -> Any:
    connection.send_command(*command)
    return connection.read_response()


def _pairs(answer: Any) -> dict[str, str]:
    """Return a map that RESP2 gives as a flat list; values that are no text are left out."""
    rows = (
        list(answer.items())
        if isinstance(answer, dict)
        else list(zip(answer[::2], answer[1::2], strict=True))
    )
    return {_text(key): _text(value) for key, value in rows if isinstance(value, bytes | str)}


def _from_info(connection: Any) -> dict[str, str]:
    try:
        text = _text(_asked(connection, "INFO", "server"))
    except exceptions.ResponseError:  # neither may be asked: the first batch will tell
        return {}
    parts = [line.partition(":") for line in text.splitlines()]
    rows = {name: value.strip() for name, colon, value in parts if colon}
    known = {"version": "redis_version", "mode": "redis_mode"}
    return {name: rows[row] for name, row in known.items() if row in rows}


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
