"""Tables: what is read of them, as views that grow, is what a copy of the rows would hold."""

from __future__ import annotations

import numpy as np
import pytest
from otoscope.diagnostics import tables
from otoscope.diagnostics.ratios import layer_ratios, update_ratios
from otoscope.diagnostics.tables import LONGEST, Table
from otoscope.diagnostics.windows import KEPT_STEPS, History, Window
from otoscope.store import Column, Frame, Schema

LAYERS = ("a", "b", "c")
SCHEMA = Schema(
    "gradients",
    (
        *(Column.of("grad_sq", layer=layer) for layer in LAYERS),
        Column.of("grad_cosine"),
        Column.of("update_sq", layer="b"),
    ),
)
WIDER = Schema("gradients", (Column.of("numel", layer="a"), *SCHEMA.columns[1:]))


def rows_of(count: int, width: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    rows[np.random.default_rng(seed + 1).random(rows.shape) < 0.3] = np.nan
    rows[::7] = np.nan  # whole samples without any number
    return rows


@pytest.mark.parametrize("few", [tables.FEW, 0], ids=["read together", "read one by one"])
def test_any_window_holds_what_a_copy_of_the_rows_would_however_it_was_asked_for_before(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "FEW", few)
    count = 2 * KEPT_STEPS + 500
    rows, table = rows_of(count, len(SCHEMA.columns)), Table(SCHEMA)
    draw, first = np.random.default_rng(2), 0
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for step in range(count):
        table.append(step, rows[step])
        if draw.random() < 0.97:
            continue
        back = int(draw.choice([1, 5, 50, 400, LONGEST + 10, KEPT_STEPS]))
        after = max(step - back, -1)
        low, high = table.between(after, step - int(draw.integers(0, 3)))
        first = max(step - KEPT_STEPS, 0)
        if low >= high or after < first - 1:
            continue
        steps = table.steps[low:high]
        whole = rows[steps[0] : steps[-1] + 1].astype(np.float64)
        line = table.column("grad_cosine", low, high)
        np.testing.assert_array_equal(line.values, whole[:, 3])
        np.testing.assert_array_equal(line.steps, np.arange(steps[0], steps[-1] + 1))
        known = whole[np.isfinite(whole[:, 3]), 3]
        np.testing.assert_array_equal(line.finite.values, known)
        assert line.finite.median == np.median(known) if len(known) else True
        for name, places in (("grad_sq", [0, 1, 2]), ("update_sq", [4]), ("numel", [])):
            found = table.layers(name, None, low, high)
            np.testing.assert_array_equal(found.values, whole[:, places])
            np.testing.assert_array_equal(found.known, np.isfinite(whole[:, places]).any(axis=1))
        held.append((line.values, whole[:, 3]))
    assert len(held) > 60 and table.gone
    for values, expected in held:  # later rows are written behind what was handed out
        np.testing.assert_array_equal(values, expected)


def test_how_far_layers_moved_is_the_same_whether_it_was_kept_or_made_at_once() -> None:
    names = ("update_sq", "weight_sq")
    columns = [Column.of(name, layer=x, group="weight") for name in names for x in LAYERS]
    schema, count = Schema("gradients", tuple(columns)), KEPT_STEPS + 700
    rows, history = np.abs(rows_of(count, 6, seed=3)), History()
    rows[rows > 2] = 0.0  # layers that stand, and weights of zero
    draw = np.random.default_rng(4)
    for step in range(1, count + 1):
        frame = Frame("gradients", 0, 1, step, 0.0, schema.hash, rows[step - 1])
        history.add([frame], {schema.hash: schema})
        if draw.random() < 0.98 and step < count:
            continue
        after = max(step - int(draw.choice([1, 7, 300, LONGEST + 10, KEPT_STEPS])), 0)
        whole = rows[after:step].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = np.sqrt(whole[:, :3] / np.where(whole[:, 3:] > 0, whole[:, 3:], np.nan))
        steps, ratios = layer_ratios(history, after, step)
        np.testing.assert_array_equal(ratios, expected)
        assert steps.tolist() == list(range(after + 1, step + 1))
        np.testing.assert_array_equal(layer_ratios(history, after, step, 5)[1], expected[-5:])
        told = np.isfinite(expected).any(axis=1)
        steps, medians = update_ratios(history, after, step)
        assert steps.tolist() == (np.flatnonzero(told) + after + 1).tolist()
        np.testing.assert_array_equal(medians, np.nanmedian(expected[told], axis=1))


def test_what_lies_farther_back_than_is_kept_is_not_told_although_it_is_still_there() -> None:
    table = Table(SCHEMA)
    for step in (1, 500, 1000, 2400, 2500):
        table.append(step, np.full(len(SCHEMA.columns), float(step), dtype=np.float32))
    low, high = table.between(0, 2500)
    assert table.column("grad_cosine", low, high).steps.tolist() == [1000, 2400, 2500]
    assert table.column("grad_cosine", *table.between(0, 1000)).steps.tolist() == [1, 500, 1000]


def test_what_was_read_is_shared_and_cannot_be_written() -> None:
    table = Table(SCHEMA)
    for step, row in enumerate(rows_of(20, len(SCHEMA.columns))):
        table.append(step, row)
    assert table.layers("grad_sq", None, 5, 20) is table.layers("grad_sq", None, 5, 20)
    line, layers = table.column("grad_cosine", 5, 20), table.layers("grad_sq", None, 5, 20)
    assert line.finite is line.finite
    for array in (line.values, line.steps, layers.values, layers.steps, layers.known):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_another_schema_leaves_nothing_of_what_was_read_by_the_one_before() -> None:
    history = History()
    schemas = {schema.hash: schema for schema in (SCHEMA, WIDER)}
    rows = rows_of(40, len(SCHEMA.columns), seed=1)
    for step, row in enumerate(rows, 1):
        schema = SCHEMA if step <= 20 else WIDER
        history.add([Frame("gradients", 0, 1, step, 0.0, schema.hash, row)], schemas)
        Window(history, step).layers("gradients", "grad_sq", count=5)
    window = Window(history, 40)
    assert window.layers("gradients", "grad_sq", count=30).layers == ("b", "c")
    found = window.layers("gradients", "numel", count=30)
    assert np.isnan(found.values[:10]).all() and found.layers == ("a",)
    np.testing.assert_array_equal(found.values[10:, 0], rows[20:, 0].astype(np.float64))
    assert window.last_step("gradients") == 40
    assert Window(history, 30).last_step("gradients") == 30
