"""Exporting: read in ranges of steps, a run gives the same table as read whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from otoscope.store import (
    Column,
    EmptySelectionError,
    Frame,
    MemoryHome,
    Schema,
    Store,
    UnknownRunError,
)
from otoscope.store import exporting as module
from otoscope.store.exporting import families, select_export
from otoscope.store.rollups import Rollups

RUN = "out-01"
TRAIN = Schema(
    "train",
    (
        Column.of("loss"),
        Column.of("grad_sq", ranks="sum"),
        Column.of("wait_seconds", unit="s", ranks="each"),
    ),
)
WIDER = Schema("gradients", tuple(Column.of("grad_sq", layer=f"l{i}") for i in range(3)))


def frame(step: int, rank: int = 0, attempt: int = 1, schema: Schema = TRAIN) -> Frame:
    values = np.random.default_rng([step, rank, attempt]).random(len(schema.columns)) + rank
    vector = values.astype(np.float32)
    return Frame(schema.family, rank, attempt, step, 1e9 + step, schema.hash, vector)


@pytest.fixture
def store() -> Store:
    """Two ranks; attempt 2 resumed at 601 and ended at 700, attempt 1 had reached 1000."""
    home = MemoryHome()
    home.write_meta(RUN, {"name": "out", "world_size": 2})
    for schema in (TRAIN, WIDER):
        home.add_schema(RUN, schema)
    for attempt, steps in ((1, range(1, 1001)), (2, range(601, 701))):
        for rank in (0, 1):
            kept = [step for step in steps if not (rank == 1 and step % 97 == 0)]
            home.append(RUN, [frame(step, rank, attempt) for step in kept])
    home.append(RUN, [frame(step, schema=WIDER) for step in range(50, 1001, 50)])
    return Store(home)


def gathered(tables: list[module.Table], pick: Callable[[module.Table], np.ndarray]) -> np.ndarray:
    return np.concatenate([pick(table) for table in tables])


@pytest.mark.parametrize("numbers", [1, 600, 10**9])
def test_ranges_give_what_one_read_gives(
    store: Store, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", numbers)
    tables = list(select_export(store, RUN, "train").tables())
    whole = store.read(RUN, "train", points=10**9)

    assert tables[0].series.columns == whole.columns
    assert whole.columns[-3:] == ["wait_seconds@0", "wait_seconds@1", "grad_norm"]
    assert gathered(tables, lambda t: t.series.steps).tolist() == list(range(1, 701))
    np.testing.assert_array_equal(gathered(tables, lambda t: t.series.values), whole.values)
    np.testing.assert_array_equal(gathered(tables, lambda t: t.series.times), whole.times)
    assert gathered(tables, lambda t: t.attempts).tolist() == [1] * 600 + [2] * 100
    assert max(map(len, tables)) <= 8 * max(16, numbers // 8)


def test_a_sparse_family_is_read_in_longer_and_longer_ranges(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 1)
    reads: list[int] = []
    original = store.read

    def counted(*args: object, **keywords: object):
        reads.append(1)
        return original(*args, **keywords)  # type: ignore[arg-type]

    chosen = select_export(store, RUN, "gradients")
    monkeypatch.setattr(store, "read", counted)
    tables = list(chosen.tables())

    assert gathered(tables, lambda t: t.series.steps).tolist() == list(range(50, 1001, 50))
    assert len(reads) < 20


def test_steps_that_are_only_rolled_up_are_exported_once_each_as_rows_of_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 1)
    home, frames = MemoryHome(), [frame(step) for step in range(1, 5001)]
    home.write_meta(RUN, {"name": "out"})
    home.add_schema(RUN, TRAIN)
    home.append(RUN, frames, buckets=Rollups().take(frames))
    home.trim(RUN, frames[0].stream, 4000)
    tables = list(select_export(Store(home), RUN, "train", columns=["loss"]).tables())

    steps = gathered(tables, lambda t: t.series.steps)
    values = gathered(tables, lambda t: t.series.values)[:, 0]
    assert (np.diff(steps) > 0).all()
    raw = steps >= 4000
    assert steps[raw].tolist() == list(range(4000, 5001))
    np.testing.assert_array_equal(values[raw], [item.values[0] for item in frames[3999:]])
    weights = np.diff(steps[steps <= 4000])
    mean = np.average(values[~raw], weights=weights)
    assert mean == pytest.approx(np.mean([item.values[0] for item in frames[:3999]]), abs=1e-3)
    assert weights.max() <= 8


def test_progress_counts_steps_to_the_last(store: Store) -> None:
    said: list[tuple[int, int]] = []
    list(select_export(store, RUN, "train", start=11).tables(lambda *args: said.append(args)))

    assert said[-1] == (690, 690)


def test_one_attempt_and_one_rank_alone(store: Store) -> None:
    chosen = select_export(store, RUN, "train", attempt=1, rank=1, start=500, stop=800)
    tables = list(chosen.tables())

    steps = gathered(tables, lambda t: t.series.steps).tolist()
    assert steps == [step for step in range(500, 801) if step % 97]
    assert chosen.columns == ["loss", "grad_sq", "wait_seconds", "grad_norm"]


def test_columns_are_chosen_by_name_glob_and_quantity_in_the_order_asked(store: Store) -> None:
    chosen = select_export(store, RUN, "gradients", columns=["*/l2", "grad_norm"])

    layers = [f"grad_norm/l{i}" for i in range(3)]
    assert chosen.columns == ["grad_sq/l2", "grad_norm/l2", *layers[:2]]
    assert select_export(store, RUN, "train", columns=["wait_seconds"]).columns == [
        "wait_seconds@0",
        "wait_seconds@1",
    ]


def test_reduced_rows_know_their_attempt_and_extremes(store: Store) -> None:
    table = select_export(store, RUN, "train", columns=["loss"]).reduced(70)

    assert len(table) == 70
    assert table.attempts.tolist() == [1] * 60 + [2] * 10
    assert (table.series.low < table.series.high).all()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"family": "noise"}, "no samples of a family 'noise'; it has train, gradients"),
        ({"start": 701}, "701–; it has them from step 1 to 700"),
        ({"stop": 0}, "–0; it has them from step 1"),
        ({"rank": 7}, "from rank 7; it has them from rank 0, 1"),
        ({"attempt": 3}, "from attempt 3; it has them from attempt 1, 2"),
        ({"columns": ["lozz"]}, "no column of train matches 'lozz'; it has 5: loss, grad_sq"),
    ],
)
def test_what_is_not_there_is_named_beside_what_is(store: Store, asked: dict, said: str) -> None:
    with pytest.raises(EmptySelectionError, match=said):
        select_export(store, RUN, **{"family": "train", **asked})


def test_an_unknown_run_is_named(store: Store) -> None:
    with pytest.raises(UnknownRunError, match="no run 'nobody'"):
        select_export(store, "nobody", "train")
    assert families(store, RUN) == ["train", "gradients"]
