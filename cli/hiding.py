"""Hiding a password: one that was given with `--url` leaves the list of processes at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from ..store import ConfigError
from ..store.addresses import checked_url, has_password

WARNING = (
    "Warning: a password in --url can be read by every user of this machine (list of processes, "
    "history of the shell); put it into $OTOSCOPE_PASSWORD, or the whole address into $OTOSCOPE_URL"
)


def without_password(arguments: Sequence[str]) -> tuple[list[str], str] | None:
    """Return the arguments without an address that carries a password, and it; None where none does.

    >>> without_password(["runs", "--url", "redis://:pw@host/0", "--json"])
    (['runs', '--json'], 'redis://:pw@host/0')
    >>> without_password(["runs", "--url", "redis://host/0"]) is None
    True
    """
    kept: list[str] = []
    found: str | None = None
    words = iter(arguments)
    for word in words:
        if word == "--":
            kept += [word, *words]
        elif word == "--url" or word.startswith("--url="):
            url = next(words, "") if word == "--url" else word.removeprefix("--url=")
            if not _is_sound(url):
                return None  # click says what is wrong with it
            found = url
        else:
            kept.append(word)
    return None if found is None or not has_password(found) else (kept, found)


def _is_sound(url: str) -> bool:
    try:
        checked_url(url)
    except ConfigError:
        return False
    return True


def hide_password() -> None:
    """Begin this process anew without the password among its arguments, where there is one.

    The environment, where it goes, can be read by the same user alone. Windows cannot replace a
    process; there the warning has to do.
    """
    own = len(sys.orig_argv) - len(sys.argv) + 1
    moved = without_password(sys.argv[1:])
    if moved is None:
        return
    click.echo(WARNING, err=True)
    if sys.platform != "win32":
        command = [sys.executable, *sys.orig_argv[1:own], *moved[0]]
        os.execve(sys.executable, command, {**os.environ, "OTOSCOPE_URL": moved[1]})
