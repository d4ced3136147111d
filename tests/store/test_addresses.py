"""Addresses: what cannot be one is refused with what to write, and no password is ever shown."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from otoscope.store import ConfigError
from otoscope.store.addresses import checked_url, has_password, password_of, redacted


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:p%40ss@host:6379/3",
        "rediss://host:6380/0?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock?db=1",
        "unix://:password@/run/redis.sock",
        "redis://[::1]:6379/0",
        "redis+cluster://user:pw@host:7000",
        "rediss+cluster://host:7000/0?ssl_ca_certs=/etc/ca.pem",
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
        ("redis://:pa/ss@host:6379/0", "percent-encoded"),
        ("redis://:pa#ss@host:6379/0", "percent-encoded"),
        ("redis://:pa?ss@host:6379/0", "percent-encoded"),
        ("redis://:pa@ss@host:6379/0", "percent-encoded"),
        ("redis://:100%@host:6379/0", "percent-encoded"),
        ("redis://host/0#frag", "holds a '#'"),
        ("redis://::1/0", "is not a URL"),
        ("unix://run/redis.sock", "third slash"),
        ("redis://host/0?socket_timeout=60", "'socket_timeout' in"),
        ("redis://host/0?protocol=3", "known are db"),
        ("redis://host/0?db=one", "db in"),
        ("redis://host/0?ssl_ca_certs=/ca.pem", "write rediss:// for TLS"),
        ("rediss://host/0?ssl_cert_reqs=maybe", "ssl_cert_reqs in"),
        ("rediss://host/0?ssl_ca_certs=", "ssl_ca_certs in"),
        ("redis+cluster://host:7000/2", "database 0 alone"),
        ("redis+sentinel://host:26379/mymaster", "name the primary"),
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
        "redis://:hunter2",
        "redis://me:hunter2",
        "redis://hunter2@host:6379/0",
        "me:hunter2@host:6379",
        "me:hunter2",
        "redis://:a/hunter2@host:6379/0",
        "redis://:a#hunter2@host/0",
        "redis://:a?hunter2@host/0",
        "redis://:hunter2@b@host/0",
        "redis://:hunter2%@host/0",
        "redis://host/0?password=hunter2&db=x",
        "rediss://host/0?ssl_password=hunter2&x=1",
        "redis://:hunter2@[::1/0",
        " redis://:hunter2@host/0",
        "redis+sentinel://:hunter2@host/0",
        "unix://:hunter2@",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    assert "hunter2" not in redacted(url)
    try:
        checked_url(url)
    except ConfigError as error:
        assert "hunter2" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "url",
    ["redis://localhost:6379/0", "redis://[::1]:6379/2", "unix:///run/r.sock?db=1", "nonsense"],
)
def test_what_holds_no_password_is_shown_as_it_is(url: str) -> None:
    assert redacted(url) == url
    assert not has_password(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host/0", "from-env"),
        ("redis://me@host/0", "from-env"),
        ("unix:///run/r.sock", "from-env"),
        ("redis://:own@host/0", None),
        ("redis://host/0?password=own", None),
    ],
)
def test_the_password_of_the_environment_is_for_a_url_without_one(
    url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTOSCOPE_PASSWORD", "from-env")
    assert password_of(url) == expected
    assert has_password(url) == (expected is None)


def test_an_empty_file_of_a_password_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("\n")
    monkeypatch.setenv("OTOSCOPE_PASSWORD_FILE", str(tmp_path / "secret"))
    with pytest.raises(ConfigError, match="which is empty"):
        password_of("redis://host/0")
