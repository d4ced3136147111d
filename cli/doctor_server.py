"""What `otoscope doctor` looks at on the server: version, login, rights, TLS, eviction, clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..store import AccessDeniedError, OtoscopeError, connect
from ..store.addresses import host_of, redacted
from ..store.connecting import default_url
from ..store.redis_home import RedisHome
from ..store.retention import FULL_SHARE, Memory
from ..store.rights import missing_rights
from ..store.schemas import Json
from ..store.server_binary import OLDEST, numbers_of
from .printing import ago, amount

Outcome = Literal["ok", "warning", "failed"]
CLOCK_TOLERANCE = 2.0
"""Seconds by which the server's clock may differ; `stale` begins at 15 s without a sample."""
CERTIFICATE_DAYS = 14
LOOPBACK = ("localhost", "127.0.0.1", "::1", None)


@dataclass(slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    detail: str


def server_checks(url: str | None) -> Iterator[Check]:
    """Yield what can be told of the server at the address; a first check that fails is the last."""
    try:
        found = url or default_url()
        if found is None:
            yield Check("store", "ok", "none is up; runs are recorded to ./.otoscope/")
            return
        store = connect(found)
    except OtoscopeError as error:
        yield Check("store", "failed", str(error))
        return
    home = store.home
    assert isinstance(home, RedisHome)  # an address, not a folder
    try:
        yield Check("store", "ok", f"{redacted(found)} answers{_runs(home)}")
        info = _info(home)
        yield _version(home, info)
        yield _tls(home, found)
        yield _rights(home)
        yield _eviction(info)
        yield from _memory(info)
        yield from _janitor(home)
        yield _clock(info)
    except OtoscopeError as error:
        yield Check("store", "failed", f"it answered, and then: {error}")
    finally:
        store.close()


def _runs(home: RedisHome) -> str:
    try:
        count = len(home.run_ids())
        return f", {count} run{'' if count == 1 else 's'}"
    except AccessDeniedError:
        return "; this user may not list its runs"


def _info(home: RedisHome) -> dict[str, Json] | None:
    try:
        return home.server_info()
    except AccessDeniedError:
        return None


def _version(home: RedisHome, info: dict[str, Json] | None) -> Check:
    told = {**home.server}
    found = str(told.get("version") or (info or {}).get("redis_version", ""))
    if not numbers_of(found):
        return Check("server version", "warning", f"{found or 'not told'} (needs 6.2 or later)")
    if (info or {}).get("role", told.get("role")) in ("slave", "replica"):
        advice = "a replica, which takes no writes; name the primary"
        return Check("server version", "failed", f"{found}, {advice}")
    good = numbers_of(found) >= OLDEST
    mode = ", cluster mode" if told.get("mode") == "cluster" else ""
    return Check(
        "server version", "ok" if good else "failed", f"{found}{mode} (needs 6.2 or later)"
    )


def _tls(home: RedisHome, url: str) -> Check:
    told = home.tls()
    if told is None:
        if host_of(url) in LOOPBACK:
            return Check("TLS", "ok", "none, and the way does not leave this machine")
        return Check(
            "TLS", "warning", "none: password and samples can be read on the way; use rediss://"
        )
    name, ends = told
    if ends is None:
        return Check(
            "TLS", "warning", f"{name}, but the certificate is not checked (ssl_cert_reqs)"
        )
    days = int((ends - time.time()) // 86400)
    if days < CERTIFICATE_DAYS:
        return Check("TLS", "warning", f"{name}; the certificate ends in {days} days: renew it")
    return Check("TLS", "ok", f"{name}, certificate good for {days} days")


def _rights(home: RedisHome) -> Check:
    """Tell which parts the user may serve: one is enough, as a user of its own for each is advised."""
    missing = missing_rights(home)
    good = [part for part, rights in missing.items() if not rights]
    if len(good) == len(missing):
        return Check("rights", "ok", "enough for callback, daemon, page and tools")
    lacks = "; ".join(
        f"{part} lacks {', '.join(rights)}" for part, rights in missing.items() if rights
    )
    if good:
        return Check("rights", "ok", f"enough for {' and '.join(good)} ({lacks})")
    return Check("rights", "failed", f"{lacks}; docs/operations.md has the ACL rules of each part")


def _eviction(info: dict[str, Json] | None) -> Check:
    if info is None:
        return Check("eviction", "warning", "this user may not ask (INFO); see maxmemory-policy")
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy.startswith("allkeys"):
        advice = "throws live runs away without an error; set maxmemory-policy noeviction"
        return Check("eviction", "failed", f"{policy} {advice}")
    return Check("eviction", "ok", policy)


def _memory(info: dict[str, Json] | None) -> Iterator[Check]:
    if info is None:
        return
    memory = Memory(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)))
    if not memory.most:
        yield Check("memory", "ok", f"{amount(memory.used)} in use, no maxmemory")
        return
    full = memory.share >= FULL_SHARE
    advice = "; the daemon deletes the oldest finished runs from 80 % on" if full else ""
    told = f"{amount(memory.used)} of {amount(memory.most)} in use{advice}"
    yield Check("memory", "warning" if full else "ok", told)


def _janitor(home: RedisHome) -> Iterator[Check]:
    """Tell what the daemon deleted last, where it ever did."""
    try:
        note = home.settings().get("janitor")
    except AccessDeniedError:
        return
    if isinstance(note, dict) and isinstance(note.get("deleted"), list):
        names = ", ".join(str(row.get("name")) for row in note["deleted"] if isinstance(row, dict))
        why = "to make room" if note.get("why") == "memory" else "for their age"
        yield Check(
            "janitor", "ok", f"{ago(float(note.get('t') or 0))} the daemon deleted {why}: {names}"
        )


def _clock(info: dict[str, Json] | None) -> Check:
    if info is None or "server_time_usec" not in info:
        return Check("clock", "ok", "the server does not tell its time to this user")
    offset = float(info["server_time_usec"]) / 1e6 - time.time()
    good = abs(offset) <= CLOCK_TOLERANCE
    advice = "" if good else "; run NTP on both machines"
    return Check(
        "clock",
        "ok" if good else "failed",
        f"the server's clock differs by {round(offset, 1) + 0.0:+.1f} s{advice}",
    )
