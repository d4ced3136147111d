"""The list of rules as a terminal of 80 columns reads it: in groups, and one rule in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .printing import console, severity_text

if TYPE_CHECKING:
    from ..diagnostics import RuleInfo


def grouped(rows: Sequence[RuleInfo]) -> dict[str, list[RuleInfo]]:
    """Return the rules by the group that each belongs to; a reader's own ones come last."""
    from ..diagnostics.catalogue import grouped

    return grouped(rows)


def print_rules(rows: Sequence[RuleInfo], out: Console | None = None) -> None:
    """Print every rule: how bad it is, its id, and what it looks for."""
    out = out or console()
    for group, members in grouped(rows).items():
        out.print(Text(group, style="bold"))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, min_width=10)
        table.add_column(no_wrap=True, min_width=21)
        table.add_column(overflow="fold")
        for row in members:
            table.add_row(severity_text(row.severity), row.id, Text(row.title))
        out.print(table)
        out.print()
    out.print(
        Text(f"{len(rows)} rules. `otoscope rules NAME` says how one judges, and by which numbers.")
    )


def print_rule(row: RuleInfo, out: Console | None = None) -> None:
    """Print one rule in full: what it looks for, why, by which numbers, and their ranges."""
    from ..diagnostics.ranges import SEVERITIES, allowed

    out = out or console()
    out.print(Text(row.id, style="bold"), severity_text(row.severity))
    out.print(Text(row.title))
    for name, text in (("What", row.what), ("Why", row.why), ("Source", row.source)):
        if text:
            out.print()
            out.print(Text.assemble((f"{name}  ", "dim"), text))
    for name, words in (("Hides", row.causes), ("Off in", row.off_in)):
        if words:
            out.print(Text.assemble((f"{name}  ", "dim"), ", ".join(words)))
    out.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("number", "default", "allowed"):
        table.add_column(heading, overflow="fold")
    for name, value in row.thresholds.items():
        limits = allowed(row.id, name, row.thresholds)
        table.add_row(name, str(value), str(limits or ", ".join(SEVERITIES)))
    out.print(table)
