"""`otoscope prune`: what it lists, what it deletes, and what it never does."""

import json
import os
import pty
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from otoscope.cli.main import cli
from otoscope.store import connect
from otoscope.store.claims import claim, let_go
from otoscope.store.places import recordings, register_recording
from otoscope.store.recording import RecordingSink
from otoscope.store.replaying import replay

from tests.cli.conftest import OTOSCOPE, record
from tests.conftest import RedisProcess


def run(*arguments: object):
    return CliRunner().invoke(cli, ["prune", *map(str, arguments)])


@pytest.fixture
def server(tmp_path: Path):
    """A server of the test's own with three runs that ended long ago, and one that trains."""
    (tmp_path / "redis").mkdir()
    server = RedisProcess(tmp_path / "redis").start()
    home = connect(server.url).home
    for name in ("old-1", "old-2", "old-3"):
        replay(record(tmp_path / name, name, steps=30), home)
    home.begin_attempt("live-1")
    home.write_meta("live-1", {"name": "live", "started": time.time(), "tags": ["old"]})
    yield server
    server.stop()


def ids(server: RedisProcess) -> set[str]:
    return {info.id for info in connect(server.url).runs()}


pytestmark = pytest.mark.redis


def test_a_dry_run_lists_what_would_go_with_sizes_and_deletes_nothing(server):
    result = run("--older-than", "30d", "--dry-run", "--json", "--url", server.url)
    rows = json.loads(result.stdout)

    assert result.exit_code == 0
    assert sorted(row["run"] for row in rows) == ["old-1", "old-2", "old-3"]
    assert all(row["bytes"] > 2000 and not row["deleted"] for row in rows)
    assert ids(server) == {"old-1", "old-2", "old-3", "live-1"}
    shown = run("--older-than", "30d", "--dry-run", "--url", server.url).stdout
    assert "3 runs" in shown and "would be deleted" in shown and "old-2" in shown


def test_nothing_of_a_deleted_run_is_left_and_the_others_are_whole(server):
    client: Any = redis.Redis.from_url(server.url)
    before = {key for key in client.keys("*") if b"{old-2}" not in key}
    result = run("old-2", "--yes", "--url", server.url)

    assert result.exit_code == 0
    assert "1 run" in result.stdout
    assert set(client.keys("*")) == before
    assert client.zrange("otoscope:runs", 0, -1) == [b"old-1", b"old-3", b"live-1"]


def test_a_run_that_trains_is_never_deleted(server):
    named = run("live-1", "--yes", "--url", server.url)
    everything = run("--keep-last", 0, "--yes", "--url", server.url)

    assert named.exit_code == 1
    assert "live-1 is live" in named.stderr
    assert everything.exit_code == 0
    assert ids(server) == {"live-1"}


def test_where_nobody_can_be_asked_it_wants_yes(server):
    result = run("--keep-last", 1, "--url", server.url)

    assert result.exit_code == 2
    assert "2 runs would be deleted" in result.stderr and "--yes" in result.stderr
    assert len(ids(server)) == 4


@pytest.mark.parametrize(("answer", "left"), [("y", 2), ("n", 4)])
def test_on_a_terminal_it_asks(server, answer, left):
    terminal, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*OTOSCOPE, "prune", "--keep-last", "1", "--url", server.url],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        os.write(terminal, f"{answer}\n".encode())
        said = process.communicate(timeout=60)[0]
    finally:
        os.close(terminal)
        os.close(theirs)

    assert "Delete them for good?" in said
    assert process.returncode == (0 if answer == "y" else 1)
    assert len(ids(server)) == left


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "say which runs"),
        (["--older-than", "soon"], 2, "write 90min, 12h, 30d or 4w"),
        (["--keep-last", "-1"], 2, "--keep-last"),
        (["nobody"], 1, "no run 'nobody'"),
        (["old-*"], 2, "use --name 'old-*'"),
        (["old"], 1, "may mean 3 runs"),
    ],
)
def test_wrong_input_is_named_and_deletes_nothing(server, arguments, code, said):
    result = run(*arguments, "--yes", "--url", server.url)

    assert result.exit_code == code
    assert said in result.stderr
    assert len(ids(server)) == 4


def test_where_nothing_meets_the_conditions_it_says_so(server):
    assert "No run meets" in run("--name", "zzz", "--url", server.url).stdout
    assert json.loads(run("--name", "zzz", "--json", "--url", server.url).stdout) == []


def test_recordings_go_too_and_nothing_else_in_their_folder(tmp_path):
    for name in ("disk-1", "disk-2"):
        register_recording(record(tmp_path / name, name, steps=5))
    (tmp_path / "disk-1" / "notes.txt").write_text("mine")
    sink = RecordingSink(tmp_path / "disk-3", "disk-3")
    sink.begin_attempt("disk-3")
    sink.write_meta("disk-3", {"heartbeat": {"0": time.time()}})
    sink.close()
    register_recording(tmp_path / "disk-3")
    result = run("--older-than", "1d", "--recordings", "--yes", "--json")

    assert result.exit_code == 0
    assert [(row["run"], row["deleted"]) for row in json.loads(result.stdout)] == [
        ("disk-1", True),
        ("disk-2", True),
    ]
    assert [path.name for path in (tmp_path / "disk-1").iterdir()] == ["notes.txt"]
    assert not (tmp_path / "disk-2").exists()
    assert recordings() == [tmp_path / "disk-3"]


def test_samples_that_a_living_training_will_send_are_never_deleted(tmp_path):
    folder = register_and_claim(record(tmp_path / "spool-1", "spool-1", steps=5))
    spared = run("--older-than", "1d", "--recordings", "--yes", "--json")
    assert json.loads(spared.stdout) == [] and folder.is_dir()

    let_go(folder)
    gone = run("--older-than", "1d", "--recordings", "--yes", "--json")
    assert [row["run"] for row in json.loads(gone.stdout)] == ["spool-1"] and not folder.exists()


def register_and_claim(folder: Path) -> Path:
    register_recording(folder)
    claim(folder)
    return folder


def test_without_rights_to_ask_for_sizes_they_are_unknown(server):
    client = redis.Redis.from_url(server.url)
    client.execute_command("ACL", "SETUSER", "small", "on", ">pw", "~*", "+@all", "-memory")
    url = server.url.replace("redis://", "redis://small:pw@")
    rows = json.loads(run("old-1", "--dry-run", "--json", "--url", url).stdout)

    assert [row["bytes"] for row in rows] == [None]
