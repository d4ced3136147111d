"""`otoscope export`: what a run recorded, as CSV or Parquet for other tools."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import click

from ..store import Store
from ..store.exporting import Export, families, select_export
from .address import open_run, url_option
from .printing import print_json
from .progress import progress_bar
from .signals import ending_signals
from .table_files import ENDINGS, Layout, check_format, table_file


@dataclass(frozen=True, slots=True)
class Target:
    """Where an export goes: one file, or a folder with a file a family."""

    path: Path
    kind: str
    folder: bool

    def file(self, family: str) -> Path:
        if not self.folder:
            return self.path
        return self.path / f"{family.replace('/', '_')}.{self.kind}"


@dataclass(slots=True)
class Written:
    """One file that was written."""

    file: str
    run: str
    family: str
    rows: int = 0
    columns: list[str] = field(default_factory=list)
    first_step: int | None = None
    last_step: int | None = None
    bytes: int | None = None


@click.command(
    epilog="\b\nExample:\n  otoscope export mlp-01jd4tq2 train.csv\n"
    "  otoscope export mlp-01jd4tq2 grads.parquet --family gradients --columns 'update_ratio/*'\n"
    "  otoscope export .otoscope/mlp-01jd4tq2 out/ --format parquet    # every family, a file each\n"
    "  otoscope export mlp-01jd4tq2 - --columns loss --from 1000 --points 500 | head\n"
    "\n\b\nEvery file begins with step, time (UTC) and attempt. NaN was not measured; inf is a value\n"
    "that was. With --points each column has its lowest and highest value beside it (:low, :high).",
)
@click.argument("run", metavar="RUN|DIR")
@click.argument("file", metavar="FILE|FOLDER|-", type=Path)
@click.option(
    "--family",
    "asked",
    multiple=True,
    metavar="NAME",
    help="Family to export, repeatable [default: train; every family into a folder].",
)
@click.option(
    "--columns",
    multiple=True,
    metavar="NAMES",
    help="Columns by name or glob, with commas or repeated [default: all].",
)
@click.option("--from", "start", type=click.IntRange(min=0), help="First step.")
@click.option("--to", "stop", type=click.IntRange(min=0), help="Last step.")
@click.option("--rank", type=click.IntRange(min=0), help="One rank alone [default: combined].")
@click.option(
    "--attempt", type=click.IntRange(min=1), help="One attempt alone [default: overlaid]."
)
@click.option(
    "--points",
    type=click.IntRange(min=1),
    help="Reduce to at least so many rows [default: every sample as it is stored].",
)
@click.option("--format", "kind", type=click.Choice(["csv", "parquet"]), help="By FILE's ending.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@url_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export(
    run: str,
    file: Path,
    asked: tuple[str, ...],
    columns: tuple[str, ...],
    start: int | None,
    stop: int | None,
    rank: int | None,
    attempt: int | None,
    points: int | None,
    kind: str | None,
    force: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Write what a run recorded to FILE: CSV or Parquet by its ending, `-` for CSV on stdout."""
    if start is not None and stop is not None and start > stop:
        raise click.BadParameter(f"{start} lies behind --to {stop}", param_hint="--from")
    target = target_of(file, kind, len(asked))
    if as_json and str(file) == "-":
        raise click.UsageError("--json and the CSV would both go to stdout; name a file")
    check_format(target.kind)
    store, found = open_run(run, url)
    names = list(dict.fromkeys(asked)) or (families(store, found) if target.folder else ["train"])
    for family in names:
        refuse_existing(target, family, force)
    wanted = [name for text in columns for name in text.split(",") if name]
    several = target.folder and not asked
    exports = [
        select_export(
            store, found, name, columns=wanted, start=start, stop=stop, rank=rank, attempt=attempt
        )
        for name in names
        if not (several and _lacks(store, found, name, wanted))
    ]
    with ending_signals() as stopped:
        rows = [_write(chosen, target, points, stopped) for chosen in exports]
    _report(rows, target, as_json)


def target_of(path: Path, kind: str | None, asked: int) -> Target:
    """Return where an export goes and in which format, from FILE, --format and the families.

    Raises click.BadParameter where they do not fit together.
    """
    if str(path) == "-":
        if kind == "parquet":
            raise click.BadParameter("stdout takes CSV alone; name a file", param_hint="--format")
        if asked > 1:
            raise click.BadParameter("stdout takes one family", param_hint="--family")
        return Target(path, "csv", False)
    by_ending = ENDINGS.get(path.suffix.lower())
    new_folder = by_ending is None and not path.exists() and (asked > 1 or path.suffix == "")
    is_folder = path.is_dir() or new_folder
    if is_folder:
        return Target(path, kind or "csv", True)
    if asked > 1:
        raise click.BadParameter(
            f"{asked} families do not fit into one file; name a folder: {path.stem}/",
            param_hint="FILE",
        )
    if by_ending is None and kind is None:
        raise click.BadParameter(
            f"{path} ends in neither .csv nor .parquet; give it such an ending, or --format, or name "
            "a new folder for all families",
            param_hint="FILE",
        )
    return Target(path, kind or by_ending or "csv", False)


def refuse_existing(target: Target, family: str, force: bool) -> None:
    """Raise where a file would be replaced, or has no folder to lie in."""
    path = target.file(family)
    if not target.folder and not path.parent.is_dir():
        raise click.BadParameter(f"folder {path.parent} does not exist", param_hint="FILE")
    if path.is_file() and not force:
        raise click.BadParameter(
            f"{path} exists; choose another name, or --force to replace it", param_hint="FILE"
        )


def _lacks(store: Store, run: str, family: str, wanted: list[str]) -> bool:
    """Tell whether a family has none of the asked columns: of all families, some need not."""
    from ..store import EmptySelectionError

    try:
        select_export(store, run, family, columns=wanted)
    except EmptySelectionError:
        return True
    return False


def _write(chosen: Export, target: Target, points: int | None, stopped: Event) -> Written:
    path = target.file(chosen.family)
    layout = Layout(chosen.run, chosen.family, chosen.columns, chosen.units, points is not None)
    done = Written(str(path), chosen.run, chosen.family, columns=layout.names)
    if target.folder:
        target.path.mkdir(parents=True, exist_ok=True)
    with (
        progress_bar(chosen.family) as progress,
        table_file(path, target.kind, layout) as file,
    ):
        tables = chosen.tables(progress) if points is None else [chosen.reduced(points)]
        for table in tables:
            if stopped.is_set():
                raise click.Abort
            file.write(table)
            done.rows += len(table)
            if done.first_step is None:
                done.first_step = int(table.series.steps[0])
            done.last_step = int(table.series.steps[-1])
    if path.is_file():
        done.bytes = path.stat().st_size
    return done


def _report(rows: list[Written], target: Target, as_json: bool) -> None:
    answers: list[dict[str, Any]] = [asdict(row) for row in rows]
    if as_json:
        print_json(answers if target.folder else answers[0])
    elif str(target.path) != "-":
        for row in rows:
            steps = f"steps {row.first_step} to {row.last_step}"
            click.echo(f"{row.file}: {row.rows} rows, {len(row.columns)} columns, {steps}")
