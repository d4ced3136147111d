"""`otoscope report`: a run as one HTML file that needs no server and no network."""

from __future__ import annotations

from pathlib import Path

import click

from .address import open_run, url_option
from .own_rules import rules_option
from .printing import print_json
from .progress import progress_bar


@click.command(
    epilog="\b\nExample:\n  otoscope report .otoscope/mlp-01jd4tq2 -o run.html",
)
@click.argument("run", metavar="RUN|DIR|FILE")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write [default: <run id>.html].",
)
@url_option
@rules_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report(run: str, output: Path | None, url: str | None, as_json: bool) -> None:
    """Write a run's verdict, findings and charts as one self-contained HTML page."""
    from ..diagnostics import judge, project_numbers, render_report

    store, found = open_run(run, url)
    path = output or Path(f"{found}.html")
    if not path.parent.is_dir():
        raise click.BadParameter(f"folder {path.parent} does not exist", param_hint="--output")
    with progress_bar("judging") as progress:
        answer = judge(store, found, progress=progress, project=project_numbers())
    path.write_text(render_report(store, found, answer), encoding="utf-8")
    if as_json:
        print_json({"run": found, "report": str(path), "verdict": answer["verdict"]})
    else:
        click.echo(f"{answer['verdict']}\nwritten to {path}")
