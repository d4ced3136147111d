"""`otoscope compare`: what tells runs apart."""

from __future__ import annotations

from typing import Any

import click
from rich import box
from rich.table import Table
from rich.text import Text

from .address import is_on_disk, open_run, url_option
from .own_rules import rules_option
from .printing import console, number, print_json, severity_text
from .progress import progress_bar

MOST = 10
WIDEST = 60
"""Letters of a setting's value; `--json` has it whole."""


@click.command(
    epilog="\b\nExample:\n  otoscope compare baseline higher-lr\n"
    "  otoscope compare .otoscope/a-01jd4tq2 .otoscope/b-01jd4tq2 --json | jq .settings",
)
@click.argument("runs", metavar="A B...", nargs=-1, required=True)
@url_option
@rules_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(runs: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Say what tells runs apart: settings, loss, findings, obstacles.

    A run of the store is compared as its daemon judged it; the folder of a recording, or a
    log of another logger, is judged here.
    """
    from ..diagnostics import judge, project_numbers, summary
    from ..diagnostics.comparing import Side
    from ..diagnostics.comparing import compare as compared

    if not 2 <= len(runs) <= MOST:
        raise click.UsageError(f"name 2 to {MOST} runs to compare, got {len(runs)}")
    sides = []
    for name in runs:
        store, run = open_run(name, url)
        if is_on_disk(name):
            with progress_bar(f"judging {run}") as progress:
                judged = judge(store, run, progress=progress, project=project_numbers())
        else:
            judged = summary(store, run)
        sides.append(Side(store, run, judged))
    answer = compared(sides)
    if as_json:
        print_json(answer)
    else:
        print_comparison(answer)


def print_comparison(answer: dict[str, Any]) -> None:
    """Print a comparison: a column a run, first the results, then what differs."""
    out, rows = console(), answer["runs"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for row in rows:
        table.add_column(row["run"], overflow="fold")
    table.add_row("state", *(f"{row['state'].replace('_', ' ')}, {row['status']}" for row in rows))
    table.add_row("step", *(f"{row['step']:,}" for row in rows))
    for which in ("last", "best"):
        table.add_row(f"{which} loss", *(_best(rows, "loss", which)))
    if any(row["validation"] for row in rows):
        for which in ("last", "best"):
            table.add_row(f"{which} validation loss", *(_best(rows, "validation", which)))
    for name, items in answer["obstacles"].items():
        said = [item.get("sentence") if item.get("measured") else None for item in items]
        if any(said):
            table.add_row(name.replace("_", "-"), *(text or "not measured" for text in said))
    table.add_section()
    for name, values in answer["settings"].items():
        table.add_row(name, *(_short(number(value)) for value in values))
    if not answer["settings"]:
        table.add_row("settings", *("the same" for _ in rows))
    table.add_section()
    table.add_row("findings", *(_findings(row) for row in rows))
    out.print(table)
    for row in rows:
        out.print(Text.assemble((row["run"], "bold"), f": {row['verdict']}"))


def _best(rows: list[dict[str, Any]], key: str, which: str) -> list[Text]:
    values = [(row[key] or {}).get(which) for row in rows]
    known = [value for value in values if isinstance(value, int | float)]
    least = min(known, default=None) if len(set(known)) > 1 else None
    return [Text(number(value), style="bold" if value == least else "") for value in values]


def _findings(row: dict[str, Any]) -> Text:
    lines = []
    for item in row["findings"]:
        state = "" if item["state"] == "firing" else f", {item['state']}"
        line = severity_text(item["severity"])
        lines.append(line.append(f" {item['rule']} (step {item['first_step']:,}{state})", style=""))
    return Text("\n").join(lines) if lines else Text("none")


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
