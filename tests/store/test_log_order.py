"""Logs whose rows look back: late, out of order, from the last to the first, or once more at the end."""

from __future__ import annotations

import csv
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from otoscope.store import Store
from otoscope.store.foreign import read_foreign
from otoscope.store.log_curves import Log, Writing

AGAIN = "steps begin again"
SORTED = "sorted in"
UNSURE = "cannot be told apart"
NAMES = "epoch,step,loss,lr,val_loss"
Row = Sequence[object]


def loss(step: int) -> float:
    return round(2 * 0.99**step + 0.5, 4)


def train(step: int) -> Row:
    return (step // 100, step, loss(step), 0.1, "")


def late(step: int) -> Row:
    return (step // 100, step, "", "", 0.7)


def read(path: Path, rows: Iterable[Row], names: str = NAMES) -> tuple[Store, str, str]:
    with (path / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names.split(","), *rows])
    log = read_foreign(path / "log.csv")
    return Store(log.home), log.run, "; ".join(log.damage[:-1])


def losses(store: Store, run: str) -> list[float]:
    return [round(float(value), 4) for value in store.read(run, "train").column("loss")]


def jittered(steps: range, by: float) -> list[int]:
    draw = random.Random(0)
    return sorted(steps, key=lambda step: step + draw.uniform(0, by))


def chunks(steps: Sequence[int], size: int) -> list[int]:
    """Return steps with each chunk behind the next one."""
    parts = [steps[i : i + size] for i in range(0, len(steps), size)]
    return [
        step for i in range(0, len(parts), 2) for part in parts[i : i + 2][::-1] for step in part
    ]


def two_writers(steps: range, size: int) -> list[int]:
    """Return steps as two processes write them that take turns in steps, and write some at a time."""
    even, odd = steps[::2], steps[1::2]
    both = [part[i : i + size] for i in range(0, len(even), size) for part in (even, odd)]
    return [step for part in both for step in part]


SHUFFLED = random.Random(1).sample(range(1000), 1000)


@pytest.mark.parametrize("names", [NAMES, NAMES.replace("step", "_step"), "no epoch"])
@pytest.mark.parametrize(
    "steps",
    [
        *(jittered(range(1000), by) for by in (2, 5, 10, 30)),
        SHUFFLED,
        sorted(range(1000), key=str),
        sorted(range(0, 100_000, 100), key=str),
        chunks(range(1000), 10),
        chunks(range(1000), 500),
        two_writers(range(1000), 10),
        [*range(500), 501, 500, *range(502, 1000)],
    ],
    ids=["by 2", "by 5", "by 10", "by 30", "shuffled", "as text", "hundreds as text", "chunks", "halves",
         "two writers", "one swap"],
)  # fmt: skip
def test_where_no_step_comes_twice_nothing_is_lost_whatever_the_order(
    tmp_path: Path, names: str, steps: list[int]
) -> None:
    rows = [train(step) for step in steps]
    if names == "no epoch":
        rows, names = [row[1:] for row in rows], NAMES.partition(",")[2]
    store, run, told = read(tmp_path, rows, names)
    assert losses(store, run) == [loss(step) for step in sorted(steps)]
    assert SORTED in told and AGAIN not in told and UNSURE not in told


@pytest.mark.parametrize(
    ("more", "replaced"),
    [
        ([(0, 0, "", "", 0.6), (0, 0, "", "", 0.5)], {}),  # Lightning: validate() and test() anew
        ([(0, step, "", "", 0.6) for step in range(0, 300, 30)], {}),  # each checkpoint once more
        ([(0, step, "", 0.1, 0.6) for step in range(0, 300, 30)], {}),
        ([(0, 0, 0.4, "", ""), (2, 299, 0.3, "", "")], {0: 0.4, 299: 0.3}),
        ([(1, 120, 0.4, "", "")], {120: 0.4}),
    ],
    ids=["validated", "each checkpoint", "with a rate", "two summaries", "the best"],
)
@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("has_epoch", [False, True])
def test_rows_that_look_back_at_the_end_end_nothing(
    tmp_path: Path, more: list[Row], replaced: dict[int, float], goes_on: bool, has_epoch: bool
) -> None:
    last = 400 if goes_on else 300
    rows = [*map(train, range(300)), *more, *map(train, range(300, last))]
    names = NAMES if has_epoch else NAMES.partition(",")[2]
    store, run, told = read(tmp_path, [row[not has_epoch :] for row in rows], names)
    assert losses(store, run) == [replaced.get(step, loss(step)) for step in range(last)]
    assert AGAIN not in told and UNSURE not in told


@pytest.mark.parametrize("goes_on", [False, True])
def test_what_a_process_that_did_not_train_wrote_at_step_0_is_no_first_validation(
    tmp_path: Path, goes_on: bool
) -> None:
    """Lightning's validate() and test() of a new Trainer: else the best validation were the first one."""
    rows = [
        row for step in range(300) for row in [train(step), late(step)][: 1 + (step % 50 == 49)]
    ]
    more = [(0, 0, "", "", 0.1)] * 2
    later = [*map(train, range(300, 400)), late(399)] if goes_on else []
    store, run, told = read(tmp_path, [*rows, *more, *later])
    wanted = [*range(50, 301, 50), *([400] if goes_on else [])]
    assert list(store.read(run, "validation").steps) == wanted
    assert "4 values at step 0 were left out" in told
    first = [*rows[:20], late(0), *rows[20:]]  # written late, and no other is
    assert list(read(tmp_path, first)[0].read(run, "validation").steps) == [1, *range(50, 301, 50)]
    anew = [late(0), (0, 0, "", 0.1, ""), *map(train, range(300))]  # evaluates before it trains
    store, run, told = read(tmp_path, [*rows, *anew])
    assert list(store.read(run, "validation").steps) == [1]
    assert "at step 0" not in told and AGAIN in told


@pytest.mark.parametrize("lag", [100, 195])
def test_a_validation_that_is_written_late_ends_no_training(tmp_path: Path, lag: int) -> None:
    rows = [row for step in range(0, 2000, 10)
            for row in (train(step), *([late(step - lag)] if step % 200 == 0 and step >= lag else []))]  # fmt: skip
    store, run, told = read(tmp_path, rows)
    assert losses(store, run) == [loss(step) for step in range(0, 2000, 10)]
    assert len(store.read(run, "validation").steps) == 9
    assert told == ""


@pytest.mark.parametrize("back", [[2, 2], [0, 2], [1, 1, 1]])
def test_where_rows_are_counted_those_that_look_back_end_nothing(
    tmp_path: Path, back: list[int]
) -> None:
    epochs = [step // 50 for step in range(300)]
    validated = [(epoch, "", 0.7) for epoch in back]
    rows = [(epoch, loss(i), "") for i, epoch in enumerate(epochs)]
    for more in (validated, [(epoch, 0.4, "") for epoch in back]):
        store, run, told = read(tmp_path, [*rows[:220], *more, *rows[220:]], "epoch,loss,val_loss")
        wanted = [row[1] for row in [*rows[:220], *more, *rows[220:]] if row[1] != ""]
        assert losses(store, run) == wanted and AGAIN not in told


@pytest.mark.parametrize(
    ("dead", "anew"),
    [
        (range(0, 300), range(0, 50)),
        (range(0, 300), range(200, 290)),
        (range(0, 300, 10), range(0, 40, 10)),
        (range(0, 600, 10), range(105, 350, 10)),  # counts on from a checkpoint
        (range(0, 300), range(0, 200, 10)),
        (range(0, 300, 10), range(0, 200)),
    ],
)
def test_what_a_start_wrote_that_another_one_began_again_is_left_out(
    tmp_path: Path, dead: range, anew: range
) -> None:
    bad = [(step // 100, step, 9.0, 0.1, "") for step in dead]
    store, run, told = read(tmp_path, [*bad, *map(train, anew)])
    kept = [9.0] * len([step for step in dead if step < anew[0]])
    assert losses(store, run) == [*kept, *map(loss, anew)]
    assert "begin again once" in told and SORTED not in told


def test_many_short_starts_are_told_from_rows_out_of_order(tmp_path: Path) -> None:
    draw = random.Random(2)
    lengths = [*(draw.randrange(8, 31) for _ in range(20)), 12]
    rows = [train(step) for length in lengths for step in range(length)]
    store, run, told = read(tmp_path, rows)
    assert losses(store, run) == [loss(step) for step in range(12)]
    assert "begin again 20 times" in told


@pytest.mark.parametrize(
    ("names", "columns"),
    [("step,loss", slice(1, 3)), ("_step,loss,lr", slice(1, 4)), ("epoch,step,loss", slice(0, 3))],
)
def test_a_table_from_the_last_row_to_the_first_is_read_from_its_end(
    tmp_path: Path, names: str, columns: slice
) -> None:
    rows = [train(step)[columns] for step in range(500)]
    store, run, told = read(tmp_path, rows[::-1], names)
    assert losses(store, run) == [loss(step) for step in range(500)]
    assert told == "the rows stand from the last to the first: they are read from the end"


def test_epochs_from_the_last_to_the_first_are_read_from_their_end(tmp_path: Path) -> None:
    for names, kept in (("epoch,batch,loss", 3), ("epoch,loss", 2)):
        rows = [(s // 100, s % 100, loss(s)) for s in range(500)][::-1]
        store, run, told = read(tmp_path, [(*row[: kept - 1], row[2]) for row in rows], names)
        assert losses(store, run) == [loss(step) for step in range(500)]
        assert AGAIN not in told and "read from the end" in told


@pytest.mark.parametrize("order", ["falling", "shuffled"])
def test_the_order_of_what_was_written_costs_little(order: str) -> None:
    rising = list(range(200_000))
    other = rising[::-1] if order == "falling" else random.Random(0).sample(rising, len(rising))
    took = list[float]()
    for steps in (rising, other):
        writing, log = Writing(), Log()
        for step in steps:
            writing.at(step)
            writing.add("loss", 1.0)
        began = time.process_time()
        writing.settle(log, together=True)
        took.append(time.process_time() - began)
        assert list(log.curves["loss"]) == rising
    assert took[1] < 4 * took[0] + 0.3  # not the square of it
