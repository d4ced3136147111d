"""Steps of logs that begin anew: with each epoch, with each start of a run, or with each process that writes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from otoscope.diagnostics.judging import judge
from otoscope.store import Store
from otoscope.store.foreign import read_foreign

Rows = Iterable[Sequence[object]]
AGAIN = "as where a run was started again or several processes write"
EPOCHS = "begins anew with each epoch: each row counts as one step"
UNSURE = "epochs and starts of a run cannot be told apart"


def sound(step: int, seed: int = 0) -> float:
    noise = np.random.default_rng([seed, step]).normal(0, 0.02)
    return round(0.3 + 2.3 * float(np.exp(-step / 80)) + float(noise), 4)


def read(path: Path, names: str, rows: Rows, **columns: str) -> tuple[Store, str, str]:
    with (path / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names.split(","), *rows])
    log = read_foreign(path / "log.csv", columns)
    return Store(log.home, damage=log.damage), log.run, "; ".join(log.damage)


def losses(store: Store, run: str) -> list[float]:
    return [round(float(loss), 4) for loss in store.read(run, "train").column("loss")]


def warned(store: Store, run: str) -> list[str]:
    return [finding["rule"] for finding in judge(store, run)["findings"]]


STARTS = [
    (start, step) for start, count in enumerate([150, 220, 180, 400]) for step in range(count)
]
OF_LAST = [sound(step, 3) for step in range(400)]


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        ("step,loss", [(step, sound(step, start)) for start, step in STARTS]),
        ("global_step,loss", [(step, sound(step, start)) for start, step in STARTS]),
        ("epoch,step,loss", [(step // 50, step, sound(step, start)) for start, step in STARTS]),
        ("epoch,batch,loss", [(s // 50, s % 50, sound(s, start)) for start, s in STARTS]),
        ("epoch,loss", [(step // 50, sound(step, start)) for start, step in STARTS]),
        ("epoch,loss", [(step, sound(step, start)) for start, step in STARTS]),
        ("epoch,_step,loss", [(0, step, sound(step, start)) for start, step in STARTS]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_of_a_log_that_each_start_of_a_run_appended_to_the_last_start_counts(
    tmp_path: Path, names: str, rows: Rows
) -> None:
    store, run, told = read(tmp_path, names, rows)
    assert losses(store, run) == OF_LAST
    assert (
        AGAIN in told
        and "begin again 3 times" in told
        and "550 earlier" in told.replace("1,100", "550")
    )
    assert warned(store, run) == []


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        ("rank,step,loss", [(rank, s, sound(s, rank)) for rank in range(4) for s in range(300)]),
        ("rank,epoch,batch,loss", [
            (rank, epoch, batch, sound(60 * epoch + batch, rank))
            for epoch in range(5) for rank in range(4) for batch in range(60)
        ]),
        ("rank,step,loss", [(rank, s, sound(s, rank)) for s in range(300) for rank in range(4)]),
        ("rank,step,loss", [(rank, s - 2 * (3 - rank), sound(s, rank)) for s in range(6, 306)
                            for rank in range(4)]),  # some lag behind
    ],
    ids=["one after another", "epoch by epoch", "in turns", "in turns, some behind"],
)  # fmt: skip
def test_a_log_that_several_ranks_wrote_is_read_as_one_runs(
    tmp_path: Path, names: str, rows: Rows
) -> None:
    store, run, _ = read(tmp_path, names, rows)
    assert abs(len(losses(store, run)) - 300) <= 6
    assert max(np.diff(store.read(run, "train").steps)) <= 2
    assert warned(store, run) == []


def test_what_a_start_that_failed_left_behind_is_not_judged(tmp_path: Path) -> None:
    """It diverged at step 200 and was started again from step 0, and from a checkpoint at step 105."""
    dead = [(10 * i, 1.05 ** (10 * i), 1.0, 3.0 if i % 10 == 0 else "") for i in range(60)]
    for first in (0, 105):
        anew = [(step, sound(step), 0.1, "") for step in range(first, first + 250, 10)]
        store, run, told = read(tmp_path, "step,loss,lr,val_loss", [*dead, *anew])
        assert max(losses(store, run)[11:]) < 2 and AGAIN in told
        assert store.read(run, "train").steps[-1] == anew[-1][0] + 1
        scores = store.read(run, "validation").steps if first else []
        assert list(scores) == ([1, 101] if first else [])


@pytest.mark.parametrize("epochs", [2, 5])
@pytest.mark.parametrize(
    ("names", "every"),
    [
        ("epoch,batch,loss", 1),
        ("Epoch,step,loss", 7),
        ("epoch,batch,loss", 10),  # 203 in an epoch: each begins at another batch
        ("batch,loss", 1),
        ("iter,loss", 7),
    ],
)
def test_a_column_that_counts_within_epochs_is_counted_on(
    tmp_path: Path, names: str, every: int, epochs: int
) -> None:
    wanted = range(0, 203 * epochs, every)
    rows = [(s // 203, s % 203, sound(s))["poch" not in names :] for s in wanted]
    store, run, told = read(tmp_path, names, rows)
    assert losses(store, run) == [sound(step) for step in wanted]
    assert EPOCHS in told and AGAIN not in told
    assert warned(store, run) == []


def test_a_validation_without_a_batch_belongs_to_the_last_batch_of_its_epoch(
    tmp_path: Path,
) -> None:
    rows = list[tuple[object, ...]]()
    for epoch in range(3):
        rows += [(epoch, batch, 1.0, "") for batch in range(4)] + [(epoch, "", "", 0.5)]
    store, run, told = read(tmp_path, "epoch,batch,loss,val_loss", [*rows, (3, "best", 0.1, "")])
    assert list(store.read(run, "validation").steps) == [4, 8, 12]
    assert losses(store, run) == [1.0] * 12
    assert "1 row without a step" in told


def test_epochs_that_cannot_be_told_from_starts_are_not_taken_for_them(tmp_path: Path) -> None:
    flat = [(batch, sound(1000 + batch, epoch)) for epoch in range(4) for batch in range(100)]
    store, run, told = read(tmp_path, "batch,loss", flat)
    assert len(losses(store, run)) == 100
    assert UNSURE in told and "--column step=NAME" in told
    told = read(tmp_path, "batch,loss", flat, step="batch")[2]
    assert UNSURE not in told and AGAIN in told


def test_rows_out_of_order_and_one_that_looks_back_end_nothing(tmp_path: Path) -> None:
    falling = [(step, sound(step)) for step in range(300, 0, -1)]
    store, run, told = read(tmp_path, "step,loss", [*falling, (120, 0.5)])
    assert len(losses(store, run)) == 300 and losses(store, run)[119] == 0.5
    assert AGAIN not in told and "1 value came again" in told
    mixed = np.random.default_rng(0).permutation(300)
    store, run, told = read(tmp_path, "step,loss", [(int(step), sound(step)) for step in mixed])
    assert len(losses(store, run)) == 300 and AGAIN not in told


def test_tables_put_one_under_another_lose_nothing(tmp_path: Path) -> None:
    rows = [(step, sound(step), "") for step in range(100)]
    rows += [(step, "", sound(step, 1)) for step in range(0, 100, 10)]
    store, run, told = read(tmp_path, "step,loss,val_loss", rows)
    assert len(losses(store, run)) == 100 and len(store.read(run, "validation").steps) == 10
    assert AGAIN not in told
