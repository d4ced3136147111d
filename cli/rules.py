"""`otoscope rules`: the catalogue of what Otoscope looks for."""

from __future__ import annotations

from dataclasses import asdict

import click

from .own_rules import rules_option
from .printing import print_json, print_table, severity_text


@click.command(epilog="\b\nExample:\n  otoscope rules\n  otoscope rules --json")
@rules_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rules(as_json: bool) -> None:
    """List the rules, a reader's own too: what each looks for, and from which measurements."""
    from ..diagnostics import catalogue

    rows = catalogue()
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        print_table(
            ("rule", "severity", "what it looks for"),
            [(row.id, severity_text(row.severity), row.title) for row in rows],
        )
