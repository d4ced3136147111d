"""A password that was given with `--url`: gone from the list of processes, with a warning."""

import subprocess
from pathlib import Path

import pytest
from otoscope.cli.hiding import without_password
from otoscope.store.places import home_folder

from tests.cli.conftest import OTOSCOPE, otoscope, wait_until
from tests.conftest import RedisProcess

SECRET = "hunter2-sesame"
URL = f"redis://:{SECRET}@host/0"


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["runs", "--url", URL, "--json"], ["runs", "--json"]),
        (["runs", f"--url={URL}"], ["runs"]),
        (["--", "--url", URL], None),
        (["runs", "--url"], None),
        (["runs", "--url", "http://:pw@host"], None),
        (["runs", "--url", "redis://me@host/0"], None),
        (["export", URL], None),
    ],
)
def test_only_an_address_with_a_password_is_taken_out(arguments, kept):
    found = without_password(arguments)

    assert (found and found[0]) == kept
    assert found is None or found[1] == URL


@pytest.mark.redis
def test_the_list_of_processes_does_not_show_it_and_a_warning_does_not_either(tmp_path):
    server = RedisProcess(tmp_path, "--requirepass", SECRET).start()
    url = server.url.replace("//", f"//:{SECRET}@")
    log = tmp_path / "daemon.log"
    with log.open("wb") as file:
        daemon = subprocess.Popen([*OTOSCOPE, "daemon", "--url", url], stdout=file, stderr=file)
    command_line = Path(f"/proc/{daemon.pid}/cmdline")
    try:
        wait_until(lambda: (tmp_path / "otoscope-home" / "daemon.heartbeat").exists())
        assert SECRET.encode() not in command_line.read_bytes()
        assert b"daemon" in command_line.read_bytes()
    finally:
        daemon.terminate()
        daemon.wait(30)
        server.stop()
    assert daemon.returncode == 0
    assert "Warning: a password in --url" in log.read_text()
    assert SECRET not in log.read_text()


@pytest.mark.redis
def test_the_command_does_what_it_was_asked(tmp_path):
    server = RedisProcess(tmp_path, "--requirepass", SECRET).start()
    try:
        result = otoscope("runs", "--json", "--url", server.url.replace("//", f"//:{SECRET}@"))
    finally:
        server.stop()

    assert (result.returncode, result.stdout.strip()) == (0, "[]")
    assert SECRET not in result.stderr


@pytest.mark.redis
def test_no_part_of_up_has_it_among_its_arguments_or_in_its_log(up, free_port, tmp_path):
    (tmp_path / "redis").mkdir()
    server = RedisProcess(tmp_path / "redis", "--requirepass", SECRET).start()
    try:
        url = server.url.replace("//", f"//:{SECRET}@")
        one = up("--port", str(free_port), "--url", url).wait_until_ready()
        parts = {"up": one.process.pid, **one.children()}
        lines = {name: Path(f"/proc/{pid}/cmdline").read_text() for name, pid in parts.items()}
        logs = "".join(path.read_text() for path in (home_folder() / "logs").glob("*.log"))
        said = one.said()
        one.end(15)
    finally:
        server.stop()

    assert set(lines) == {"up", "daemon", "dashboard"}
    assert [name for name, line in lines.items() if SECRET in line] == []
    assert SECRET not in logs + said
    assert "store      redis://:***@127.0.0.1" in said
