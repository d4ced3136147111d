"""`otoscope rules`: the catalogue of what Otoscope looks for, and the numbers it judges by."""

from __future__ import annotations

from dataclasses import asdict
from difflib import get_close_matches
from typing import Any

import click

from ..store import ConfigError
from .address import is_on_disk, open_run, url_option
from .own_rules import rules_option
from .printing import print_json, print_table
from .rule_list import print_rule, print_rules


@click.command(
    epilog="\b\nExample:\n  otoscope rules\n  otoscope rules plateau           # how it judges, and by which numbers\n  otoscope rules --json\n"
    "  otoscope rules --run my-run --set plateau.fire=0.02 --set dead_units.severity=off\n"
    "  otoscope rules --run my-run --unset plateau.fire\n"
    "\n\b\nFor every run of a project, numbers stand in otoscope.toml: [rules.plateau] with fire = 0.02."
)
@click.argument("name", metavar="[NAME]", required=False)
@rules_option
@url_option
@click.option("--run", metavar="RUN", help="Show or set the numbers of this run.")
@click.option(
    "--set", "told", metavar="RULE.NUMBER=VALUE", multiple=True, help="Set a number of the run."
)
@click.option("--unset", metavar="RULE.NUMBER", multiple=True, help="Take a number back.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rules(
    name: str | None,
    run: str | None,
    url: str | None,
    told: tuple[str, ...],
    unset: tuple[str, ...],
    as_json: bool,
) -> None:
    """List the rules, a reader's own too: what each looks for, and from which measurements.

    With NAME, say of one rule how it judges and by which numbers. With --run, list the numbers of a run that are not the defaults, and set some while it trains.
    """
    from ..diagnostics import catalogue

    if run is not None and name is not None:
        raise click.UsageError(
            f"say either {name} or --run: the numbers of a run are listed together"
        )
    if run is not None:
        _of_run(run, url, told, unset, as_json)
        return
    if told or unset:
        raise click.UsageError(
            "name the run whose numbers shall be set with --run; for every run of a project they "
            "stand in otoscope.toml"
        )
    rows = catalogue()
    if name is not None:
        known = {row.id: row for row in rows}
        if name not in known:
            near = get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else "`otoscope rules` lists them"
            raise click.BadParameter(f"there is no rule {name!r}; {hint}", param_hint="NAME")
        rows = [known[name]]
    if as_json:
        print_json([asdict(row) for row in rows])
    elif name is not None:
        print_rule(rows[0])
    else:
        print_rules(rows)


def _of_run(
    name: str, url: str | None, told: tuple[str, ...], unset: tuple[str, ...], as_json: bool
) -> None:
    from ..diagnostics import numbers_in_force, parsed, set_numbers

    if (told or unset) and is_on_disk(name):
        raise click.UsageError(
            f"{name} is a recording, which nobody judges while it trains; set its numbers in "
            "otoscope.toml, and `otoscope diagnose` judges by them"
        )
    store, run = open_run(name, url)
    try:
        wanted: dict[str, Any] = dict(parsed(text) for text in told)
        wanted |= {key: wanted.get(key) for key in unset}
        if twice := {key for key in unset if wanted[key] is not None}:
            raise ConfigError(f"{min(twice)} cannot be set and taken back at once")
        set_numbers(store, run, wanted)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    numbers = numbers_in_force(store, run)
    if as_json:
        print_json({"run": run, "set": numbers})
    elif numbers:
        print_table(("number", "value"), [(key, str(value)) for key, value in numbers.items()])
    else:
        click.echo(f"{run} is judged by the defaults; `otoscope rules --json` shows them")
