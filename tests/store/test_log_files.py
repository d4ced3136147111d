"""Logs that others wrote, read as runs: CSV files of several loggers, and TensorBoard's event files."""

from __future__ import annotations

import csv
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from otoscope.store import MissingExtraError, Store, UnreadableLogError, connect
from otoscope.store.foreign import read_foreign


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, **columns: str) -> tuple[Store, str, list[str]]:
    log = read_foreign(path, columns)
    return Store(log.home, damage=log.damage), log.run, log.damage


def curve(store: Store, run: str, name: str, family: str = "train") -> list[float]:
    return [round(float(value), 5) for value in store.read(run, family).column(name)]


def test_lightnings_csv_is_read_with_its_rates_and_validations(tmp_path: Path) -> None:
    """It writes a row for what is logged at a time, and counts steps from 0."""
    path = written(
        tmp_path / "metrics.csv",
        "epoch,lr-SGD,step,train_loss_epoch,train_loss_step,val_acc,val_loss\n"
        ",0.1,0,,,,\n0,,0,,2.3,,\n0,,1,,2.1,,\n0,,1,,,0.5,2.2\n,0.01,2,,,,\n0,,1,2.2,,,\n1,,2,,1.9,,\n",
    )
    store, run, told = read(path)
    assert list(store.read(run, "train").steps) == [1, 2, 3]
    assert curve(store, run, "loss") == [2.3, 2.1, 1.9]
    assert curve(store, run, "lr") == [0.1, 0.1, 0.01]
    assert curve(store, run, "epoch") == [0, 0, 1]
    assert curve(store, run, "val_loss", "validation") == [2.2]
    assert curve(store, run, "val_acc", "validation") == [0.5]
    assert "'train_loss_step' as loss" in told[-1]


@pytest.mark.parametrize(
    ("text", "losses"),
    [
        ("step;loss\n1;0,5\n2;0,25\n", [0.5, 0.25]),
        ("\n \nstep;loss\n1;0,5\n2;0,25\n", [0.5, 0.25]),
        ("step,note,loss\n1,a\u2028b\x1cc,0.5\n2,,0.25\n", [0.5, 0.25]),  # no ends of lines
        ("step,loss\r1,0.5\r2,0.25\r", [0.5, 0.25]),
        ("\ufeffStep,Loss\r\n1,0.5\r\n2,0.25\r\n", [0.5, 0.25]),
        ("global_step\ttrain/loss\n10\t0.5\n20\t0.25\n", [0.5, 0.25]),
        (
            "Step,run-1 - loss,run-1 - loss__MIN,run-1 - loss__MAX\n1,0.5,0,1\n2,0.25,0,1\n",
            [0.5, 0.25],
        ),
        ("epoch,accuracy,loss\n0,0.1,0.5\n1,0.2,0.25\n", [0.5, 0.25]),
        ("step,loss\n2,0.25\n1,0.9\n1,0.5\n", [0.5, 0.25]),  # out of order, and one step twice
        ("step,loss,note\n1,0.5,begin\n\n2,0.25,end\nlast,0.1,\n", [0.5, 0.25]),
        (
            "epoch,batch,loss\n0,0,0.5\n0,1,0.4\n1,0,0.3\n1,1,0.2\n2,0,0.1\n",
            [0.5, 0.4, 0.3, 0.2, 0.1],
        ),
        (
            "step,my_loss,speed\n1,0.5,3\n2,0.25,3\n",
            [0.5, 0.25],
        ),  # the only one that is called a loss
    ],
)
def test_what_loggers_write_is_read_whatever_the_delimiter_and_the_names(
    tmp_path: Path, text: str, losses: list[float]
) -> None:
    store, run, _ = read(written(tmp_path / "log.csv", text))
    assert curve(store, run, "loss") == losses


def test_what_was_read_otherwise_than_it_stands_is_told(tmp_path: Path) -> None:
    text = "step,loss\n1,0.9\n1,0.5\nx,0.3\n2,high\n"
    told = read(written(tmp_path / "log.csv", text))[2]
    assert told[0] == "1 row without a step was left out"
    assert told[1] == "1 value came again for its step: the last one counts"
    assert told[2] == "1 value of 'loss' is no number"


def test_a_loss_that_is_written_as_nan_is_none_that_was_not_logged(tmp_path: Path) -> None:
    text = "step,loss,grad_norm\n1,0.5,2\n2,,\n3,nan,\n4,inf,nan\n"
    store, run, _ = read(written(tmp_path / "log.csv", text))
    train = store.read(run, "train")
    assert list(train.steps) == [1, 3, 4]
    assert list(train.column("non_finite")) == [0, 1, 1]
    squares = train.column("grad_sq")
    assert squares[0] == 4 and math.isnan(squares[1])


def test_a_column_can_be_named(tmp_path: Path) -> None:
    path = written(
        tmp_path / "log.csv", "t,objective_a,objective_b,eta\n5,1,0.5,0.1\n6,1,0.25,0.1\n"
    )
    store, run, _ = read(path, step="t", loss="objective_b", lr="eta")
    assert list(store.read(run, "train").steps) == [5, 6]
    assert curve(store, run, "loss") == [0.5, 0.25]
    assert curve(store, run, "lr") == [0.1, 0.1]


