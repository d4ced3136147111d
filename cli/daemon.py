"""`otoscope daemon`: the diagnosis daemon alone, over a store that runs elsewhere."""

from __future__ import annotations

import os
import time

import click

from ..store import connect
from .address import url_option
from .own_rules import rules_option
from .signals import ending_signals


@click.command(
    epilog="\b\nExample:\n  otoscope daemon --url redis://gpu-box:6379/0",
)
@url_option
@rules_option
@click.option(
    "--check", is_flag=True, help="Only tell whether the daemon of this machine is alive."
)
@click.pass_context
def daemon(context: click.Context, url: str | None, check: bool) -> None:
    """Judge every run of the store as it trains, until Ctrl-C.

    Where the server's memory runs out, the oldest finished runs are deleted (never one tagged
    `keep`); with OTOSCOPE_TTL=14d in the environment, also those older than that.
    """
    from ..diagnostics import Daemon, active_rules
    from ..diagnostics.daemon import is_alive
    from ..diagnostics.janitor import ttl_of

    if check:
        alive = is_alive()
        click.echo("alive" if alive else "no sign of life within 30 s", err=not alive)
        context.exit(0 if alive else 1)
    ttl = ttl_of(os.environ)
    with ending_signals() as stop:
        rules = active_rules()
        store = connect(url)
        Daemon(store.home, clock=time.time, ttl=ttl, rules=rules).run(stop)
        store.close()
