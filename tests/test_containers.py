"""Dockerfile, compose.yaml and the script of CI, parsed: no engine runs here, so each claim is held by its text."""

import json
import os
import re
import shlex
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from otoscope.cli.main import cli

from tests.cli.conftest import OTOSCOPE, wait_until

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def last_stage() -> dict[str, list[str]]:
    """Return the instructions of the image that is shipped, by their word."""
    rows = instructions()
    start = max(i for i, (word, _) in enumerate(rows) if word == "FROM")
    found: dict[str, list[str]] = {}
    for word, rest in rows[start:]:
        found.setdefault(word, []).append(rest)
    return found


def test_the_image_is_slim_and_holds_no_torch():
    stage = last_stage()

    assert re.fullmatch(r"python:3\.1\d-slim", stage["FROM"][0])
    installs = [line for line in stage["RUN"] if "pip install" in line]
    assert installs and not any("[" in line or "torch" in line for line in installs)


def test_the_image_does_not_run_as_root():
    rows = instructions()
    users = [i for i, (word, _) in enumerate(rows) if word == "USER"]

    assert rows[users[-1]][1] not in ("root", "0")
    # and nothing is installed after that, so nothing lies writable by the one who serves
    assert all(word != "RUN" for word, _ in rows[users[-1] :])


def test_every_folder_that_ships_is_copied():
    copied = {rest.split()[0] for word, rest in instructions() if word == "COPY"}

    assert {"store", "callbacks", "diagnostics", "dashboard", "cli", "pyproject.toml"} <= copied


def test_the_health_check_asks_the_page_at_its_port():
    check = last_stage()["HEALTHCHECK"][0]

    assert "'127.0.0.1', 8050" in check and "/healthz" in check
    assert last_stage()["EXPOSE"] == ["8050"]


@pytest.mark.redis
def test_the_health_check_passes_where_a_token_is_asked_for(redis_url, free_port, monkeypatch):
    # Given the page as compose.yaml starts it: on all addresses, with a token
    _, *arguments = command_of("dashboard")
    serve = [*OTOSCOPE, *arguments, "--port", str(free_port)]
    given = {"OTOSCOPE_URL": redis_url, "OTOSCOPE_TOKEN": "sesame"}
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # as Docker hands down to containers
    probe = json.loads(last_stage()["HEALTHCHECK"][0].partition("CMD ")[2])
    probe = [sys.executable, *probe[1:-1], probe[-1].replace("8050", str(free_port))]

    page = subprocess.Popen(serve, env={**os.environ, **given})
    try:
        wait_until(lambda: subprocess.run(probe, check=False, capture_output=True).returncode == 0)
        # Then everything but its health stays closed
        connection = HTTPConnection("127.0.0.1", free_port, timeout=10)
        connection.request("GET", "/api/runs")
        refused = connection.getresponse().status
    finally:
        page.terminate()
        page.wait(30)

    assert refused in (401, 403)


def command_of(service: str) -> list[str]:
    image = last_stage()
    entry = shlex.split(image["ENTRYPOINT"][0].strip("[]").replace(",", " "))
    own = SERVICES[service].get("command") if service else None
    return entry + (own or shlex.split(image["CMD"][0].strip("[]").replace(",", " ")))


@pytest.mark.parametrize("service", ["daemon", "dashboard", ""])
def test_every_entry_point_exists(service):
    program, command, *arguments = command_of(service)

    assert program == "otoscope"
    assert command in cli.commands
    options = {name for parameter in cli.commands[command].params for name in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= options


def test_the_daemons_health_check_is_a_command_that_exists():
    _, program, *arguments = SERVICES["daemon"]["healthcheck"]["test"]

    assert program == "otoscope"
    # no daemon beats here, so it says no
    assert CliRunner().invoke(cli, arguments).exit_code == 1


@pytest.mark.parametrize("service", ["daemon", "dashboard"])
def test_daemon_and_page_wait_for_a_healthy_redis(service):
    assert SERVICES[service]["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert SERVICES[service]["environment"]["OTOSCOPE_URL"].endswith("@redis:6379/0")
    assert "redis-cli ping" in SERVICES["redis"]["healthcheck"]["test"][1]


def test_redis_keeps_its_data_and_never_evicts():
    text = SERVICES["redis"]["command"][-1]

    assert "appendonly yes" in text and "maxmemory-policy noeviction" in text
    assert SERVICES["redis"]["volumes"] == ["redis:/data"] and "dir /data" in text
    assert "redis" in COMPOSE["volumes"]


def test_no_password_stands_in_the_file_and_none_may_be_left_out():
    text = (ROOT / "compose.yaml").read_text()

    assert "${OTOSCOPE_REDIS_PASSWORD:?" in text
    assert "${OTOSCOPE_TOKEN:?" in text
    assert "requirepass $$REDIS_PASSWORD" in text


def test_the_script_of_ci_is_sound_and_lets_nothing_be_skipped():
    script = ROOT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert "OTOSCOPE_REQUIRE=browser,redis" in text
    assert "make check" in text and "make test" in text


def test_ports_are_open_to_this_machine_alone_unless_asked():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert len(ports) == 2
    assert all(port.startswith("${OTOSCOPE_BIND:-127.0.0.1}:") for port in ports)
