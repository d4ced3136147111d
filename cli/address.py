"""The store's address on the command line: the option `--url`, and opening what a word names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..store import ConfigError, Store, UnknownRunError, connect
from ..store.addresses import checked_url

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _checked(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return checked_url(value)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


def url_option(command: _Command) -> _Command:
    """Add `--url` to a command."""
    return click.option(
        "--url",
        metavar="URL",
        callback=_checked,
        help="Redis server to use [default: $OTOSCOPE_URL, else the one that `otoscope up` started].",
    )(command)


def open_run(name: str, url: str | None) -> tuple[Store, str]:
    """Return the store and the run id that a word names: a recording's folder, a run's id or name.

    Raises UnknownRunError where the store holds no such run.
    """
    if Path(name).is_dir():
        store = connect(Path(name))
        for line in store.damage:
            click.echo(f"damaged: {line}", err=True)
        return store, store.runs()[0].id
    if Path(name).is_file():
        raise UnknownRunError(
            f"{name!r} is a file; give the folder of a recording (./.otoscope/<run id>) or a run that "
            "`otoscope runs` lists"
        )
    if "/" in name:
        raise UnknownRunError(
            f"{name!r} is no folder here, and no run id holds a slash; give the folder of a "
            "recording (./.otoscope/<run id>) or a run that `otoscope runs` lists"
        )
    store = connect(url)
    return store, store.resolve(name)
