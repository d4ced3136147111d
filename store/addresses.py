"""The address of a store: a Redis URL that is checked before use and never shown with its password."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from .errors import ConfigError

SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys", "redis+cluster", "rediss+cluster")
HINT = "write redis://user@host:6379/0, rediss://… for TLS, or unix:///path/to/socket"
ENCODE = (
    "a password with / ? # @ or % has to be percent-encoded (Python: urllib.parse.quote(password, "
    "safe='')), or comes from $OTOSCOPE_PASSWORD or a file that $OTOSCOPE_PASSWORD_FILE names"
)
LOGIN_OPTIONS = ("username", "password")
TLS_OPTIONS = (
    *("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password"),
    *("ssl_check_hostname", "ssl_cert_reqs"),
)
"""Options in the query of a URL, as redis-py names them; `db` is a third one. All others (time-outs,
retries, protocol) are Otoscope's: a training must not wait for a server."""
SENTINEL = (
    "name the primary, or the proxy or service that follows it (docs/operations.md, Sentinel)"
)
_SECRETS = ("password", "ssl_password")


def checked_url(url: str) -> str:
    """Return the URL as redis-py takes it, or raise where it cannot be one.

    >>> checked_url("valkey://localhost:6379/0")
    'redis://localhost:6379/0'
    """
    shown = redacted(url)
    scheme, separator, rest = url.strip().partition("://")
    if separator and "sentinel" in scheme:
        raise ConfigError(f"cannot use {shown!r} as the address of a Redis server; {SENTINEL}")
    if not separator or scheme not in SCHEMES:
        raise ConfigError(f"cannot use {shown!r} as the address of a Redis server; {HINT}")
    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
    login, at, place = rest.rpartition("@")
    if at and re.search(r"[/?#@\s\[\]]|%(?![0-9A-Fa-f]{2})", login):
        raise ConfigError(f"the user or the password in {shown!r} cannot be told apart; {ENCODE}")
    url = f"{scheme}://{rest}"
    _check_place(scheme, place, shown)
    _check_options(scheme, urlsplit(url).query, shown)
    return url


def _check_place(scheme: str, place: str, shown: str) -> None:
    """Raise where host, port, path or database cannot be ones."""
    # the parser's own words are not passed on: what it takes for a port may be a password
    try:
        parts = urlsplit(f"{scheme}://{place}")
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ConfigError(
            f"{shown!r} is not a URL: host and port must be host:6379, [::1]:6379 for IPv6; {HINT}"
        ) from None
    if parts.fragment:
        raise ConfigError(f"{shown!r} holds a '#', which no address has; {ENCODE}")
    if scheme == "unix":
        if not parts.path.strip("/"):
            raise ConfigError(f"{shown!r} names no socket; {HINT}")
        if parts.netloc:
            raise ConfigError(
                f"the path of a socket begins with a third slash, got {shown!r}; "
                "write unix:///path/to/socket"
            )
        return
    if not host:
        raise ConfigError(f"{shown!r} names no host; {HINT}")
    database = parts.path.removeprefix("/")
    if database and not (database.isascii() and database.isdigit()):
        raise ConfigError(f"the database in {shown!r} must be a number, got {database!r}; {HINT}")
    if "+cluster" in scheme and database.strip("0"):
        raise ConfigError(f"a cluster has database 0 alone, got {database} in {shown!r}")
    if port == 0:
        raise ConfigError(f"port 0 in {shown!r} cannot be connected to; {HINT}")


def _check_options(scheme: str, query: str, shown: str) -> None:
    """Raise where the query holds an option that is not known, or does not fit."""
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in TLS_OPTIONS and not scheme.startswith("rediss"):
            raise ConfigError(f"{name} in {shown!r} is for TLS alone; write rediss:// for TLS")
        if name == "db":
            sound = value.isascii() and value.isdigit()
        elif name == "ssl_cert_reqs":
            sound = value in ("none", "optional", "required")
        elif name == "ssl_check_hostname":
            sound = value.lower() in ("true", "false", "1", "0", "yes", "no")
        elif name in (*LOGIN_OPTIONS, *TLS_OPTIONS):
            sound = bool(value)
        else:
            known = ("db", *LOGIN_OPTIONS, *TLS_OPTIONS)
            raise ConfigError(f"{name!r} in {shown!r} is no option; known are {', '.join(known)}")
        if not sound:
            said = "***" if name in _SECRETS else value
            raise ConfigError(f"{name} in {shown!r} cannot be {said!r}; docs/operations.md has it")


def redacted(url: str) -> str:
    """Return a URL without its password, for logs, errors and pages.

    Whatever may be one is left out, also where the URL is none: all before the last @, and what
    stands where a port should.

    >>> redacted("redis://me:secret@host:6379/0")
    'redis://me:***@host:6379/0'
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    login, at, place = rest.rpartition("@")
    if at:
        user = login.partition(":")[0]
        plain = re.fullmatch(r"[\w.%-]*", user)
        login = f"{user}:***" if ":" in login and plain else "***"
    place = re.sub(r"^([^/?#\[\]:]*):(?!\d*(?:[/?#]|$))[^/?#]*", r"\1:***", place)
    place = re.sub(r"([?&](?:ssl_)?password=)[^&#]*", r"\1***", place)
    return f"{scheme}{separator}{login}{at}{place}"


def has_password(url: str) -> bool:
    """Tell whether a URL carries a password.

    >>> has_password("redis://me@host"), has_password("redis://:secret@host")
    (False, True)
    """
    login, _, place = url.partition("://")[2].rpartition("@")
    return ":" in login or any(f"{name}=" in place for name in _SECRETS)


def password_of(url: str) -> str | None:
    """Return the password to use with a URL that carries none, from the environment; else None.

    `$OTOSCOPE_PASSWORD`, else what the file holds that `$OTOSCOPE_PASSWORD_FILE` names, as a mounted
    secret does. Raises ConfigError where that file cannot be read.
    """
    parts = urlsplit(url)
    if parts.password or "password" in dict(parse_qsl(parts.query)):
        return None
    told = os.environ.get("OTOSCOPE_PASSWORD")
    path = os.environ.get("OTOSCOPE_PASSWORD_FILE")
    if told or not path:
        return told or None
    try:
        found = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no text"
        raise ConfigError(
            f"$OTOSCOPE_PASSWORD_FILE names {path!r}, which cannot be read ({why}); "
            "mount the secret there, or set $OTOSCOPE_PASSWORD"
        ) from None
    if not found:
        raise ConfigError(f"$OTOSCOPE_PASSWORD_FILE names {path!r}, which is empty")
    return found


def check_files(url: str) -> None:
    """Raise ConfigError where a file that the URL names for TLS cannot be read."""
    for name, path in parse_qsl(urlsplit(url).query):
        if name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            try:
                with Path(path).open("rb"):
                    pass
            except OSError as error:
                why = error.strerror or error
                raise ConfigError(f"{name} names {path!r}, which cannot be read ({why})") from None


def host_of(url: str) -> str | None:
    """Return the host that a URL names, None for a socket."""
    parts = urlsplit(url)
    return None if parts.scheme == "unix" else unquote(parts.hostname or "")
