"""`otoscope doctor`: is everything here that Otoscope needs?"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import click
from rich.text import Text

from ..store import OtoscopeError, connect
from ..store.addresses import redacted
from ..store.connecting import default_url
from ..store.login import port_is_free
from ..store.places import home_folder, read_address
from ..store.redis_home import RedisHome
from ..store.server_binary import OLDEST, find_binary
from .address import url_option
from .printing import print_json, print_table
from .up import DEFAULT_PORT

Outcome = Literal["ok", "warning", "failed"]
OLDEST_PYTHON = (3, 11)
OLDEST_PACKAGES = {"torch": (2, 6), "pytorch-lightning": (2, 5), "lightning": (2, 5)}
CLOCK_TOLERANCE = 2.0
"""Seconds by which the server's clock may differ; `stale` begins at 15 s without a sample."""


@dataclass(slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    detail: str


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
    yield from _store(url)


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
        good = _release(found) >= oldest
        yield Check(name, "ok" if good else "failed", f"{found} (needs {wanted} or later)")


def _release(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with.

    >>> _release("2.13.0+cpu"), _release("7.0"), _release("unknown")
    ((2, 13, 0), (7, 0), ())
    """
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, match.group().split("."))) if match else ()


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


def _store(url: str | None) -> Iterator[Check]:
    found = url or default_url()
    if found is None:
        yield Check("store", "ok", "none is up; runs are recorded to ./.otoscope/")
        return
    try:
        store = connect(found)
    except OtoscopeError as error:
        yield Check("store", "failed", str(error))
        return
    try:
        yield Check("store", "ok", f"{redacted(found)} answers, {len(store.home.run_ids())} runs")
        if isinstance(store.home, RedisHome):
            yield from _redis(store.home, time.time)
    finally:
        store.close()


def _redis(home: RedisHome, clock: Callable[[], float]) -> Iterator[Check]:
    info = home.server_info()
    found = str(info.get("redis_version", ""))
    good = _release(found) >= OLDEST
    yield Check("server version", "ok" if good else "failed", f"{found} (needs 6.2 or later)")
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy.startswith("allkeys"):
        advice = "throws live runs away without an error; set maxmemory-policy noeviction"
        yield Check("eviction", "failed", f"{policy} {advice}")
    else:
        yield Check("eviction", "ok", policy)
    if "server_time_usec" in info:
        offset = float(info["server_time_usec"]) / 1e6 - clock()
        good = abs(offset) <= CLOCK_TOLERANCE
        advice = "" if good else "; run NTP on both machines"
        yield Check(
            "clock",
            "ok" if good else "failed",
            f"the server's clock differs by {offset:+.1f} s{advice}",
        )
