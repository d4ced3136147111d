"""Addresses: what cannot be one is refused with what to write, and no password is ever shown."""

from __future__ import annotations

import pytest
from otoscope.store import ConfigError
from otoscope.store.addresses import checked_url, redacted


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:p%40ss@host:6379/3",
        "rediss://host:6380/0?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock?db=1",
        "unix://:password@/run/redis.sock",
        "redis://[::1]:6379/0",
    ],
)
def test_a_url_that_redis_takes_is_left_as_it_is(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("localhost:6379", "write redis://"),
        ("http://localhost", "write redis://"),
        ("redis://", "names no host"),
        ("redis://host:99999/0", "is not a URL"),
        ("redis://host:abc/0", "is not a URL"),
        ("redis://host/one", "must be a number, got 'one'"),
        ("unix://", "names no socket"),
        ("redis://host:0/0", "port 0"),
        ("", "write redis://"),
    ],
)
def test_a_url_that_cannot_be_one_is_refused_with_what_to_write(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        checked_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@host:6379/0",
        "redis://me:hunter2@host/0",
        "unix://me:hunter2@/run/x.sock",
        "unix:///run/x.sock?password=hunter2",
        "redis://me:hunter2@host:notaport/0",
        "http://me:hunter2@host",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    assert "hunter2" not in redacted(url)
    try:
        checked_url(url)
    except ConfigError as error:
        assert "hunter2" not in str(error)
