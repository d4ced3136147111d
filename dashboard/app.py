"""The app: Dash serves an empty layout and the assets, a few Flask routes serve the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import dash
from flask import Flask
from flask_compress import Compress

from ..store import ConfigError, Store
from .access import Access, content_security_policy, guard
from .api import add_routes
from .layout import layout, wire
from .pages import SHELL
from .shelf import Shelf

LARGEST_BODY = 1 << 20
"""Bytes of a request's body; the largest that the page sends has a few hundred."""


def create_app(
    connect: Callable[[], Store],
    *,
    prefix: str = "/",
    token: str | None = None,
    read_token: str | None = None,
    hosts: Sequence[str] | None = None,
) -> Flask:
    """Return the page as a WSGI application.

    Args:
        connect: opens the store; called at the first request, and again after it went away.
        prefix: path below which the page lives, as `/otoscope/` behind a proxy.
        token: allows reading and changing; None: no token is asked for.
        read_token: allows reading alone.
        hosts: names that the server answers to; None: any.

    Raises:
        ConfigError: a prefix without its slashes.
    """
    if not (prefix.startswith("/") and prefix.endswith("/")) or "//" in prefix:
        raise ConfigError(
            f"prefix must begin and end with a slash, got {prefix!r}; write /otoscope/"
        )
    server = Flask("otoscope.dashboard", static_folder=None)
    server.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    Compress(server)
    app = dash.Dash(
        "otoscope.dashboard",
        server=cast(Any, server),  # annotated as bool or callable, documented as either or a server
        title="Otoscope",
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
        requests_pathname_prefix=prefix,
        routes_pathname_prefix=prefix,
        serve_locally=True,
        use_pages=False,
        enable_mcp=False,
        add_log_handler=False,
        index_string=SHELL,
        meta_tags=[
            {"name": "viewport", "content": "width=device-width, initial-scale=1"},
            {"name": "color-scheme", "content": "light dark"},
        ],
    )
    app.layout = layout(prefix)
    wire(app)
    access = Access(prefix, token or None, read_token or None, hosts)
    guard(server, access, content_security_policy(app.csp_hashes()))
    add_routes(server, Shelf(connect), prefix)
    return server
