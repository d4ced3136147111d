"""`otoscope doctor`: what it looks at, and when it fails."""

import json
import socket
from collections import namedtuple
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from otoscope.cli import doctor as module
from otoscope.cli import doctor_server as server_module
from otoscope.cli.doctor import run_checks
from otoscope.cli.main import cli
from otoscope.store.redis_home import RedisHome
from otoscope.store.rights import acl_rule

from tests.conftest import RedisProcess
from tests.store.servers import Certificates, TlsServer, need_tls


def outcome(name: str, url: str | None = None) -> str:
    return next(check.outcome for check in run_checks(url) if check.name == name)


@pytest.mark.redis
def test_a_sound_machine_passes(redis_url):
    result = CliRunner().invoke(cli, ["doctor", "--url", redis_url, "--json"])

    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert result.exit_code == 0
    names = {"python", "torch", "home folder", "server program", "page", "spool", "store"}
    assert names | {"server version", "TLS", "rights", "eviction", "clock"} <= set(checks)
    assert checks["rights"]["detail"] == "enough for callback, daemon, page and tools"
    assert checks["server version"]["outcome"] == "ok"
    assert checks["eviction"]["detail"] == "noeviction"


@pytest.mark.redis
def test_a_server_that_evicts_live_runs_fails(tmp_path):
    server = RedisProcess(tmp_path, "--maxmemory-policy", "allkeys-lru").start()
    try:
        result = CliRunner().invoke(cli, ["doctor", "--url", server.url])
    finally:
        server.stop()

    assert result.exit_code == 1
    assert "allkeys-lru" in result.stdout and "noeviction" in result.stdout


