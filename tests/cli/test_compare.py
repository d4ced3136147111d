"""`otoscope compare`: what tells two runs apart, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from otoscope.cli.main import cli
from otoscope.store import Column, Frame, Schema, connect
from otoscope.store.recording import RecordingSink

from tests.cli.conftest import record


def compare(*arguments: str | Path):
    return CliRunner().invoke(cli, ["compare", *map(str, arguments)])


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two recordings that differ in the rate, the batch and what happened."""
    folders = (tmp_path / "calm", tmp_path / "torn")
    for folder, rate, batch, bad in zip(folders, (0.1, 0.4), (32, 64), (None, 150), strict=True):
        record(folder, f"{folder.name}-01", bad_from=bad)
        sink = RecordingSink(folder, f"{folder.name}-01")
        optimizer = {"name": "SGD", "lr": rate, "momentum": 0.9}
        sink.write_meta(
            f"{folder.name}-01", {"optimizers": [optimizer], "batch_size": batch, "classes": 10}
        )
        sink.close()
    return folders


def test_only_what_differs_is_listed_with_each_runs_findings(pair):
    answer = json.loads(compare(*pair, "--json").stdout)

    assert answer["settings"] == {"batch_size": [32, 64], "lr": [0.1, 0.4]}
    assert [row["run"] for row in answer["runs"]] == ["calm-01", "torn-01"]
    assert answer["findings"] == {"all": [], "some": {"non_finite": [False, True]}}
    assert answer["runs"][1]["findings"][0]["severity"] == "critical"
    assert [row["state"] for row in answer["runs"]] == ["healthy", "needs_action"]
    assert answer["runs"][0]["loss"]["best"] == connect(pair[0]).runs()[0].loss_best


def test_a_comparison_reads_as_a_table_with_the_verdicts_below_it(pair):
    said = compare(*pair).stdout

    row = next(line for line in said.splitlines() if line.startswith(" lr"))
    assert row.split() == ["lr", "0.1", "0.4"]
    assert "momentum" not in said and "classes" not in said
    assert "✖ critical non_finite (step 150)" in said
    assert "torn-01: Needs action" in said


def test_the_validation_loss_is_not_the_training_loss_that_was_logged_beside_it(pair):
    schema = Schema("validation", tuple(Column(name, name) for name in ("train_loss", "val_loss")))
    for folder in pair:
        sink = RecordingSink(folder, f"{folder.name}-01")
        sink.add_schema(f"{folder.name}-01", schema)
        rows = [np.array([0.1, loss], dtype=np.float32) for loss in (0.5, 0.75)]
        frames = [
            Frame("validation", 0, 1, step, 1000.0 + step, schema.hash, row)
            for step, row in zip((100, 200), rows, strict=True)
        ]
        sink.append(f"{folder.name}-01", frames)
        sink.close()

    for row in json.loads(compare(*pair, "--json").stdout)["runs"]:
        assert row["validation"] == {"name": "val_loss", "last": 0.75, "best": 0.5}


def test_a_run_differs_in_nothing_from_itself(healthy):
    answer = json.loads(compare(healthy, healthy, "--json").stdout)

    assert answer["settings"] == {} and answer["findings"]["some"] == {}
    assert "the same" in compare(healthy, healthy).stdout


def test_one_run_alone_and_eleven_are_wrong_usage(healthy):
    for count in (1, 11):
        result = compare(*[healthy] * count)
        assert result.exit_code == 2
        assert f"2 to 10 runs to compare, got {count}" in result.stderr


def test_a_log_without_a_row_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\n")
    result = compare(tmp_path / "log.csv", tmp_path / "log.csv")
    assert result.exit_code == 1
    assert "names its columns and holds no row yet" in result.output
