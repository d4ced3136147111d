"""The address of a store: a Redis URL that is checked before use and never shown with its password."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from .errors import ConfigError

SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")


def checked_url(url: str) -> str:
    """Return the URL as redis-py takes it, or raise where it cannot be one.

    >>> checked_url("valkey://localhost:6379/0")
    'redis://localhost:6379/0'
    """
    hint = "write redis://user:password@host:6379/0, rediss://… for TLS, or unix:///path/to/socket"
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ConfigError(f"cannot use {redacted(url)!r} as the address of a Redis server; {hint}")
    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
    url = f"{scheme}://{rest}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{redacted(url)!r} is not a URL ({error}); {hint}") from None
    if scheme == "unix" and not parts.path.strip("/"):
        raise ConfigError(f"{redacted(url)!r} names no socket; {hint}")
    if scheme != "unix" and not parts.hostname:
        raise ConfigError(f"{redacted(url)!r} names no host; {hint}")
    database = parts.path.strip("/")
    if scheme != "unix" and database and not database.isdigit():
        raise ConfigError(
            f"the database in {redacted(url)!r} must be a number, got {database!r}; {hint}"
        )
    if port == 0:
        raise ConfigError(f"port 0 in {redacted(url)!r} cannot be connected to; {hint}")
    return url


def redacted(url: str) -> str:
    """Return a URL without its password, for logs, errors and pages.

    >>> redacted("redis://me:secret@host:6379/0")
    'redis://me:***@host:6379/0'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("://")[0] + "://***"
    user, at, host = parts.netloc.rpartition("@")
    if at:
        name = user.partition(":")[0]
        host = f"{name}:***@{host}" if ":" in user else f"***@{host}"
    query = _without_password(parts.query)
    if not at and query == parts.query:
        return url
    return urlunsplit(parts._replace(netloc=host, query=query))


def _without_password(query: str) -> str:
    parts = query.split("&") if query else []
    return "&".join("password=***" if part.startswith("password=") else part for part in parts)
