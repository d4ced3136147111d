"""The store's address on the command line: the option `--url`, and opening what a word names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..store import ConfigError, Store, UnknownRunError, connect
from ..store.addresses import checked_url
from ..store.recording import is_recording

SHOWN = 5
"""Recordings of a folder that are named, the last ones."""

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


def is_folder(name: str) -> bool:
    """Tell whether a word means a folder; one that holds no recording may be named as a run is."""
    path = Path(name)
    if not path.is_dir():
        return False
    is_name = name not in ("", ".", "..") and "/" not in name
    return not is_name or is_recording(path) or bool(_recordings(path))


def _recordings(folder: Path) -> list[str]:
    try:
        return sorted(str(path) for path in folder.iterdir() if is_recording(path))
    except OSError:
        return []


def open_run(name: str, url: str | None) -> tuple[Store, str]:
    """Return the store and the run id that a word names: a recording's folder, a run's id or name.

    Raises UnknownRunError where the store holds no such run, or a folder holds several.
    """
    if is_folder(name):
        return _open_recording(Path(name))
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


def _open_recording(folder: Path) -> tuple[Store, str]:
    inside = [] if is_recording(folder) else _recordings(folder)
    if inside:
        listed = ", ".join(inside[-SHOWN:]) + (", …" if len(inside) > SHOWN else "")
        raise UnknownRunError(
            f"{str(folder)!r} is no recorded run, it holds {len(inside)} of them; name one: {listed}"
        )
    store = connect(folder)
    for line in store.damage:
        click.echo(f"damaged: {line}", err=True)
    return store, store.runs()[0].id
