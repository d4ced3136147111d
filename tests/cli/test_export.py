"""`otoscope export`: CSV and Parquet hold what the store holds, whole or not at all."""

import csv
import json
import os
import pty
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from otoscope.cli.main import cli
from otoscope.store import Column, Frame, Schema, connect
from otoscope.store.recording import RecordingSink

from tests.cli.conftest import OTOSCOPE, otoscope, record, wait_until

NAMES = ("loss", "lr", "wait_seconds")


def run(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def odd_run(directory: Path) -> Path:
    """A run of three families with NaN, both infinities and a number that needs all its digits."""
    sink = RecordingSink(directory, "odd-01")
    sink.begin_attempt("odd-01")
    sink.write_meta("odd-01", {"name": "odd", "started": 1000.0})
    units = {"wait_seconds": "s"}
    rows = np.array(
        [[0.1, np.nan, 1e-38], [np.inf, 0.3, 2.0], [-np.inf, 1 / 3, 16777217.0]], np.float32
    )
    for family in ("train", "validation", "noise"):
        columns = tuple(Column.of(name, unit=units.get(name, "")) for name in NAMES)
        columns = columns if family == "train" else columns[:2]
        schema = Schema(family, columns)
        sink.add_schema("odd-01", schema)
        sink.append(
            "odd-01",
            [
                Frame(family, 0, 1, step, 1e9 + step / 4, schema.hash, row[: len(columns)].copy())
                for step, row in enumerate(rows, 1)
            ],
        )
    sink.close()
    return directory


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    return odd_run(tmp_path / "odd")


def test_csv_reads_back_to_the_same_numbers(odd, tmp_path):
    result = run("export", odd, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        header, *rows = csv.reader(file)

    expected = connect(odd).read("odd-01", "train").values
    assert result.exit_code == 0
    assert header == ["step", "time", "attempt", *NAMES]
    assert [row[:3] for row in rows[:2]] == [
        ["1", "2001-09-09T01:46:40.250000Z", "1"],
        ["2", "2001-09-09T01:46:40.500000Z", "1"],
    ]
    np.testing.assert_array_equal(np.array([row[3:] for row in rows], np.float32), expected)
    assert [row[3] for row in rows] == ["0.1", "inf", "-inf"]
    assert rows[0][4] == "NaN"


def test_parquet_reads_back_to_the_same_numbers_with_types_and_units(odd, tmp_path):
    result = run("export", odd, tmp_path / "t.parquet", "--json")
    table = pq.read_table(tmp_path / "t.parquet")

    assert {k: json.loads(result.stdout)[k] for k in ("rows", "columns", "first_step")} == {
        "rows": 3,
        "columns": list(NAMES),
        "first_step": 1,
    }
    assert [str(field.type) for field in table.schema] == [
        *("int64", "timestamp[us, tz=UTC]", "int32"),
        *["float"] * 3,
    ]
    assert table.schema.field("wait_seconds").metadata == {b"unit": b"s"}
    assert table.schema.metadata[b"otoscope.run"] == b"odd-01"
    values = np.stack([table[name].to_numpy() for name in NAMES], axis=1)
    np.testing.assert_array_equal(values, connect(odd).read("odd-01", "train").values)
    assert table["time"][0].as_py().isoformat() == "2001-09-09T01:46:40.250000+00:00"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_folder_takes_every_family_a_file_each(odd, tmp_path, kind):
    result = run("export", odd, tmp_path / "out", "--format", kind)

    assert result.exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{family}.{kind}" for family in ("noise", "train", "validation")]


def test_of_every_family_those_without_the_column_are_left_out(odd, tmp_path):
    run("export", odd, tmp_path / "out", "--columns", "wait_seconds")

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train.csv"]


def test_stdout_takes_csv_of_the_chosen_columns_and_steps(odd):
    result = run("export", odd, "-", "--columns", "lr,l*s", "--from", 2, "--to", 2)

    assert result.stdout.splitlines() == [
        "step,time,attempt,lr,loss",
        "2,2001-09-09T01:46:40.500000Z,1,0.3,inf",
    ]
    assert result.stderr == ""


def test_points_bring_the_extremes_beside_the_mean(healthy):
    result = run("export", healthy, "-", "--columns", "loss", "--points", 10)

    header, *rows = csv.reader(result.stdout.splitlines())
    assert header[3:] == ["loss", "loss:low", "loss:high"]
    assert len(rows) == 10
    assert all(float(low) <= float(mean) <= float(high) for *_, mean, low, high in rows)


@pytest.mark.redis
def test_a_run_of_a_server_is_exported_by_its_name(healthy, tmp_path, redis_url):
    name = f"served-{tmp_path.name.lower()}"[:70].strip("-_")
    record(tmp_path / name, name, steps=30)
    assert run("replay", tmp_path / name, "--url", redis_url).exit_code == 0
    try:
        result = run("export", name, tmp_path / "t.csv", "--url", redis_url)
        assert f"{tmp_path / 't.csv'}: 30 rows, 3 columns, steps 1 to 30" in result.stdout
    finally:
        connect(redis_url).home.delete(name)


def test_a_file_that_exists_is_replaced_only_with_force(odd, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("mine")
    refused = run("export", odd, path)

    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert path.read_text() == "mine"
    assert run("export", odd, path, "--force").exit_code == 0
    assert path.read_text().startswith("step,time,attempt")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["t.csv", "--family", "nothing"], 1, "it has train, noise, validation"),
        (["t.csv", "--columns", "lozz"], 1, "it has 3: loss, lr, wait_seconds"),
        (["t.csv", "--from", "9"], 1, "from step 1 to 3"),
        (["t.csv", "--rank", "3"], 1, "from rank 0"),
        (["t.csv", "--attempt", "2"], 1, "from attempt 1"),
        (["t.csv", "--from", "3", "--to", "2"], 2, "lies behind --to 2"),
        (["t.csv", "--from", "-1"], 2, "--from"),
        (["t.csv", "--points", "0"], 2, "--points"),
        (["t.txt"], 2, "neither .csv nor .parquet"),
        (["t.csv", "--family", "train", "--family", "noise"], 2, "name a folder: t/"),
        (["-", "--family", "train", "--family", "noise"], 2, "stdout takes one family"),
        (["-", "--format", "parquet"], 2, "stdout takes CSV"),
        (["-", "--json"], 2, "both go to stdout"),
        (["no/such/t.csv"], 2, "does not exist"),
        (["/dev/full"], 2, "neither .csv nor .parquet"),
        (["/dev/full", "--format", "csv"], 1, "No space left on device; free some space"),
    ],
)
def test_what_cannot_be_exported_is_said_and_leaves_no_file(
    odd, tmp_path, monkeypatch, arguments, code, said
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = run("export", odd, *arguments)

    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert list((tmp_path / "here").iterdir()) == []


def test_a_pipe_is_written_to_as_it_is(odd, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE) as reader:
        result = run("export", odd, tmp_path / "pipe", "--format", "csv")
        assert reader.stdout is not None
        assert reader.stdout.read().startswith(b"step,time,attempt,loss")
    assert result.exit_code == 0


def test_a_terminal_sees_a_progress_bar(healthy, tmp_path):
    terminal, theirs = pty.openpty()
    try:
        command = [*OTOSCOPE, "export", str(healthy), str(tmp_path / "t.csv")]
        subprocess.run(command, stderr=theirs, stdout=subprocess.DEVNULL, timeout=60, check=True)
        shown = os.read(terminal, 10_000)
    finally:
        os.close(terminal)
        os.close(theirs)

    assert b"train" in shown and b"300/300" in shown


def test_without_pyarrow_the_error_names_the_command_that_installs_it(odd, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("export", odd, tmp_path / "t.parquet")

    assert result.exit_code == 1
    assert "pip install 'otoscope[parquet]'" in result.stderr


def test_a_full_disk_is_said_and_leaves_no_file(healthy, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    result = subprocess.run(
        [*OTOSCOPE, "export", str(healthy), str(folder / "t.csv")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )

    assert result.returncode == 1
    assert "nothing was written" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(folder.iterdir()) == []


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A run whose export takes seconds: 3,000 steps of 1,500 columns."""
    schema = Schema("train", tuple(Column.of("grad_sq", layer=f"l{i}") for i in range(1500)))
    sink = RecordingSink(tmp_path / "wide", "wide-01")
    sink.begin_attempt("wide-01")
    sink.add_schema("wide-01", schema)
    values = np.random.default_rng(0).random((3000, 1500), np.float32)
    frames = [Frame("train", 0, 1, i + 1, 1e9, schema.hash, row) for i, row in enumerate(values)]
    sink.append("wide-01", frames)
    sink.close()
    return tmp_path / "wide"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_without_a_traceback_or_half_a_file(wide, tmp_path, number):
    folder = tmp_path / "out"
    folder.mkdir()
    process = subprocess.Popen(
        [*OTOSCOPE, "export", str(wide), str(folder / "t.csv")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: [path for path in folder.iterdir() if path.stat().st_size])
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (1, "")
    assert err.strip() == "Aborted!"
    assert list(folder.iterdir()) == []


def test_a_reader_that_has_enough_ends_it_quietly(wide):
    with subprocess.Popen(
        [*OTOSCOPE, "export", str(wide), "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(20) == b"step,time,attempt,gr"
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_nothing_but_the_file_name_is_said_in_a_pipe(healthy, tmp_path):
    result = otoscope("export", healthy, tmp_path / "t.csv")

    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1
