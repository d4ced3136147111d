"""`otoscope replay`: recordings go into a store once, whatever state they are in."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from otoscope.cli.main import cli
from otoscope.store import Column, Frame, Schema, StreamName, connect
from otoscope.store.claims import claim, let_go
from otoscope.store.places import register_recording
from otoscope.store.recording import RecordingSink

from tests.cli.conftest import OTOSCOPE, otoscope, record
from tests.conftest import RedisProcess

pytestmark = pytest.mark.redis
TRAIN = StreamName("train", 0, 1)


def run(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def recorded(tmp_path: Path, redis_url: str):
    """A recording of 1,300 steps of a run that the server does not have yet."""
    name = f"replayed-{tmp_path.name.lower()}"[:79].rstrip("-_.")
    yield record(tmp_path / name, name, steps=1300), name
    connect(redis_url).home.delete(name)


def test_a_second_replay_changes_nothing(recorded, redis_url):
    folder, name = recorded
    first = json.loads(run("replay", folder, "--url", redis_url, "--json").stdout)
    home = connect(redis_url).home
    before = (home.run_ids(), home.meta(name), home.events(name))
    second = json.loads(run("replay", folder, "--url", redis_url, "--json").stdout)

    assert [(row["samples"], row["found"], row["events"]) for row in first] == [(1300, 1300, 2)]
    assert [(row["samples"], row["found"], row["events"]) for row in second] == [(0, 1300, 0)]
    assert (home.run_ids(), home.meta(name), home.events(name)) == before
    steps = [frame.step for frame in home.frames(name, TRAIN)]
    assert steps == list(range(1, 1301))


def test_a_folder_of_recordings_is_taken_in_whole(tmp_path, redis_url):
    for name in ("folder-a", "folder-b"):
        record(tmp_path / ".otoscope" / name, name, steps=20)
    result = run("replay", tmp_path / ".otoscope", "--url", redis_url)
    home = connect(redis_url).home
    try:
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "folder-a: 20 new samples, 2 new events",
            "folder-b: 20 new samples, 2 new events",
        ]
        assert {"folder-a", "folder-b"} <= {name for name, _ in home.run_ids()}
    finally:
        home.delete("folder-a")
        home.delete("folder-b")


def test_two_processes_that_replay_the_same_folder_at_once_store_each_sample_once(
    recorded, redis_url
):
    folder, name = recorded
    command = [*OTOSCOPE, "replay", str(folder), "--url", redis_url, "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=60)[0])[0] for process in both]

    home = connect(redis_url).home
    assert [frame.step for frame in home.frames(name, TRAIN)] == list(range(1, 1301))
    assert sum(answer["samples"] for answer in answers) == 1300
    assert len(home.events(name)) == 2


def test_one_folder_that_cannot_be_taken_in_does_not_stop_the_others(recorded, tmp_path, redis_url):
    folder, _ = recorded
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "meta.json").write_text("{")
    result = run("replay", tmp_path / "broken", folder, "--url", redis_url)

    assert result.exit_code == 1
    assert "broken: cannot read the recording" in result.stderr
    assert "no JSON at byte 1" in result.stderr
    assert "1300 new samples" in result.stdout


def test_damage_is_said_on_stderr_with_file_and_byte(recorded, redis_url):
    folder, name = recorded
    path = folder / "0-1-0.spool"
    path.write_bytes(path.read_bytes()[:-5])
    result = run("replay", folder, "--url", redis_url)

    assert result.exit_code == 0
    assert f"damaged: {path}: cut short" in result.stderr
    assert "; 1299 samples before it read" in result.stderr
    assert f"{name}: 1299 new samples" in result.stdout


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: path.mkdir(), "holds no recorded run"),
    ],
)
def test_what_is_no_recording_is_a_usage_error_that_says_what_to_give(tmp_path, make, said):
    make(tmp_path / "thing")
    result = run("replay", tmp_path / "thing", "--url", "redis://127.0.0.1:1/0")

    assert result.exit_code == 2
    assert said in result.stderr
    assert ".otoscope/<run id>" in result.stderr


def test_without_a_folder_it_names_those_that_are_known(tmp_path):
    assert "./.otoscope/<run id>" in run("replay").stderr
    register_recording(record(tmp_path / "known", "known-01", steps=3))
    result = run("replay")

    assert result.exit_code == 2
    assert str(tmp_path / "known") in result.stderr


def test_without_a_server_it_says_where_else(recorded):
    result = run("replay", recorded[0])

    assert result.exit_code == 1
    assert "nowhere to replay to" in result.stderr and "otoscope diagnose" in result.stderr


def test_no_server_is_1_and_names_the_remedy(recorded, free_port):
    folder, _ = recorded
    result = otoscope("replay", folder, "--url", f"redis://127.0.0.1:{free_port}/0")

    assert result.returncode == 1
    assert "otoscope up" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_one_that_is_ended_midway_is_gone_on_with(tmp_path, number):
    schema = Schema("train", tuple(Column.of("grad_sq", layer=f"l{i}") for i in range(1500)))
    sink = RecordingSink(tmp_path / "wide-01", "wide-01")
    sink.begin_attempt("wide-01")
    sink.add_schema("wide-01", schema)
    row, steps = np.ones(1500, np.float32), range(1, 6001)
    sink.append("wide-01", [Frame("train", 0, 1, step, 1e9, schema.hash, row) for step in steps])
    sink.close()
    (tmp_path / "redis").mkdir()
    server = RedisProcess(tmp_path / "redis").start()
    home = connect(server.url).home
    try:
        command = [*OTOSCOPE, "replay", str(tmp_path / "wide-01"), "--url", server.url]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while home.last_id("wide-01", TRAIN) is None:
            assert process.poll() is None
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)  # so that it cannot be faster than we are
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        server.process.send_signal(signal.SIGCONT)
        before = len(home.frames("wide-01", TRAIN))
        again = json.loads(
            run("replay", tmp_path / "wide-01", "--url", server.url, "--json").stdout
        )
    finally:
        server.stop()

    assert 0 < before < 6000
    assert again[0]["samples"] == 6000 - before
    if number == signal.SIGINT:
        assert (process.returncode, said.strip()) == (1, "Aborted!")


def test_what_a_living_training_will_send_by_itself_is_left_to_it(recorded, redis_url):
    folder, _ = recorded
    (folder / "rank-1").mkdir()
    claim(folder / "rank-1")
    assert run("replay", folder, "--url", redis_url).exit_code == 1
    let_go(folder / "rank-1")
    claim(folder)
    refused = run("replay", folder, "--url", redis_url)
    let_go(folder)

    assert refused.exit_code == 1
    assert "the training that recorded this lives" in refused.stderr
    assert "1300 new samples" in run("replay", folder, "--url", redis_url).stdout


def test_what_a_dead_one_left_is_taken_in(recorded, redis_url):
    folder, _ = recorded
    program = f"from otoscope.store.claims import claim; import pathlib; claim(pathlib.Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    assert (folder / ".waiting").exists()
    assert "1300 new samples" in run("replay", folder, "--url", redis_url).stdout
