"""`otoscope replay`: runs that were recorded on disk go into a store, each sample once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..store import ConfigError, StoreError, StoreUnavailableError, connect
from ..store.claims import is_claimed
from ..store.connecting import default_url
from ..store.home import Home
from ..store.places import recordings
from ..store.recording import is_recording
from ..store.replaying import Replayed, replay
from .address import url_option
from .printing import print_json
from .progress import progress_bar


@click.command(
    "replay",
    epilog="\b\nExample:\n  otoscope replay .otoscope/mlp-01jd4tq2\n"
    "  otoscope replay .otoscope --url redis://gpu-box:6379/0    # every run in the folder\n"
    "\n\b\nA second replay changes nothing. Exit code 1 says that a folder could not be taken in;\n"
    "a damaged file is taken in as far as it is sound, and said on stderr.",
)
@click.argument("directories", metavar="DIR...", nargs=-1, type=Path)
@url_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def replay_command(
    context: click.Context, directories: tuple[Path, ...], url: str | None, as_json: bool
) -> None:
    """Take recorded runs into a store, once: what it holds already is left alone."""
    if not directories:
        raise click.UsageError(f"name the folder of a recorded run{_known()}")
    folders = [folder for directory in directories for folder in recordings_in(directory)]
    if url is None and default_url() is None:
        raise StoreUnavailableError(
            "nowhere to replay to: start `otoscope up` (it takes in by itself what was recorded on "
            "this machine), or give --url; `otoscope diagnose DIR` judges a recording where it lies"
        )
    store = connect(url)
    try:
        rows = [_take_in(folder, store.home, quiet=as_json) for folder in folders]
    finally:
        store.close()
    if as_json:
        print_json(rows)
    context.exit(1 if any(row["error"] for row in rows) else 0)


def _known() -> str:
    """Return the recordings that are known on this machine, for a person who named none."""
    found = [str(path) for path in recordings()][-5:]
    return "; known here: " + ", ".join(found) if found else ", as ./.otoscope/<run id>"


def recordings_in(directory: Path) -> list[Path]:
    """Return the folder itself where it is a recording, else the recordings right inside it.

    Raises click.BadParameter where there is none.
    """
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise click.BadParameter(
            f"{directory} {what}; give the folder of a recorded run, ./.otoscope/<run id>, "
            "or one that holds such folders",
            param_hint="DIR",
        )
    try:
        if is_recording(directory):
            return [directory]
        found = sorted(path for path in directory.iterdir() if is_recording(path))
    except PermissionError as error:
        raise click.BadParameter(
            f"{directory} cannot be read ({error.strerror}); run as the user who recorded it",
            param_hint="DIR",
        ) from error
    if not found:
        raise click.BadParameter(
            f"{directory} holds no recorded run (no *.spool, no meta.json of Otoscope); give the folder "
            "that the callback named, ./.otoscope/<run id>, or ./.otoscope for all in it",
            param_hint="DIR",
        )
    return found


def _take_in(folder: Path, home: Home, *, quiet: bool) -> dict[str, Any]:
    """Replay one folder and say what came of it; a server that goes away ends the command."""
    try:
        if is_claimed(folder):
            raise StoreError(
                "the training that recorded this lives, and sends it by itself once its server "
                "answers; end it first"
            )
        with progress_bar(folder.resolve().name, in_bytes=True) as progress:
            done = replay(folder, home, progress)
    except StoreUnavailableError:
        raise
    except (StoreError, ConfigError, OSError) as error:
        click.echo(f"Error: {folder}: {error}", err=True)
        return {"directory": str(folder), **asdict(Replayed("")), "run": None, "error": str(error)}
    for line in done.damage:
        click.echo(f"damaged: {folder / line}", err=True)
    if not quiet:
        click.echo(sentence(done))
    return {"directory": str(folder), **asdict(done), "error": None}


def sentence(done: Replayed) -> str:
    """Return what a replay did in one line.

    >>> sentence(Replayed("mlp-01", samples=0, found=300))
    'mlp-01: nothing new, all 300 samples were there'
    """
    if not done.samples and not done.events:
        text = f"{done.run}: nothing new, all {done.found} samples were there"
    else:
        there = done.found - done.samples
        rest = f" ({there} were there)" if there else ""
        text = f"{done.run}: {done.samples} new samples{rest}, {done.events} new events"
    more = "; it seems to train still, so replay it again later" if done.growing else ""
    return text + more