@pytest.mark.parametrize(
    ("name", "content", "columns", "words"),
    [
        ("log.csv", b"", {}, "is empty: no line has been logged"),
        ("log.csv", b"\x89PNG\x00\x00\x01", {}, "neither a CSV file nor a TensorBoard event file"),
        ("log.csv", b"\xef\xbb\xbf", {}, "is empty: no line has been logged"),
        ("log.csv", b"\x1c\x1d\n", {}, "is empty: no line has been logged"),
        ("log.csv", "\u2028".encode(), {}, "is empty: no line has been logged"),
        ("log.csv", b",,,\n,,,\n", {}, "is empty: no line has been logged"),
        ("log.csv", b"1,2\n3,4\n", {}, "names no columns"),
        ("log.csv", b"step,accuracy\n1,0.5\n", {}, "it has accuracy.*--column loss=NAME"),
        ("log.csv", b"step,a_loss,b_loss\n1,1,2\n", {}, "it has a_loss, b_loss"),
        ("log.csv", b"step,loss\n1,x\n", {}, "no column of numbers"),
        ("log.csv", b"step,loss\n1,2\n", {"loss": "los"}, "no column 'los'.*it has loss"),
        ("log.csv", b"step,loss\n1,2\n", {"step": "t"}, "has no column 't'; it has step, loss"),
    ],
)
def test_a_file_that_tells_of_no_loss_is_refused_with_what_it_has(
    tmp_path: Path, name: str, content: bytes, columns: dict[str, str], words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableLogError, match=words):
        read_foreign(tmp_path / name, columns)


def test_whatever_a_file_holds_it_is_read_or_refused_in_our_words(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    parts = ["step", "loss", "1e200", "1e400", "-1", "7", "0.5", "nan", "0,5", "word", "9" * 400]
    parts += ["", " ", '"', "\ufeff", "\x1c", "\u2028", "\x85"]
    read_ones = 0
    for _ in range(400):
        table = ["step,loss,epoch,grad_norm,lr,val_loss"] if draw.random() < 0.7 else []
        for _ in range(draw.integers(0, 12)):
            table.append(
                draw.choice([",", ",", ";", "|"]).join(draw.choice(parts, draw.integers(1, 7)))
            )
        path = written(tmp_path / "log.csv", draw.choice(["\n", "\r\n", "\r"]).join(table))
        try:
            store, run, _ = read(path)
        except UnreadableLogError:
            continue
        read_ones += bool(store.meta(run).progress)
    assert 30 < read_ones < 370


@pytest.mark.parametrize(
    ("row", "bad"),
    [
        ("1e40,1,0.1", 1),  # more than a number of 32 bits holds, of which every value is one
        ("-1e300,1,0.1", 1),
        ("0.5,1e25,0.1", 1),
        ("0.5,1e200,0.1", 1),
        ("0.5,1e15,0.1", 0),
        ("1e30,1,0.1", 0),
        ("0.5,1,1e300", 0),  # neither a loss nor a norm
    ],
)
def test_a_number_that_is_too_large_is_none_that_is_finite(
    tmp_path: Path, row: str, bad: int
) -> None:
    path = written(
        tmp_path / "log.csv", f"step,loss,grad_norm,lr,val_loss\n1,2,1,0.1,1e300\n2,{row},\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store, run, _ = read(path)
    assert list(store.read(run, "train").column("non_finite")) == [0, bad]
    known = store.meta(run).progress
    assert math.isfinite(np.float32(known["loss"])) and known["loss_best"] > -1e30


def test_a_folder_is_read_where_it_holds_one_log(tmp_path: Path) -> None:
    (tmp_path / "version_0").mkdir()
    written(tmp_path / "version_0" / "metrics.csv", "step,loss\n1,0.5\n")
    store = connect(tmp_path / "version_0")
    assert [info.id for info in store.runs()] == ["version_0-metrics"]
    written(tmp_path / "version_0" / "other.csv", "step,loss\n1,0.5\n")
    with pytest.raises(UnreadableLogError, match=r"holds 2 logs; name one: .*metrics\.csv"):
        read_foreign(tmp_path / "version_0")


def test_tensorboards_event_files_are_read(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(tmp_path / "tb")) as writer:
        for step in range(5):
            writer.add_scalar("train/loss", 1 / (step + 1), step)
            writer.add_scalar("train/grad_norm", 3.0, step)
        writer.add_scalar("eval/loss", 0.7, 4)
        writer.add_scalar("eval/runtime", 0.7, 4)
        writer.add_histogram("weights", np.ones(3), 1)
    store, run, told = read(tmp_path / "tb")
    assert run == "tb"
    assert list(store.read(run, "train").steps) == [1, 2, 3, 4, 5]
    assert curve(store, run, "grad_sq") == [9.0] * 5
    assert store.read(run, "validation").columns == ["val_loss"]
    assert "'train/loss' as loss" in told[-1]
    (file,) = (tmp_path / "tb").iterdir()
    file.write_bytes(file.read_bytes()[:-7])  # cut off, as by a kill
    assert len(read(file)[0].read("tb-events", "train").steps) == 5
    file.write_bytes(b"no events")
    with pytest.raises(UnreadableLogError, match="no scalar that can be read"):
        read_foreign(file)


def test_without_the_package_the_command_that_brings_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    path = written(tmp_path / "events.out.tfevents.1", "")
    with pytest.raises(MissingExtraError, match=r"pip install 'otoscope\[tensorboard\]'"):
        read_foreign(path)


def test_a_rate_that_was_raised_is_told_as_one(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss", "lr"])
        rows.writerows([step, 1.0, 0.1 if step < 30 else 1.0] for step in range(1, 60))
    store, run, _ = read(path)
    (event,) = [event for event in store.events(run) if event.kind == "lr"]
    assert (event.step, event.body["from"], event.body["to"]) == (30, 0.1, 1.0)
