"""The `otoscope` command: its groups, and how an error leaves it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from ..store import OtoscopeError
from .compare import compare
from .daemon import daemon
from .dashboard import dashboard
from .demo import demo
from .diagnose import diagnose
from .doctor import doctor
from .export import export
from .hiding import hide_password
from .prune import prune
from .replay import replay_command
from .report import report
from .rules import rules
from .runs import runs, show
from .up import up


class Otoscope(click.Group):
    """Turns our errors into one line on stderr and exit code 1; click's own usage errors are 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (OtoscopeError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise  # the reader of our pipe has gone: click ends quietly
            raise click.ClickException(str(error)) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of use, not of the alphabet


def _version() -> str:
    try:
        return version("otoscope")
    except PackageNotFoundError:
        return "unknown (not installed)"


@click.group(
    cls=Otoscope,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  otoscope up                 # in one terminal\n"
    "  python train.py             # in another, with callbacks=[Otoscope()]\n"
    "  otoscope show my-run        # or the page that `up` names",
)
@click.version_option(_version(), prog_name="otoscope")
def cli() -> None:
    """Look into a training run: what slows it down or breaks it, and the setting that mends it.

    Exit codes: 0 fine, 1 failure, 2 usage, 3 a finding stands and 4 nothing could be judged
    (both only with `diagnose --fail-on`).
    """


COMMANDS = (
    *(up, demo, runs, show, diagnose, report, compare),
    *(export, replay_command, prune, rules, doctor, daemon, dashboard),
)
for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Run the command line (the console script `otoscope`)."""
    hide_password()
    cli()


if __name__ == "__main__":
    main()
