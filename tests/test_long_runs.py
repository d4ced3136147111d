"""The long runs that are well: each can be trained, and what is said of a run is counted rightly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import long_runs
from benchmarks._long import TRAININGS


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_makes_steps_that_lower_its_loss(name: str) -> None:
    torch.manual_seed(0)
    training = TRAININGS[name]
    net = training.net()
    optimizer = training.optimizer(net)
    schedule = training.schedule and training.schedule(optimizer, 1000)
    held = training.held()
    stream, other = training.batches(training.batch, 0), training.batches(training.batch, 1)
    assert not torch.equal(next(stream)[0], next(other)[0]), "a seed of its own"

    def validated() -> float:
        with torch.no_grad():
            return float(training.loss(net.eval()(held[0]), held[1]))

    before = validated()
    for _ in range(60):
        x, y = next(stream)
        optimizer.zero_grad()
        training.loss(net.train()(x), y).backward()
        optimizer.step()
        if schedule:
            schedule.step()
    assert validated() < before


def test_a_run_is_recorded_judged_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_runs, "OUT", tmp_path)
    monkeypatch.setattr(long_runs, "VALIDATE_EVERY", 50)
    row = long_runs.one("regression", 0, "all", 200, fresh=False)
    assert row["judged"] > 5 and row["findings"] == []
    assert row["val_loss"][0] > row["val_loss"][1] > 0
    monkeypatch.setattr(long_runs, "train", None)  # it is kept
    assert long_runs.one("regression", 0, "all", 200, fresh=False) == row
