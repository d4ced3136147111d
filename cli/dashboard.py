"""`otoscope dashboard`: the page alone, over a store that runs elsewhere."""

from __future__ import annotations

import os
import sys

import click

from ..store import StoreUnavailableError
from ..store.connecting import default_url
from .address import url_option


@click.command(
    epilog="\b\nExample:\n  otoscope dashboard --url redis://gpu-box:6379/0\n"
    "  OTOSCOPE_TOKEN=secret otoscope dashboard --host 0.0.0.0",
)
@url_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8050, show_default=True, type=click.IntRange(1, 65535))
@click.option("--prefix", default="/", show_default=True, help="Path behind a proxy.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="A name under which a proxy reaches the page.",
)
@click.option("--insecure", is_flag=True, help="Listen beyond this machine without a token.")
def dashboard(
    url: str | None,
    host: str,
    port: int,
    prefix: str,
    workers: int,
    allow_host: tuple[str, ...],
    insecure: bool,
) -> None:
    """Serve the page until Ctrl-C. Beyond this machine it wants $OTOSCOPE_TOKEN."""
    found = url or default_url()
    if found is None:
        raise StoreUnavailableError(
            "no store to show: $OTOSCOPE_URL is not set and `otoscope up` does not run on this "
            "machine; give --url, or run `otoscope up`, which serves the page too"
        )
    arguments = ["--host", host, "--port", str(port), "--prefix", prefix]
    arguments += ["--workers", str(workers)]
    for name in allow_host:
        arguments += ["--allow-host", name]
    if insecure:
        arguments.append("--insecure")
    command = [sys.executable, "-m", "otoscope.dashboard", *arguments]
    # The page replaces this process, so a signal reaches it directly; the address goes through the
    # environment, where other users cannot read the password.
    os.execve(sys.executable, command, {**os.environ, "OTOSCOPE_URL": found})
