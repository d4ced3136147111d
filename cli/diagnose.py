"""`otoscope diagnose`: judge a recorded run from its start, here and now."""

from __future__ import annotations

from typing import Any

import click

from ..store.foreign import SIGNALS
from .address import open_run, url_option
from .own_rules import rules_option
from .printing import asks_for_action, print_json, print_run
from .progress import progress_bar

SEVERITIES = ("info", "warning", "critical")
FINDING_STANDS = 3
NOTHING_JUDGED = 4


def _as_columns(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    told: dict[str, str] = {}
    for value in values:
        signal, equals, name = value.partition("=")
        if not equals or signal not in SIGNALS or not name:
            raise click.BadParameter(
                f"got {value!r}; write SIGNAL=NAME with one of {', '.join(SIGNALS)}, as loss=objective"
            )
        told[signal] = name
    return told


@click.command(
    epilog="\b\nExample:\n  otoscope diagnose .otoscope/mlp-01jd4tq2\n"
    "  otoscope diagnose my-run --fail-on warning    # in a pipeline\n"
    "  otoscope diagnose lightning_logs/version_0/metrics.csv    # what another logger wrote\n"
    "  otoscope diagnose log.csv --column loss=objective --column step=t\n"
    "\n\b\nWith --fail-on, exit code 3 says that a finding stands, 4 that nothing could be judged.",
)
@click.argument("run", metavar="RUN|DIR|FILE")
@url_option
@rules_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    help="Exit with 3 where a finding of this severity or a worse one stands, 4 where nothing was judged.",
)
@click.option(
    "--column",
    "columns",
    metavar="SIGNAL=NAME",
    multiple=True,
    callback=_as_columns,
    help="Of a log: the column that is step, loss, lr, grad_norm or val_loss, where its name does not tell.",
)
@click.pass_context
def diagnose(
    context: click.Context,
    run: str,
    url: str | None,
    as_json: bool,
    fail_on: str | None,
    columns: dict[str, str],
) -> None:
    """Judge a run from its first step: one of the store, a recording's folder, or a log.

    A log is a CSV file or a TensorBoard event file of another logger, or a folder that holds one. What
    it does not tell (layers, curvature, noise) is listed as not judged.
    """
    from ..diagnostics import judge, project_numbers

    project = project_numbers()
    store, found = open_run(run, url, columns)
    with progress_bar("judging") as progress:
        answer = judge(store, found, progress=progress, project=project)
    if as_json:
        print_json(answer)
    else:
        print_run(answer)
    context.exit(exit_code(answer, fail_on))


def exit_code(answer: dict[str, Any], fail_on: str | None) -> int:
    """Return what `--fail-on` asks for; what a person has put aside does not fail.

    >>> exit_code({"judged": ["plateau"], "findings": []}, "warning")
    0
    >>> exit_code({"judged": [], "findings": []}, "warning")
    4
    """
    if fail_on is None:
        return 0
    bar = SEVERITIES.index(fail_on)
    for finding in answer["findings"]:
        if (
            asks_for_action(finding, answer.get("step", 0))
            and SEVERITIES.index(finding["severity"]) >= bar
        ):
            return FINDING_STANDS
    return 0 if answer["judged"] else NOTHING_JUDGED