@pytest.mark.redis
def test_how_full_the_server_is_and_what_went_for_it_is_told(tmp_path, caplog):
    server = RedisProcess(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lfu")
    server.start()
    try:
        home = RedisHome(server.url)
        rows = [{"id": "old-1", "name": "old"}]
        home.set_settings({"janitor": {"t": 1e9, "why": "memory", "deleted": rows}})
        memory = home.memory()
        assert memory is not None
        checks = {check.name: check for check in run_checks(server.url)}
        admin = redis.Redis.from_url(server.url)
        admin.config_set("maxmemory", memory.used + 100_000)
        assert outcome("memory", server.url) == "warning"
        admin.close()
    finally:
        server.stop()
    assert checks["memory"].outcome == "ok" and "of 3.1 MB in use" in checks["memory"].detail
    assert "deleted to make room: old" in checks["janitor"].detail
    assert "throws live runs away" in caplog.text


def test_an_unreachable_server_fails(free_port):
    result = CliRunner().invoke(cli, ["doctor", "--url", f"redis://127.0.0.1:{free_port}/0"])

    assert result.exit_code == 1
    assert "no answer" in result.stdout


def test_a_home_folder_that_cannot_be_made_fails(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OTOSCOPE_HOME", str(tmp_path / "file" / "home"))

    assert outcome("home folder") == "failed"


def test_an_old_python_fails(monkeypatch):
    version = namedtuple("version", "major minor micro")
    monkeypatch.setattr(module.sys, "version_info", version(3, 10, 1))

    assert outcome("python") == "failed"


@pytest.mark.parametrize(
    ("found", "expected"),
    [("2.13.0+cpu", "ok"), ("2.6", "ok"), ("2.5.1", "failed"), ("?", "failed")],
)
def test_an_old_torch_fails(monkeypatch, found, expected):
    monkeypatch.setattr(module, "version", lambda name: found if name == "torch" else "3.0")

    assert outcome("torch") == expected


def test_no_torch_is_a_warning_with_the_command_that_installs_it(monkeypatch):
    def absent(name: str) -> str:
        raise module.PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", absent)
    check = next(check for check in run_checks(None) if check.name == "torch")

    assert check.outcome == "warning"
    assert 'pip install "otoscope[lightning]"' in check.detail


def test_no_server_program_fails_only_where_none_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert outcome("server program") == "failed"

    monkeypatch.setenv("OTOSCOPE_URL", "redis://127.0.0.1:1/0")
    assert outcome("server program") == "warning"


def test_a_taken_port_is_a_warning_with_its_remedy(monkeypatch, free_port):
    monkeypatch.setattr(module, "DEFAULT_PORT", free_port)
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        check = next(check for check in run_checks(None) if check.name == "page")

    assert check.outcome == "warning"
    assert f"--port {free_port + 1}" in check.detail


@pytest.mark.redis
def test_a_clock_that_differs_fails(redis_url, monkeypatch):
    monkeypatch.setattr(server_module.time, "time", lambda: 0.0)

    assert outcome("clock", redis_url) == "failed"


def test_a_disk_that_is_full_fails_and_one_that_is_nearly_full_warns(monkeypatch):
    usage = namedtuple("usage", "total used free")
    for free, expected in ((5 * 10**7, "failed"), (10**9, "warning"), (10**10, "ok")):
        monkeypatch.setattr(module.shutil, "disk_usage", lambda path, f=free: usage(1, 1, f))
        assert outcome("spool") == expected


@pytest.mark.redis
def test_a_user_for_one_part_passes_and_one_for_none_fails_with_what_it_lacks(tmp_path):
    server = RedisProcess(tmp_path).start()
    admin: Any = redis.Redis.from_url(server.url)
    rules = {"callback": acl_rule("callback"), "nobody": "~otoscope:* -@all +ping +multi +exec"}
    for name, rule in rules.items():
        admin.execute_command("ACL", "SETUSER", name, "on", ">pw", *rule.split())
    try:
        answers = {
            name: CliRunner().invoke(
                cli, ["doctor", "--json", "--url", server.url.replace("//", f"//{name}:pw@")]
            )
            for name in rules
        }
    finally:
        server.stop()

    checks = {
        name: {check["name"]: check for check in json.loads(answer.stdout)}
        for name, answer in answers.items()
    }
    assert answers["callback"].exit_code == 0
    assert checks["callback"]["rights"]["detail"].startswith("enough for callback (daemon lacks")
    assert checks["callback"]["eviction"]["outcome"] == "warning"
    assert answers["nobody"].exit_code == 1
    assert "callback lacks select, hgetall" in checks["nobody"]["rights"]["detail"]
    assert "docs/operations.md" in checks["nobody"]["rights"]["detail"]


@pytest.mark.redis
def test_a_replica_fails(redis_server, tmp_path):
    options = ("--replicaof", "127.0.0.1", str(redis_server.port))
    replica = RedisProcess(tmp_path, *options).start()
    try:
        checks = {check.name: check for check in run_checks(replica.url)}
    finally:
        replica.stop()

    assert checks["server version"].outcome == "failed"
    assert "name the primary" in checks["server version"].detail


@pytest.mark.redis
def test_a_certificate_that_ends_soon_warns(tmp_path, monkeypatch):
    need_tls()
    certificates = Certificates(tmp_path)
    server = TlsServer(tmp_path, certificates).start()
    try:
        soon = next(check for check in run_checks(server.url) if check.name == "TLS")
        monkeypatch.setattr(server_module, "CERTIFICATE_DAYS", 3)
        good = next(check for check in run_checks(server.url) if check.name == "TLS")
        unchecked = f"{server.url.partition('?')[0]}?ssl_cert_reqs=none"
        blind = next(check for check in run_checks(unchecked) if check.name == "TLS")
    finally:
        server.stop()

    assert (soon.outcome, good.outcome, blind.outcome) == ("warning", "ok", "warning")
    assert "ends in 8 days" in soon.detail
    assert good.detail.startswith("TLSv1.")


def test_samples_that_leave_the_machine_in_the_clear_warn(monkeypatch):
    plain = RedisHome("redis://127.0.0.1:1/0")
    monkeypatch.setattr(plain, "tls", lambda: None)

    assert server_module._tls(plain, "redis://gpu-box:6379/0").outcome == "warning"
    assert server_module._tls(plain, "redis://127.0.0.1:6379/0").outcome == "ok"
    assert server_module._tls(plain, "unix:///run/redis.sock").outcome == "ok"
