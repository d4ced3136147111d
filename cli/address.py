"""The store's address on the command line: the option `--url`, and opening what a word names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ..store import ConfigError, Store, UnknownRunError, connect
from ..store.addresses import checked_url
from ..store.foreign import read_foreign
from ..store.log_files import logs_in
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
    # a meta.json of whose ever: then it is said whose
    found = is_recording(path) or (path / "meta.json").is_file()
    return not is_name or found or bool(_recordings(path)) or bool(logs_in(path))


def _is_log(name: str) -> bool:
    """Tell whether a word means a file; one without an ending may be named as a run is."""
    path = Path(name)
    return path.is_file() and ("/" in name or bool(path.suffix))


def is_on_disk(name: str) -> bool:
    """Tell whether a word means what no daemon judges: the folder of a recording, or a log."""
    return _is_log(name) or is_folder(name)


def _recordings(folder: Path) -> list[str]:
    try:
        return sorted(str(path) for path in folder.iterdir() if is_recording(path))
    except OSError:
        return []


def _logs_below(folder: Path) -> list[str]:
    try:
        return sorted(
            str(log) for inner in folder.iterdir() if inner.is_dir() for log in logs_in(inner)
        )
    except OSError:
        return []


def open_run(
    name: str, url: str | None, columns: Mapping[str, str] | None = None
) -> tuple[Store, str]:
    """Return the store and the run id that a word names: a recording's folder, a log, a run's id or name.

    `columns`: what is in which column of a log (`read_foreign`).

    Raises UnknownRunError where the store holds no such run, or a folder holds several, and
    UnreadableLogError where a file is no log.
    """
    path = Path(name)
    if _is_log(name):
        return _open_log(path, columns)
    if is_folder(name):
        is_of_others = not is_recording(path) and not _recordings(path) and logs_in(path)
        return _open_log(path, columns) if is_of_others else _open_recording(path)
    if "/" in name:
        raise UnknownRunError(
            f"{name!r} is no folder or file here, and no run id holds a slash; give the folder of a "
            "recording (./.otoscope/<run id>), a log, or a run that `otoscope runs` lists"
        )
    store = connect(url)
    return store, store.resolve(name)


def _open_log(path: Path, columns: Mapping[str, str] | None) -> tuple[Store, str]:
    log = read_foreign(path, columns)
    for line in log.damage:
        click.echo(f"log: {line}", err=True)
    return Store(log.home, damage=log.damage), log.run


def _open_recording(folder: Path) -> tuple[Store, str]:
    if not is_recording(folder):
        _refuse_for_what_is_below(folder)
    store = connect(folder)
    for line in store.damage:
        click.echo(f"damaged: {line}", err=True)
    return store, store.runs()[0].id


def _refuse_for_what_is_below(folder: Path) -> None:
    """Raise UnknownRunError where the recordings or logs below a folder may be meant."""
    runs = _recordings(folder) or _recordings(folder / ".otoscope")
    if runs:
        raise UnknownRunError(
            f"{str(folder)!r} is no recorded run, it holds {len(runs)} of them; name one: {_listed(runs)}"
        )
    logs = _logs_below(folder)
    if logs:  # by their endings: any table is called so
        raise UnknownRunError(f"{str(folder)!r} holds no recording; logs below it: {_listed(logs)}")


def _listed(paths: list[str]) -> str:
    return ", ".join(paths[-SHOWN:]) + (", …" if len(paths) > SHOWN else "")
