"""`otoscope up`: three parts, ended together and in order, whatever happens."""

import json
import os
import signal
import socket
import stat
import urllib.request
from pathlib import Path
from threading import Event as Event_

import numpy as np
import pytest
from otoscope.cli.demo import running_stack
from otoscope.cli.intake import Intake
from otoscope.store import Column, Event, Frame, Schema, StreamName, connect
from otoscope.store.places import (
    address_file,
    boot_id,
    home_folder,
    process_lives,
    read_address,
    recordings,
    register_recording,
)
from otoscope.store.recording import RecordingSink

from tests.cli.conftest import otoscope, record, wait_until

pytestmark = pytest.mark.redis


def test_up_prints_the_address_and_what_to_paste(up, free_port):
    one = up("--port", str(free_port)).wait_until_ready()

    with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/healthz", timeout=10) as reply:
        assert reply.status == 200
    said = one.said()
    assert f"http://127.0.0.1:{free_port}" in said
    assert "from otoscope.callbacks import Otoscope" in said
    assert "callbacks=[Otoscope()]" in said
    assert json.loads((home_folder() / "redis" / "login.json").read_text())["password"] not in said


def test_the_address_is_found_by_the_callback_and_the_command(up, free_port):
    one = up("--port", str(free_port)).wait_until_ready()

    address = read_address()
    assert address is not None
    assert (address.pid, address.dashboard) == (one.process.pid, f"http://127.0.0.1:{free_port}")
    assert stat.S_IMODE(address_file().stat().st_mode) == 0o600
    assert connect(None).runs() == []
    assert json.loads(otoscope("runs", "--json").stdout) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_parts_in_order_and_leaves_no_process(up, free_port, number):
    one = up("--port", str(free_port)).wait_until_ready()
    parts = one.children()
    assert set(parts) == {"server", "daemon", "dashboard"}

    assert one.end(number) == 0

    assert [name for name, pid in parts.items() if process_lives(pid)] == []
    assert not address_file().exists()
    assert "what was recorded is kept" in one.said()
    assert "Traceback" not in one.said()


def test_ctrl_c_reaches_neither_server_nor_daemon_before_up_ends_them(up, free_port):
    # Given that a terminal sends Ctrl-C to the whole foreground group
    one = up("--port", str(free_port)).wait_until_ready()

    groups = {name: os.getpgid(pid) for name, pid in one.children().items()}

    # Then no part is in it
    assert os.getpgid(one.process.pid) not in groups.values()


def test_the_daemon_ends_before_the_server(up, free_port):
    one = up("--port", str(free_port)).wait_until_ready()
    assert one.end(signal.SIGINT) == 0

    # A daemon whose server went first says so in its log
    log = (home_folder() / "logs" / "daemon.log").read_text()
    assert "does not answer" not in log and "Traceback" not in log


@pytest.mark.parametrize("part", ["daemon", "dashboard", "server"])
def test_a_part_that_dies_is_named_and_ends_the_others(up, free_port, part):
    one = up("--port", str(free_port)).wait_until_ready()
    parts = one.children()

    os.kill(parts[part], signal.SIGKILL)

    assert one.process.wait(60) == 1
    assert ("Redis server" if part == "server" else f"the {part}") in one.said()
    assert "ended by itself" in one.said()
    assert [name for name, pid in parts.items() if process_lives(pid)] == []


def test_a_killed_up_leaves_no_process(up, free_port):
    one = up("--port", str(free_port)).wait_until_ready()
    parts = one.children()

    one.process.kill()
    one.process.wait(10)

    wait_until(lambda: not any(process_lives(pid) for pid in parts.values()))
    # and its address is not believed any more
    assert read_address() is None


def test_a_second_up_says_where_the_first_runs(up, free_port):
    one = up("--port", str(free_port)).wait_until_ready()

    second = otoscope("up", "--no-browser")

    assert second.returncode == 0
    assert f"already up at http://127.0.0.1:{free_port} (pid {one.process.pid})" in second.stdout
    assert one.process.poll() is None


