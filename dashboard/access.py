"""Who may see and change what: tokens and their cookie, Origin and Host, the security headers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from flask import Flask, Request, Response, redirect, request

from .pages import login_page
from .replies import failure

COOKIE = "otoscope"
OPEN_PATHS = ("healthz", "readyz", "login")
LOOPBACK = ("localhost", "127.0.0.1", "::1")

Right = Literal["none", "read", "write"]


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one server.

    `token` allows everything, `read_token` reading alone; without either, reading is open, and so
    is writing unless a read token asks for a difference. `hosts` are the names under which the
    server may be addressed (None: any); a page on loopback without a token lists the loopback
    names, so that a foreign site cannot reach it by pointing its own name at 127.0.0.1.
    """

    prefix: str
    token: str | None = None
    read_token: str | None = None
    hosts: Sequence[str] | None = None

    def right_of_token(self, given: str) -> Right:
        """Return what a token allows, compared in constant time."""
        if self.token and _same(given, self.token):
            return "write"
        if self.read_token and _same(given, self.read_token):
            return "read"
        return "none"

    def right_of(self, asked: Request) -> Right:
        """Return what the sender of a request may do, by its header or cookie."""
        if not self.token and not self.read_token:
            return "write"
        scheme, _, given = asked.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and given:
            return self.right_of_token(given.strip())
        cookie = asked.cookies.get(COOKIE, "")
        if self.token and _same(cookie, seal(self.token)):
            return "write"
        if self.read_token and _same(cookie, seal(self.read_token)):
            return "read"
        return "none"

    def host_is_ours(self, asked: Request) -> bool:
        return self.hosts is None or host_name(asked.host) in self.hosts


def seal(token: str) -> str:
    """Return what the cookie holds: a digest, so that the cookie is not the token itself."""
    return hmac.new(token.encode(), b"otoscope cookie", hashlib.sha256).hexdigest()


def host_name(host: str) -> str:
    """Return a Host header's name without its port.

    >>> host_name("localhost:8050"), host_name("[::1]:8050")
    ('localhost', '::1')
    """
    return (urlsplit(f"//{host}").hostname or "").lower()


def _same(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode(), b.encode())


def guard(server: Flask, access: Access, csp: str) -> None:
    """Put the rules before every request and the headers on every answer."""

    @server.before_request
    def _check() -> Response | None:
        path = request.path.removeprefix(access.prefix)
        if not access.host_is_ours(request):
            return failure(
                421, f"this page does not answer to the name {host_name(request.host)[:80]!r}"
            )
        if request.method not in ("GET", "HEAD", "OPTIONS") and not _same_origin(request):
            return failure(403, "the request comes from another site")
        if path in OPEN_PATHS or path.startswith("assets/"):
            return None
        given = request.args.get("token", "")
        if given and access.right_of_token(given) != "none":
            return _with_cookie(access, given, request.path)
        right = access.right_of(request)
        if right == "none":
            return _ask_for_token(access, path)
        if right == "read" and request.method not in ("GET", "HEAD", "OPTIONS"):
            return failure(403, "this token may only read; changes need the write token")
        return None

    @server.post(f"{access.prefix}login")
    def _login() -> Response:
        given = request.form.get("token", "")
        if access.right_of_token(given) == "none":
            return login_page(access.prefix, wrong=True)
        return _with_cookie(access, given, access.prefix)

    @server.after_request
    def _headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = csp
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response


def _same_origin(asked: Request) -> bool:
    """Tell whether a request that changes something comes from our own page, or from no page."""
    site = asked.headers.get("Sec-Fetch-Site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = asked.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc.lower() == asked.host.lower()


def _ask_for_token(access: Access, path: str) -> Response:
    if path.startswith(("api/", "_dash")):
        return failure(401, "a token is needed: open the page with ?token=…, or send it as Bearer")
    return login_page(access.prefix)


def _with_cookie(access: Access, token: str, place: str) -> Response:
    # the token leaves the address at once: addresses end up in histories and logs
    answer = redirect(_own_path(place, access.prefix))
    answer.set_cookie(
        COOKIE,
        seal(token),
        max_age=30 * 86400,
        httponly=True,
        samesite="Lax",
        secure=request.is_secure,
        path=access.prefix,
    )
    return answer  # type: ignore[return-value]


def _own_path(place: str, prefix: str) -> str:
    """Return a path on this server: `//other.host` would be an address elsewhere."""
    return place if place.startswith(prefix) and not place.startswith("//") else prefix


def content_security_policy(hashes: Sequence[str]) -> str:
    """Return the policy of every answer; `hashes` are Dash's own inline scripts."""
    scripts = " ".join(["'self'", *hashes])
    return (
        f"default-src 'self'; script-src {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
