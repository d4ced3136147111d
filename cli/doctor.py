"""`otoscope doctor`: is everything here that Otoscope needs?"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from rich.text import Text

from ..store import OtoscopeError
from ..store.connecting import default_url
from ..store.login import port_is_free
from ..store.places import home_folder, read_address
from ..store.server_binary import find_binary, numbers_of
from .address import url_option
from .doctor_server import Check, Outcome, server_checks
from .printing import amount, print_json, print_table
from .up import DEFAULT_PORT

OLDEST_PYTHON = (3, 11)
OLDEST_PACKAGES = {"torch": (2, 6), "pytorch-lightning": (2, 5), "lightning": (2, 5)}
FEW_BYTES, FEWEST_BYTES = 2 * 10**9, 10**8
"""Below the first it warns, below the second it fails: 1,200 columns take 5 kB a sample, 2 GB a day
without a server at five samples a second."""


@click.command(epilog="\b\nExample:\n  otoscope doctor\n  otoscope doctor --json")
@url_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, url: str | None, as_json: bool) -> None:
    """Check versions, server, eviction policy, home folder, port and clock; 1 if one fails."""
    checks = list(run_checks(url))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        styles = {"ok": "green", "warning": "yellow", "failed": "bold red"}
        rows = [(c.name, Text(c.outcome, style=styles[c.outcome]), c.detail) for c in checks]
        print_table(("check", "outcome", ""), rows)
    context.exit(1 if any(check.outcome == "failed" for check in checks) else 0)


def run_checks(url: str | None) -> Iterator[Check]:
    """Yield every check, the server's last."""
    yield _python()
    yield from _packages()
    yield _home()
    yield _server_binary()
    yield _port()
    yield _spool()
    yield from server_checks(url)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] >= OLDEST_PYTHON
    return Check("python", "ok" if good else "failed", f"{found} (needs 3.11 or later)")


def _packages() -> Iterator[Check]:
    # Only the metadata is read: importing torch takes seconds, and this machine may only show runs.
    for name, oldest in OLDEST_PACKAGES.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            remedy = 'a machine that trains needs `pip install "otoscope[lightning]"`'
            outcome: Outcome = "ok" if name == "lightning" else "warning"
            yield Check(name, outcome, f"not installed; {remedy}")
            continue
        wanted = ".".join(map(str, oldest))
        good = numbers_of(found) >= oldest
        yield Check(name, "ok" if good else "failed", f"{found} (needs {wanted} or later)")


def _home() -> Check:
    home = home_folder()
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        return Check("home folder", "failed", f"cannot make {home} ({error}); set OTOSCOPE_HOME")
    if not os.access(home, os.W_OK):
        return Check("home folder", "failed", f"cannot write to {home}; set OTOSCOPE_HOME")
    return Check("home folder", "ok", str(home))


def _server_binary() -> Check:
    try:
        return Check("server program", "ok", str(find_binary()))
    except OtoscopeError as error:
        # A machine that uses a server elsewhere needs none of its own.
        return Check("server program", "warning" if default_url() else "failed", str(error))


def _port() -> Check:
    address = read_address()
    if address is not None:
        return Check("page", "ok", f"up at {address.dashboard} (pid {address.pid})")
    if port_is_free(DEFAULT_PORT):
        return Check("page", "ok", f"not up; port {DEFAULT_PORT} is free")
    return Check(
        "page",
        "warning",
        f"port {DEFAULT_PORT} is taken; use `otoscope up --port {DEFAULT_PORT + 1}`",
    )


def _spool() -> Check:
    """Check the disk that samples wait on while the server is away, and runs without one lie on."""
    folder = Path(".otoscope").absolute()
    there = folder if folder.is_dir() else folder.parent
    if not os.access(there, os.W_OK):
        return Check("spool", "failed", f"cannot write to {there}; train elsewhere, or set spool=")
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Check("spool", "warning", f"cannot tell the space left in {there}: {error}")
    said = f"{amount(free)} free in {there}"
    if free < FEWEST_BYTES:
        return Check("spool", "failed", f"{said}; free some space, or set spool= to another disk")
    outcome: Outcome = "ok" if free >= FEW_BYTES else "warning"
    return Check("spool", outcome, said)