def test_a_second_up_with_other_wishes_is_an_error(up, free_port):
    up("--port", str(free_port)).wait_until_ready()

    second = otoscope("up", "--no-browser", "--port", str(free_port + 1))

    assert second.returncode == 1
    assert f"already up at http://127.0.0.1:{free_port}" in second.stderr


def test_a_taken_port_gets_an_error_that_names_the_option(redis_program, free_port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()

        result = otoscope("up", "--no-browser", "--port", str(free_port))

    assert result.returncode == 1
    assert f"port {free_port} is taken" in result.stderr
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr
    assert not address_file().exists()


def test_recorded_runs_survive_a_restart(up, free_port, tmp_path):
    # Given a run that was recorded into the server
    one = up("--port", str(free_port)).wait_until_ready()
    register_recording(record(tmp_path / "rec", "kept-01"))
    assert one.end(signal.SIGTERM) == 0
    two = up("--port", str(free_port)).wait_until_ready()
    assert two.end(signal.SIGTERM) == 0
    assert recordings() == []

    # When everything is started again
    up("--port", str(free_port)).wait_until_ready()

    # Then it is there, and judged
    rows = json.loads(otoscope("runs", "--json").stdout)
    assert [(row["id"], row["status"], row["step"]) for row in rows] == [
        ("kept-01", "finished", 300)
    ]
    assert len(connect(None).read("kept-01", "train").steps) == 300
    wait_until(lambda: json.loads(otoscope("show", "toy", "--json").stdout)["state"] == "healthy")


def test_recordings_without_a_server_are_taken_in_once(up, free_port, tmp_path):
    register_recording(record(tmp_path / "rec", "taken-01"))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "meta.json").write_text("{")
    register_recording(damaged)

    one = up("--port", str(free_port)).wait_until_ready()

    assert "taken-01 taken in, 300 samples" in one.said()
    assert f"{damaged} cannot be taken in" in one.said()
    assert [row.id for row in connect(None).runs()] == ["taken-01"]
    assert (tmp_path / "rec" / "meta.json").exists()


def test_up_uses_a_server_that_is_given(up, free_port, redis_url):
    one = up("--port", str(free_port), "--url", redis_url).wait_until_ready()

    assert set(one.children()) == {"daemon", "dashboard"}
    assert not (home_folder() / "redis").exists()
    assert one.end(signal.SIGINT) == 0
    assert connect(redis_url).runs() is not None


