"""`otoscope doctor`: what it looks at, and when it fails."""

import json
import socket
from collections import namedtuple

import pytest
from click.testing import CliRunner
from otoscope.cli import doctor as module
from otoscope.cli.doctor import run_checks
from otoscope.cli.main import cli

from tests.conftest import RedisProcess


def outcome(name: str, url: str | None = None) -> str:
    return next(check.outcome for check in run_checks(url) if check.name == name)


@pytest.mark.redis
def test_a_sound_machine_passes(redis_url):
    result = CliRunner().invoke(cli, ["doctor", "--url", redis_url, "--json"])

    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert result.exit_code == 0
    assert {"python", "torch", "home folder", "server program", "page", "store", "clock"} <= set(
        checks
    )
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
    monkeypatch.setattr(module.time, "time", lambda: 0.0)

    assert outcome("clock", redis_url) == "failed"
