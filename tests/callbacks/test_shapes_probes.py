"""A probe that is wrong in any way costs itself alone: not the run, not another probe's samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Gradients, System
from otoscope.callbacks.probes import Probe
from otoscope.store import Column

from tests.callbacks.fits import PACKAGES, fit, recorded
from tests.callbacks.test_shapes_life import watched


class Odd(Probe):
    """Gives what it is told to give, for one column."""

    def __init__(self, give: Callable[[], Any], columns: Any = None) -> None:
        super().__init__(every=1)
        self.family = "odd"
        self.give = give
        self.columns = columns

    def attach(self, training: Any) -> Any:
        return [Column.of("one")] if self.columns is None else self.columns

    def sample(self, step: int) -> Any:
        return self.give()


GIVEN: dict[str, Callable[[], Any]] = {
    "two numbers": lambda: [1.0, 2.0],
    "no number": lambda: [],
    "two on the device": lambda: torch.zeros(2),
    "a word": lambda: ["loss"],
    "a ragged list": lambda: [[1.0], [2.0, 3.0]],
    "a sparse tensor": lambda: torch.eye(3).to_sparse(),
}


@pytest.mark.parametrize("what", GIVEN)
def test_a_sample_that_is_none_costs_its_probe_alone(what: str, tmp_path: Path) -> None:
    probes = [Odd(GIVEN[what]), Gradients(every=1), System(every=1)]
    callback = watched(tmp_path, strict=False, probes=probes)
    fit(PACKAGES[0], tmp_path, [callback])
    run = str(callback.run_id)
    store = recorded(tmp_path, run)
    for family in ("train", "gradients", "system"):
        assert list(store.read(run, family).steps) == list(range(1, 13)), family
    off = [e.body for e in store.events(run) if e.kind == "probe_off"]
    assert [body["probe"] for body in off] == ["odd"]
    assert "failed 3 times" in off[0]["why"]


@pytest.mark.parametrize(
    "columns",
    [["one"], [Column.of("one"), Column.of("one")], 3],
    ids=["a name", "twice", "a number"],
)
def test_columns_that_are_none_cost_their_probe_alone(columns: Any, tmp_path: Path) -> None:
    probes = [Odd(lambda: [1.0, 2.0], columns), Gradients(every=1)]
    callback = watched(tmp_path, strict=False, probes=probes)
    fit(PACKAGES[0], tmp_path, [callback])
    run = str(callback.run_id)
    store = recorded(tmp_path, run)
    assert len(store.read(run, "train")) == len(store.read(run, "gradients")) == 12
    off = [e.body["probe"] for e in store.events(run) if e.kind == "probe_off"]
    assert off == ["odd"]


def test_a_tensor_that_hangs_on_a_graph_is_recorded_as_a_number(tmp_path: Path) -> None:
    leaf = torch.ones((), requires_grad=True, dtype=torch.float64)
    probes = [Odd(lambda: leaf * 3)]
    callback = watched(tmp_path, probes=probes)
    fit(PACKAGES[0], tmp_path, [callback])
    run = str(callback.run_id)
    np.testing.assert_array_equal(recorded(tmp_path, run).read(run, "odd").column("one"), 3.0)


def test_columns_may_change_in_the_middle_of_a_run(tmp_path: Path) -> None:
    class Growing(Odd):
        def __init__(self) -> None:
            super().__init__(lambda: None)
            self.count = 1

        def sample(self, step: int) -> Any:
            self.count = 2 if step > 6 else 1
            return [float(step)] * self.count

        def changed(self) -> Any:
            return [Column.of("one"), Column.of("two")] if self.count == 2 else None

    callback = watched(tmp_path, probes=[Growing()])
    fit(PACKAGES[0], tmp_path, [callback])
    run = str(callback.run_id)
    series = recorded(tmp_path, run).read(run, "odd")
    assert series.column("one").tolist() == list(range(1, 13))
    assert np.isnan(series.column("two")[:6]).all()
    assert series.column("two")[6:].tolist() == list(range(7, 13))
