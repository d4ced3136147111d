"""`otoscope daemon`: the diagnosis daemon alone, over a store that runs elsewhere."""

from __future__ import annotations

import time

import click

from ..store import connect
from .address import url_option
from .signals import ending_signals


@click.command(
    epilog="\b\nExample:\n  otoscope daemon --url redis://gpu-box:6379/0",
)
@url_option
def daemon(url: str | None) -> None:
    """Judge every run of the store as it trains, until Ctrl-C."""
    from ..diagnostics import Daemon

    with ending_signals() as stop:
        store = connect(url)
        Daemon(store.home, clock=time.time).run(stop)
        store.close()
