"""Logs of other loggers on the command line: judged, compared and reported as far as they go."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from otoscope.cli.main import cli

from .conftest import record


def run(*arguments: str | Path):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def log(path: Path, losses: np.ndarray, header: str = "step,loss", more: str = "") -> Path:
    rows = "".join(f"{step},{loss}{more}\n" for step, loss in enumerate(losses))
    path.write_text(f"{header}\n{rows}", encoding="utf-8")
    return path


STEPS = np.arange(500)
SOUND = 0.3 + 2 * np.exp(-STEPS / 60) + 0.02 * np.sin(7.0 * STEPS)
CLIMBS = np.where(STEPS < 200, SOUND, 0.4 * 1.01 ** (STEPS - 200.0))


def test_a_loss_that_climbs_is_found_in_a_log_and_fails_a_pipeline(tmp_path: Path) -> None:
    path = log(tmp_path / "metrics.csv", CLIMBS, "step,loss,lr", ",0.1")
    result = run("diagnose", path, "--json", "--fail-on", "warning")
    answer = json.loads(result.stdout)
    assert result.exit_code == 3
    finding, *others = answer["findings"]
    assert finding["rule"] == "lr_too_high"
    assert all(other["id"] in finding["caused"] for other in others)
    advice = finding["recommendation"]
    assert (advice["parameter"], advice["current"], advice["proposed"]) == ("lr", 0.1, 0.03)
    assert "'loss' as loss, 'lr' as lr" in result.stderr


def test_where_the_log_does_not_hold_the_rate_a_factor_of_it_is_proposed(tmp_path: Path) -> None:
    path = log(tmp_path / "metrics.csv", CLIMBS)
    said = run("diagnose", path).stdout
    assert "the loss climbs, as where the learning rate is too high; set × 0.3" in said
    assert "nan" not in said and "not a number" not in said


def test_a_sound_log_is_healthy_and_what_it_does_not_hold_is_not_judged(tmp_path: Path) -> None:
    path = log(tmp_path / "metrics.csv", SOUND)
    result = run("diagnose", path, "--json", "--fail-on", "info")
    answer = json.loads(result.stdout)
    assert result.exit_code == 0
    assert answer["findings"] == []
    assert {"non_finite", "lr_too_high", "loss_spike", "plateau"} <= set(answer["judged"])
    for rule in ("dead_units", "stalled", "batch_too_small", "ill_conditioned", "wrong_head"):
        assert answer["not_judged"][rule] == "a log does not hold what it looks at"


def test_a_log_that_tells_too_little_for_any_rule_ends_with_4(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,val_loss\n10,0.5\n20,0.4\n", encoding="utf-8")
    assert run("diagnose", path, "--fail-on", "warning").exit_code == 4


def test_a_log_that_is_sparse_is_judged_from_its_first_row_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    rows = "".join(f"{10 * step + 9},{loss}\n" for step, loss in enumerate(CLIMBS))
    path.write_text(f"step,train_loss\n{rows}", encoding="utf-8")
    answer = json.loads(run("diagnose", path, "--json").stdout)
    assert answer["findings"][0]["rule"] == "lr_too_high"
    assert answer["findings"][0]["first_step"] > 2000


def test_logs_are_compared_and_reported(tmp_path: Path) -> None:
    sound, climbs = log(tmp_path / "a.csv", SOUND), log(tmp_path / "b.csv", CLIMBS)
    answer = json.loads(run("compare", sound, climbs, "--json").stdout)
    assert [item["state"] for item in answer["runs"]] == ["healthy", "needs_action"]
    page = tmp_path / "b.html"
    assert run("report", climbs, "-o", page).exit_code == 0
    said = page.read_text(encoding="utf-8")
    assert "the loss climbs" in said.lower()
    assert said.count("a log does not hold what it looks at") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["diagnose", "{}/none.csv"], 1, "is no folder or file here"),
        (["diagnose", "{}/words.csv"], 1, "--column loss=NAME"),
        (["diagnose", "{}/words.csv", "--column", "loss"], 2, "write SIGNAL=NAME"),
        (
            ["diagnose", "{}/words.csv", "--column", "colour=b"],
            2,
            "step, loss, lr, grad_norm, val_loss",
        ),
        (["show", "{}/words.csv"], 2, "use `otoscope diagnose"),
        (["rules", "--run", "{}/words.csv", "--set", "plateau.fire=1"], 2, "otoscope.toml"),
    ],
)
def test_what_cannot_be_done_with_a_log_is_said_without_a_traceback(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "words.csv").write_text("a,b\nx,1\n", encoding="utf-8")
    result = run(*(argument.format(tmp_path) for argument in arguments))
    assert result.exit_code == code, result.output
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_folder_of_several_runs_names_their_logs(tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / f"version_{number}").mkdir()
        log(tmp_path / f"version_{number}" / "metrics.csv", SOUND)
    result = run("diagnose", tmp_path)
    assert result.exit_code == 1
    assert "holds no recording; logs below it:" in " ".join(result.stderr.split())
    assert "recorded run" not in result.stderr
    assert "version_1/metrics.csv" in "".join(result.stderr.split("\n"))


def test_a_csv_file_below_a_folder_is_not_called_a_run(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(7):
        (tmp_path / "data" / f"{number}.csv").write_text("sepal,petal\n1,2\n", encoding="utf-8")
    result = run("diagnose", tmp_path)
    said = "".join(result.stderr.split())
    assert result.exit_code == 1
    assert "holdsnorecording;logsbelowit:" in said
    assert "data/6.csv" in said and "data/1.csv" not in said and said.endswith(",…")


def test_what_a_lightning_trainer_logged_is_judged(tmp_path: Path) -> None:
    """Its CSV logger, and TensorBoard's event files, of one training whose rate is far too high."""
    pytest.importorskip("tensorboard")
    torch = pytest.importorskip("torch")
    lightning = pytest.importorskip("pytorch_lightning")
    loggers = pytest.importorskip("pytorch_lightning.loggers")

    class Linear(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 1)

        def training_step(self, batch, place):
            loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1.3)

    torch.manual_seed(0)
    x = torch.randn(512, 8)
    data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    written = [loggers.CSVLogger(tmp_path, "csv"), loggers.TensorBoardLogger(tmp_path, "tb")]
    rates = lightning.callbacks.LearningRateMonitor()
    lightning.Trainer(
        max_epochs=12, logger=written, callbacks=[rates], log_every_n_steps=1, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    ).fit(Linear(), torch.utils.data.DataLoader(data, 32))  # fmt: skip
    for folder in ("csv/version_0", "tb/version_0"):
        answer = json.loads(run("diagnose", tmp_path / folder, "--json").stdout)
        rules = {finding["rule"] for finding in answer["findings"]}
        assert rules & {"lr_too_high", "non_finite"}, (folder, answer["verdict"])
        rate = next(f["recommendation"]["current"] for f in answer["findings"])
        assert rate is None or math.isclose(rate, 1.3, rel_tol=1e-4)


def test_a_log_beside_another_tools_meta_is_read_and_its_folder_alone_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("theirs").mkdir()
    Path("theirs", "meta.json").write_text('{"run": "exp-1", "host": "here"}')
    for name in ("theirs", "./theirs"):
        result = run("diagnose", name)
        assert result.exit_code != 0
        assert "its meta.json is not one that Otoscope wrote" in result.stderr
    log(Path("theirs", "metrics.csv"), CLIMBS, "step,loss,lr", ",0.1")
    answer = json.loads(run("diagnose", "theirs", "--json").stdout)
    assert answer["findings"][0]["rule"] == "lr_too_high"


def test_a_project_whose_runs_lie_beside_it_is_told_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record(tmp_path / ".otoscope" / "toy-01", "toy-01")
    assert "name one: .otoscope/toy-01" in run("diagnose", ".").stderr