def test_a_proxy_in_the_environment_is_not_asked_for_the_page(up, free_port, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    up("--port", str(free_port)).wait_until_ready()


def test_an_unreachable_server_is_one_line(free_port):
    result = otoscope("up", "--url", f"redis://127.0.0.1:{free_port}/0", "--port", "8999")

    assert result.returncode == 1
    assert "no answer from the Redis server" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_home_folder_that_cannot_be_used_is_named_with_what_to_do(
    free_port, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OTOSCOPE_HOME", str(tmp_path / "file" / "home"))

    result = otoscope("up", "--port", str(free_port))

    assert result.returncode == 1
    assert "set OTOSCOPE_HOME" in result.stderr
    assert str(tmp_path / "file" / "home") in result.stderr


@pytest.mark.parametrize("odd", ["{", "[]", "{}", "null", '{"pid": "x"}', "typed"])
def test_an_address_file_that_holds_nonsense_is_as_none(odd, own_home):
    body = {
        "url": 5,
        "socket": "",
        "dashboard": None,
        "pid": None,
        "hostname": socket.gethostname(),
        "boot_id": boot_id(),
    }
    own_home.mkdir()
    (own_home / "server.json").write_text(json.dumps(body) if odd == "typed" else odd)

    assert read_address() is None


def test_ending_while_it_still_starts_leaves_nothing(up, free_port):
    one = up("--port", str(free_port))
    wait_until(lambda: "server" in one.said() or Path(home_folder() / "up.lock").exists())

    assert one.end(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert read_address() is None
    assert one.children() == {}


def test_the_demo_uses_what_is_up_already_and_leaves_it_running(up, free_port):
    one = up("--port", str(free_port)).wait_until_ready()

    with running_stack(None, Event_(), print) as stack:
        stack.check()
        assert stack.page == f"http://127.0.0.1:{free_port}"
        assert connect(stack.url).runs() == []

    assert set(one.children()) == {"server", "daemon", "dashboard"}
    assert read_address() is not None


def test_a_run_that_still_trains_to_disk_is_followed_until_it_ends(up, free_port, tmp_path):
    schema = Schema("train", (Column.of("loss"),))
    sink = RecordingSink(tmp_path / "rec", "followed-01")
    sink.begin_attempt("followed-01")
    sink.write_meta("followed-01", {"name": "followed"})
    sink.add_schema("followed-01", schema)
    values = np.ones(1, np.float32)
    frames = [Frame("train", 0, 1, step, 1e9, schema.hash, values) for step in range(1, 41)]
    sink.append("followed-01", frames[:10])
    register_recording(tmp_path / "rec")

    one = up("--port", str(free_port)).wait_until_ready()
    assert "recording  followed-01 taken in, 10 samples; it trains on and is followed" in one.said()
    sink.append("followed-01", frames[10:])
    ended = {"attempt": 1, "how": "finished", "t": 1e9, "reason": "max_steps"}
    sink.write_meta("followed-01", {"ended": ended})
    sink.close()
    wait_until(lambda: recordings() == [])

    found = connect(None).home.frames("followed-01", frames[0].stream)
    assert [frame.step for frame in found] == list(range(1, 41))


def test_the_end_of_a_run_that_another_server_has_is_left_for_it(redis_url, tmp_path):
    """A training whose server went away leaves its last samples on disk, known to this machine."""
    schema = Schema("train", (Column.of("loss"),))
    sink = RecordingSink(tmp_path / "rec", "torn-01")
    sink.write_meta("torn-01", {"name": "torn", "attempt": 1})
    sink.add_schema("torn-01", schema)
    values = np.ones(1, np.float32)
    frames = [Frame("train", 0, 1, step, 1e9, schema.hash, values) for step in range(1, 41)]
    sink.append("torn-01", frames[20:], [Event("finished", step=40)])
    sink.close()
    register_recording(tmp_path / "rec")
    said: list[str] = []
    intake, home = Intake(redis_url, Event_(), said.append), connect(redis_url).home
    try:
        intake.look()
        intake.look()
        assert [name for name, _ in home.run_ids() if name == "torn-01"] == []
        assert len(said) == 1 and "otoscope replay" in said[0]
        assert recordings() == [tmp_path / "rec"]

        home.write_meta("torn-01", {"name": "torn", "attempt": 1})
        home.append("torn-01", frames[:20])
        Intake(redis_url, Event_(), said.append).look()
        found = home.frames("torn-01", frames[0].stream)
        assert [frame.step for frame in found] == list(range(1, 41))
    finally:
        home.delete("torn-01")


def test_a_recording_of_a_killed_training_is_looked_for_no_longer_than_a_day(redis_url, tmp_path):
    folder = record(tmp_path / "killed-01", "killed-01", steps=5)
    meta = json.loads((folder / "meta.json").read_text())
    del meta["ended"]
    (folder / "meta.json").write_text(json.dumps(meta))
    register_recording(folder)
    home = connect(redis_url).home
    try:
        Intake(redis_url, Event_(), print).look()
        assert recordings() == [folder]
        for path in folder.iterdir():
            os.utime(path, (0, 0))
        Intake(redis_url, Event_(), print).look()
        assert recordings() == []
        assert len(home.frames("killed-01", StreamName("train", 0, 1))) == 5
    finally:
        home.delete("killed-01")
