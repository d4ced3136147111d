"""Windows by rank: what each process wrote itself, bounded, and rebuilt as it was."""

from __future__ import annotations

import numpy as np
from otoscope.diagnostics.rank_windows import KEPT_ROWS
from otoscope.diagnostics.windows import KEPT_STEPS, History, Window
from otoscope.store import Column, Frame, Schema

TRAIN = Schema(
    "train",
    (
        Column.of("loss", ranks="mean"),
        Column.of("clip_factor"),
        Column.of("step_seconds", unit="s", ranks="each"),
    ),
)
WIDER = Schema("train", (Column.of("epoch"), *TRAIN.columns, Column.of("more", ranks="each")))
WIDE = Schema(
    "gradients", tuple(Column.of("grad_sq", layer=str(i), ranks="sum") for i in range(40))
)
SCHEMAS = {schema.hash: schema for schema in (TRAIN, WIDER, WIDE)}


def frame(rank: int, step: int, schema: Schema = TRAIN) -> Frame:
    values = np.full(len(schema.columns), 100 * rank + step, dtype=np.float32)
    return Frame(schema.family, rank, 1, step, 0.0, schema.hash, values)


def history(ranks_at: dict[int, list[int]], schema: Schema = TRAIN) -> History:
    made = History()
    for step, ranks in ranks_at.items():
        made.add([frame(rank, step, schema) for rank in ranks], SCHEMAS)
    return made


def test_each_rank_has_its_own_samples() -> None:
    window = Window(history({step: [0, 1] for step in range(1, 6)}), 5)
    found = window.ranks("train", "step_seconds", count=3)
    assert list(found) == [0, 1]
    assert found[0].steps.tolist() == [3, 4, 5]
    assert found[1].values.tolist() == [103, 104, 105]
    assert window.samples("train", "loss", count=1).values.tolist() == [55]


def test_a_rank_that_wrote_nothing_at_a_step_is_left_out_of_it() -> None:
    window = Window(history({1: [0, 1, 2], 2: [0, 2], 3: [0, 1, 2]}), 3)
    assert window.ranks("train", "loss")[1].steps.tolist() == [1, 3]
    side = window.across("train", "loss")
    assert side.ranks == (0, 1, 2)
    assert np.isnan(side.values[1, 1])
    assert side.wrote.tolist() == [[True] * 3, [True, False, True], [True] * 3]


def test_a_run_of_one_process_keeps_nothing_by_rank() -> None:
    made = history({step: [0] for step in range(1, 50)})
    assert made.by_rank == {}
    assert Window(made, 49).ranks("train", "loss") == {}


def test_what_all_ranks_hold_alike_and_families_of_many_layers_are_not_kept_by_rank() -> None:
    both = history({step: [0, 1] for step in range(1, 5)})
    assert Window(both, 4).ranks("train", "clip_factor") == {}
    assert history({1: [0, 1]}, WIDE).by_rank == {}


def test_a_rank_that_comes_later_is_put_in_order_and_what_was_before_it_is_kept() -> None:
    made = history({1: [2], 2: [2], 3: [0, 2], 4: [1, 2]})
    found = Window(made, 4).ranks("train", "loss")
    assert {rank: list(samples.values) for rank, samples in found.items()} == {
        0: [3],
        1: [104],
        2: [201, 202, 203, 204],
    }


def test_windows_by_rank_begin_where_the_others_do() -> None:
    window = Window(history({step: [0, 1] for step in range(1, 31)}), 30, since=20)
    assert window.ranks("train", "loss")[1].steps.tolist() == list(range(21, 31))
    assert window.ranks("train", "loss", span=5)[1].steps.tolist() == list(range(26, 31))


def test_another_schema_keeps_the_columns_that_it_has_too() -> None:
    made = history({step: [0, 1] for step in range(1, 4)})
    made.add([frame(0, 4, WIDER), frame(1, 4, WIDER)], SCHEMAS)
    window = Window(made, 4)
    assert window.ranks("train", "loss")[1].values.tolist() == [101, 102, 103, 104]
    more = window.ranks("train", "more")[1].values
    assert np.isnan(more[:3]).all()
    assert more[3] == 104


def test_a_rebuilt_window_is_the_one_that_was_kept_all_along() -> None:
    last = KEPT_STEPS + 700
    ranks_at = {step: [0, 1] if step % 3 else [0] for step in range(1, last + 1)}
    live = Window(history(ranks_at), last)
    first = last - KEPT_STEPS
    rebuilt = Window(history({s: r for s, r in ranks_at.items() if s > first}), last)
    for rank, samples in live.ranks("train", "loss").items():
        again = rebuilt.ranks("train", "loss")[rank]
        np.testing.assert_array_equal(samples.steps, again.steps)
        np.testing.assert_array_equal(samples.values, again.values)
    assert len(live.ranks("train", "loss")[0]) == KEPT_ROWS


def test_many_ranks_take_little_memory() -> None:
    columns = (*TRAIN.columns, *(Column.of(f"c{i}", ranks="each") for i in range(12)))
    schema = Schema("train", columns)
    made = History()
    last = 2 * KEPT_ROWS + 40
    for step in range(1, last + 1):
        values = np.ones(15, np.float32)
        made.add(
            [Frame("train", r, 1, step, 0.0, schema.hash, values) for r in range(512)],
            {schema.hash: schema},
        )
    table = made.by_rank["train"]
    assert table.rows.nbytes <= 16 * 2**20
    assert len(Window(made, last).ranks("train", "loss")) == 512
