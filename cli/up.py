"""`otoscope up`: server, daemon and page on this machine, ended together by one Ctrl-C."""

from __future__ import annotations

import os
import sys
import webbrowser

import click

from ..store.addresses import redacted
from .address import url_option
from .own_rules import rules_option
from .signals import ending_signals
from .stack import AlreadyUpError, Stack

DEFAULT_PORT = 8050
PASTE = """\
    from otoscope.callbacks import Otoscope
    trainer = Trainer(callbacks=[Otoscope()])"""


@click.command(
    epilog="\b\nExample:\n  otoscope up\n  otoscope up --port 9000 --url redis://gpu-box:6379/0",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the page [default: 8050].")
@url_option
@rules_option
@click.option("--no-browser", is_flag=True, help="Do not open the page.")
def up(port: int | None, url: str | None, no_browser: bool) -> None:
    """Start server, diagnosis daemon and page; Ctrl-C ends them all.

    Without --url (or $OTOSCOPE_URL) a private Redis is started, and what it holds is kept.
    """
    from ..diagnostics import active_rules
    from ..diagnostics.janitor import ttl_of

    ttl_of(os.environ)  # a wrong one is refused here, not in the daemon's log
    active_rules()  # and so is a rule that cannot be used
    url = url or os.environ.get("OTOSCOPE_URL") or None
    with ending_signals() as stop:
        stack = Stack(port=port or DEFAULT_PORT, url=url, stop=stop, say=click.echo)
        try:
            stack.start()
        except AlreadyUpError as error:
            if error.address is None or port not in (None, error.port) or url is not None:
                raise
            click.echo(str(error))
            return
        try:
            if not stop.is_set():
                greet(stack)
                click.echo(f"\nPaste into the training script:\n\n{PASTE}\n")
                if not no_browser:
                    open_page(stack)
            stack.watch()
        finally:
            stack.end()
    click.echo("Otoscope has ended; what was recorded is kept.")


def greet(stack: Stack) -> None:
    """Say where store and page are."""
    click.echo(f"store      {redacted(stack.url)}")
    click.echo(f"\nOtoscope is up at {stack.page}   (Ctrl-C ends it)")


def open_page(stack: Stack) -> None:
    """Open the page where a person sits before a screen."""
    if sys.stdout.isatty() and has_screen():
        webbrowser.open(stack.page)


def has_screen() -> bool:
    """Tell whether a browser can open a window; else one in text mode would take the terminal."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return "SSH_CONNECTION" not in os.environ
