"""Which curve of a log is the loss, the rate, the norm or a score of a validation, where several are called so."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from otoscope.diagnostics.judging import judge
from otoscope.store import Store
from otoscope.store.foreign import read_foreign
from otoscope.store.log_names import signals


def hugging_face(path: Path, *, ends_badly: bool) -> Path:
    """Write `DataFrame(trainer.state.log_history).to_csv(path)`: 300 losses, 10 evaluations, a summary."""
    draw, history = np.random.default_rng(0), list[dict[str, float]]()
    for step in range(10, 3001, 10):
        loss = 2 * math.exp(-step / 300) + 0.5 + draw.normal(0, 0.03)
        loss = math.nan if ends_badly and step > 2600 else loss
        at = {"epoch": step / 300, "step": step}
        history.append({"loss": loss, "grad_norm": 1.1, "learning_rate": 1e-3} | at)
        if step % 300 == 0:
            history.append({"eval_loss": loss + 0.1, "eval_runtime": 1.2} | at)
    history.append({"train_runtime": 77.1, "train_loss": 0.9, "epoch": 10.0, "step": 3000})
    names = list(dict.fromkeys(name for row in history for name in row))
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["", *names])
        rows.writerows([i, *(row.get(name, "") for name in names)] for i, row in enumerate(history))
    return path


@pytest.mark.parametrize("ends_badly", [False, True])
def test_a_summary_at_the_end_is_not_taken_for_the_loss(tmp_path: Path, ends_badly: bool) -> None:
    log = read_foreign(hugging_face(tmp_path / "log.csv", ends_badly=ends_badly))
    store = Store(log.home, damage=log.damage)
    assert len(store.read(log.run, "train").steps) == 300
    assert "'loss' as loss" in log.damage[-1]
    rules = {finding["rule"] for finding in judge(store, log.run)["findings"]}
    assert ("non_finite" in rules) == ends_badly


@pytest.mark.parametrize(
    ("counts", "signal", "name"),
    [
        ({"loss": 300, "train_loss": 1}, "loss", "loss"),
        ({"loss": 300, "train_loss": 1, "train_loss_step": 2}, "loss", "loss"),
        ({"train_loss_epoch": 6, "train_loss_step": 300}, "loss", "train_loss_step"),
        ({"train_loss_epoch": 60, "train_loss_step": 6}, "loss", "train_loss_epoch"),
        ({"loss": 300, "train_loss": 160}, "loss", "train_loss"),  # about equally long
        ({"loss": 3, "lr": 1, "learning_rate": 300}, "lr", "learning_rate"),
        ({"loss": 3, "lr": 1, "lr-AdamW/pg1": 300}, "lr", "lr-AdamW/pg1"),
        ({"loss": 3, "lr": 200, "lr-AdamW/pg1": 300}, "lr", "lr"),
        ({"loss": 3, "grad_norm": 1, "total_grad_norm": 300}, "grad_norm", "total_grad_norm"),
        ({"loss": 3, "epoch": 1, "train/epoch": 300}, "epoch", "train/epoch"),
        ({"loss": 3, "val_loss": 1, "eval_loss": 30, "eval_acc": 30}, "val_loss", "eval_loss"),
        ({"loss": 3, "val_loss": 1, "eval_loss": 30, "eval_acc": 30}, "val_acc", "eval_acc"),
        ({"loss": 3, "val_loss": 1, "loss/val": 30}, "val_loss", "loss/val"),
        ({"loss": 3, "val_acc": 1, "valid_acc": 30, "test_loss": 1}, "val_acc", "valid_acc"),
        ({"loss": 3, "val_loss": 30, "test_loss": 30}, "val_loss", "val_loss"),
    ],
)  # fmt: skip
def test_of_several_names_that_are_known_the_longest_curve_counts(
    counts: dict[str, int], signal: str, name: str
) -> None:
    for names in (counts, dict(reversed(counts.items()))):
        curves = {name: dict.fromkeys(range(count), 1.0) for name, count in names.items()}
        assert signals(curves)[signal] == name


def test_scores_of_a_test_are_not_taken_where_a_validation_has_a_loss() -> None:
    counts = {"loss": 300, "val_loss": 6, "test_acc": 1, "test_loss": 1}
    curves = {name: dict.fromkeys(range(count), 1.0) for name, count in counts.items()}
    assert signals(curves) == {"loss": "loss", "val_loss": "val_loss"}
