"""`otoscope prune`: old runs are deleted, those that are live never."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..store import ConfigError, Store, StoreError, UnknownRunError, connect
from ..store.connecting import default_url
from ..store.places import forget_recording, recordings
from ..store.pruning import LIVE, Choice, seconds_of
from ..store.recording import read_card, remove_recording
from ..store.schemas import RunInfo
from .address import url_option
from .printing import ago, amount, console, print_json, print_table
from .progress import progress_bar

AGAIN = "it has begun to train again"


@dataclass(slots=True)
class Doomed:
    """A run to delete: what the store holds of it, or the folder that it was recorded in."""

    info: RunInfo
    folder: Path | None = None
    bytes: int | None = None
    deleted: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.info.id,
            "name": self.info.name,
            "status": self.info.status,
            "last_seen": self.info.last_seen,
            "folder": None if self.folder is None else str(self.folder),
            "bytes": self.bytes,
            "deleted": self.deleted,
        }


def _age(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else seconds_of(value)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


@click.command(
    epilog="\b\nExample:\n  otoscope prune --older-than 30d --dry-run\n"
    "  otoscope prune --name 'sweep-*' --keep-last 10 --yes\n"
    "  otoscope prune mlp-01jd4tq2 --recordings\n"
    "\n\b\nConditions are joined: a run goes where it meets all of them. A run that trains, or was\n"
    "heard of a moment ago, never goes; one with the tag keep only by its id. What is deleted is\n"
    "gone for good.",
)
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option(
    "--older-than", callback=_age, metavar="AGE", help="Last heard of before: 12h, 30d, 4w."
)
@click.option("--name", "names", multiple=True, metavar="GLOB", help="Name or id, repeatable.")
@click.option("--tag", "tags", multiple=True, metavar="GLOB", help="One of its tags, repeatable.")
@click.option("--keep-last", type=click.IntRange(min=0), metavar="N", help="Keep the N last seen.")
@click.option("--recordings", "folders", is_flag=True, help="Also folders of recordings on disk.")
@click.option("--dry-run", is_flag=True, help="Only list what would be deleted, with its size.")
@click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")
@url_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def prune(
    context: click.Context,
    runs: tuple[str, ...],
    older_than: float | None,
    names: tuple[str, ...],
    tags: tuple[str, ...],
    keep_last: int | None,
    folders: bool,
    dry_run: bool,
    yes: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Delete runs: by id, age, name or tag; asks before it does."""
    if Choice(runs, names, tags, older_than, keep_last).is_empty:
        raise click.UsageError(
            "say which runs: RUN, --older-than 30d, --name 'sweep-*', --tag old or --keep-last 20; "
            "add --dry-run to see what would go"
        )
    for word in runs:
        if any(letter in word for letter in "*?["):
            raise click.BadParameter(
                f"a run has no {word!r}; use --name {word!r}", param_hint="RUN"
            )
    store = _store(url, folders)
    choice = Choice(_ids(store, runs, folders), names, tags, older_than, keep_last)
    doomed = find(store, choice, folders)
    if dry_run or not doomed:
        _list(doomed, as_json, "would be deleted")
        return
    if not yes:
        _ask(doomed, as_json)
    failed = [item for item in _delete(store, doomed) if not item.deleted]
    _list([item for item in doomed if item.deleted], as_json, "deleted")
    context.exit(1 if failed else 0)


def _store(url: str | None, folders: bool) -> Store | None:
    """Return the store; with --recordings none is needed."""
    if folders and url is None and default_url() is None:
        return None
    return connect(url)


def _ids(store: Store | None, runs: tuple[str, ...], folders: bool) -> list[str]:
    """Return the ids that the words mean; raises for a run that is unknown or still trains."""
    found: list[str] = []
    recorded = {row.info.id for row in _recorded()} if folders else set()
    for word in runs:
        if word in recorded:
            found.append(word)
            continue
        if store is None:
            raise UnknownRunError(
                f"no recording of a run {word!r} is known on this machine, and no server is up"
            )
        run = store.resolve(word)
        status = store.run(run).status
        if status in LIVE:
            raise StoreError(
                f"{run} is {status}: it trains, or did a moment ago; end the training first"
            )
        found.append(run)
    return found


def find(store: Store | None, choice: Choice, folders: bool) -> list[Doomed]:
    """Return what meets the conditions, with sizes: runs of the store, then recordings."""
    now = time.time()
    rows = [] if store is None else store.runs()
    doomed = [Doomed(row) for row in choice.of(rows, now)]
    for item in doomed:
        item.bytes = None if store is None else store.home.size(item.info.id)
    if folders:
        there = _recorded()
        chosen = {row.id for row in choice.of([item.info for item in there], now)}
        doomed += [item for item in there if item.info.id in chosen]
    return doomed


def _recorded() -> list[Doomed]:
    """Return the recordings that are known on this machine and can be read."""
    found: list[Doomed] = []
    for folder in recordings():
        try:
            info, size = read_card(folder)
        except (StoreError, OSError):
            continue  # nothing tells of which run, or when: it is not ours to delete
        found.append(Doomed(info, folder, size))
    return found


def _ask(doomed: list[Doomed], as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise click.UsageError(
            f"{_counted(doomed)} would be deleted, and nobody can be asked here; look at them with "
            "--dry-run, then add --yes"
        )
    _list(doomed, False, "would be deleted")
    click.confirm("Delete them for good?", abort=True)


def _delete(store: Store | None, doomed: list[Doomed]) -> list[Doomed]:
    with progress_bar("deleting") as progress:
        for done, item in enumerate(doomed, 1):
            try:
                if item.folder is not None:
                    if read_card(item.folder)[0].status in LIVE:
                        raise StoreError(AGAIN)
                    remove_recording(item.folder)
                    forget_recording(item.folder)
                elif store is not None:
                    if store.run(item.info.id).status in LIVE:
                        raise StoreError(AGAIN)
                    store.home.delete(item.info.id)
                item.deleted = True
            except UnknownRunError:
                item.deleted = True  # somebody else was faster
            except (StoreError, OSError) as error:
                click.echo(f"Error: {item.info.id} was not deleted: {error}", err=True)
            progress(done, len(doomed))
    return doomed


def _list(doomed: list[Doomed], as_json: bool, what: str) -> None:
    if as_json:
        print_json([item.to_json() for item in doomed])
        return
    if not doomed:
        console().print("No run meets these conditions; `otoscope runs` lists those there are.")
        return
    rows = [
        (
            item.info.id,
            item.info.status,
            ago(item.info.last_seen),
            amount(item.bytes),
            "" if item.folder is None else str(item.folder),
        )
        for item in doomed
    ]
    print_table(("run", "status", "last seen", "size", "folder"), rows)
    total = sum(item.bytes or 0 for item in doomed)
    console().print(f"{_counted(doomed)}, {amount(total)}: {what}")


def _counted(doomed: list[Doomed]) -> str:
    return "1 run" if len(doomed) == 1 else f"{len(doomed)} runs"
