"""`otoscope runs` and `otoscope show`: what the store holds, and what stands in one run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import click
from rich.text import Text

from ..store import RunInfo, connect
from ..store.places import read_address
from .address import is_on_disk, open_run, url_option
from .printing import ago, console, number, print_json, print_run, print_table, severity_text


@click.command(
    epilog="\b\nExample:\n  otoscope runs\n  otoscope runs --json | jq -r '.[].id'",
)
@url_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def runs(url: str | None, as_json: bool) -> None:
    """List the recorded runs, last seen first."""
    store = connect(url)
    rows = store.runs()
    if as_json:
        print_json([row.to_json() for row in rows])
    elif not rows:
        console().print("No runs yet. Add Otoscope() to the callbacks of your Trainer and train.")
    else:
        headings = ("run", "status", "step", "loss", "findings", "last seen")
        print_table(headings, [_row(row) for row in rows])


def _row(row: RunInfo) -> tuple[str | Text, ...]:
    of = f" / {row.max_steps}" if row.max_steps else ""
    findings = Text("  ").join(
        Text(f"{count} ").append_text(severity_text(severity))
        for severity, count in row.open.items()
        if count
    )
    status = Text(row.status, style="bold" if row.status == "live" else "")
    if row.lost_ranks:
        status.append(f", {ranks_lost(row.lost_ranks)}", style="yellow")
    loss = number(float(row.loss_last))
    return (row.id, status, f"{row.step}{of}", loss, findings or Text("–"), ago(row.last_seen))


def _page(url: str | None, run: str, findings: Sequence[dict[str, Any]]) -> str:
    """Return where the page of this machine shows a run, or its first finding."""
    address = None if url or os.environ.get("OTOSCOPE_URL") else read_address()
    if address is None or not address.dashboard:
        return ""
    place = f"{address.dashboard.rstrip('/')}/run/{quote(run)}"
    return f"{place}/findings?finding={quote(findings[0]['id'])}" if findings else place


def ranks_lost(ranks: Sequence[int]) -> str:
    """Return in words which ranks are lost.

    >>> ranks_lost([3]), ranks_lost(range(40))
    ('rank 3 lost', '40 ranks lost')
    """
    if len(ranks) > 8:
        return f"{len(ranks)} ranks lost"
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {', '.join(map(str, ranks))} lost"


@click.command(
    epilog="\b\nExample:\n  otoscope show digits            # an id, its beginning, or the run's name\n"
    "  otoscope show digits --json | jq .verdict",
)
@click.argument("run")
@url_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(run: str, url: str | None, as_json: bool) -> None:
    """Show what the daemon found in RUN: verdict, findings, what was not judged."""
    from ..diagnostics import summary

    if is_on_disk(run):
        raise click.BadParameter(
            f"{run} lies on disk, where no daemon judges it; use `otoscope diagnose {run}`",
            param_hint="RUN",
        )
    store, found = open_run(run, url)
    answer = {**summary(store, found), "lost_ranks": store.run(found).lost_ranks}
    if as_json:
        print_json(answer)
    else:
        print_run(answer)
        where = _page(url, found, answer["findings"])
        if where:
            console().print(Text(f"More: {where}"))
        if answer["lost_ranks"]:
            console().print(Text(f"Lost: {ranks_lost(answer['lost_ranks'])}", style="yellow"))
