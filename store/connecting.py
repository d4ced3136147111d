"""Connecting: from a URL, a folder or nothing to a store that can be read."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from . import places
from .addresses import checked_url
from .errors import DamagedRecordingError, StoreError, StoreUnavailableError
from .foreign import read_foreign
from .home import Sink
from .log_files import is_log
from .reading import Store
from .recording import RecordingSink, is_of_others, is_recording, read_recording
from .redis_home import RedisHome

_log = logging.getLogger("otoscope")


def default_url() -> str | None:
    """Return `$OTOSCOPE_URL`, else the address of this machine's embedded server, else None."""
    asked = os.environ.get("OTOSCOPE_URL")
    if asked:
        return checked_url(asked)
    address = places.read_address()
    return None if address is None else address.url


def connect(where: str | os.PathLike[str] | None = None, *, timeout: float = 5.0) -> Store:
    """Return the store at a URL, in a recording's folder, or of a log that another logger wrote.

    Args:
        where: a URL (`redis://`, `rediss://`, `unix://`, `redis+cluster://`), the folder of a
            recorded run, a CSV or TensorBoard event file (or a folder that holds one), or None: then `$OTOSCOPE_URL`, else the server that `otoscope up` started
            on this machine. A password that the URL lacks comes from `$OTOSCOPE_PASSWORD`, or the
            file that `$OTOSCOPE_PASSWORD_FILE` names.
        timeout: bound of every call, in seconds.

    Raises:
        StoreUnavailableError: nothing answers, or None was given and there is nothing to find. Told
            apart by LoginRefusedError, TlsError, ServerTooOldError and ClusterError.
        DamagedRecordingError: the folder holds no recording.
        UnreadableLogError: the file is no log that can be read, or tells of no loss.
        ConfigError: the URL cannot be one.
    """
    if where is not None and "://" not in str(where):
        return _open_folder(Path(where))
    url = default_url() if where is None else checked_url(str(where))
    if url is None:
        raise StoreUnavailableError(
            "no store to read: $OTOSCOPE_URL is not set and `otoscope up` does not run on this "
            "machine; start it, give --url, or name the folder of a recorded run"
        )
    home = RedisHome(url, timeout=timeout)
    home.ping()
    _warn_of_eviction(home)
    return Store(home)


def _warn_of_eviction(home: RedisHome) -> None:
    """Say where the server throws live runs away when it is full, which no error would tell."""
    with suppress(StoreError):  # a user who may not ask can do all the rest
        memory = home.memory()
        if memory is not None and memory.evicts_live_runs:
            _log.warning(
                "the server at %s has maxmemory-policy %s: once it is full it throws live runs "
                "away without an error; set maxmemory-policy noeviction",
                home.where,
                memory.policy,
            )


def _open_folder(directory: Path) -> Store:
    if is_log(directory) and not is_recording(directory):
        foreign = read_foreign(directory)
        return Store(foreign.home, damage=foreign.damage)
    if is_of_others(directory) and not is_recording(directory):
        raise DamagedRecordingError(
            f"{directory} holds no recording: its meta.json is not one that Otoscope wrote (it names no "
            "run and attempt), and there is no *.spool; give the folder that the callback named, "
            "./.otoscope/<run id>"
        )
    if not directory.is_dir() or not is_recording(directory):
        raise StoreUnavailableError(
            f"{str(directory)!r} is neither a URL nor the folder of a recorded run; "
            "write redis://host:6379/0, or ./.otoscope/<run id>"
        )
    recording = read_recording(directory, mapped=True)
    return Store(recording.home, damage=recording.damage)


def open_sink(url: str | None, run: str, directory: Path, *, timeout: float = 1.0) -> Sink:
    """Return where a training process writes to: the server if there is one, else a folder.

    Nothing is connected yet. `url` None means `default_url()`; where that is None too, the run
    is recorded into `directory`, which is registered so that `otoscope up` finds it.
    """
    found = default_url() if url is None else checked_url(url)
    if found is not None:
        return RedisHome(found, timeout=timeout, faithful=True)
    sink = RecordingSink(directory, run)
    places.register_recording(directory)
    return sink
