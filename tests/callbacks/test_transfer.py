"""Frames that wait for the device leave complete, and in the order they were put."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Activations, attach
from otoscope.callbacks.probes.probe import Training
from otoscope.callbacks.probes.throughput import Step, Throughput
from otoscope.callbacks.transfer import Held, Pending, Transfer
from otoscope.store import Event, Frame

from tests.callbacks.fits import recorded


class Ready:
    """A device's event that completes when it is told to."""

    def __init__(self) -> None:
        self.done = False

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.done = True


class Slow(Transfer):
    """Copies as from a device, each copy arriving when its `Ready` says so."""

    def __init__(self, deliver: Any) -> None:
        super().__init__(deliver)
        self.under_way: list[Ready] = []

    def _load(self, parcel: Any, late: Any) -> None:
        parcel.sizes = [[t.numel() for t in tensors] for tensors in late]
        flat = [t.reshape(-1).float() for tensors in late for t in tensors]
        parcel.buffer = torch.cat(flat)
        parcel.ready = Ready()
        self.under_way.append(parcel.ready)


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otoscope.callbacks.transfer._on_device", lambda tensor: True)


def frame(family: str, step: int, size: int = 0) -> Frame:
    return Frame(family, 0, 1, step, 0.0, "0" * 16, np.zeros(size, np.float32))


def test_nothing_overtakes_a_frame_that_is_under_way(on_device: None) -> None:
    out: list[Any] = []
    transfer = Slow(out.append)
    transfer.put([Pending(frame("gradients", 1), [torch.tensor([1.0, 2.0])])])
    transfer.put([Pending(frame("train", 2, 1))])  # complete, yet behind
    transfer.put([Event("lr", 2)])
    transfer.poll()
    assert out == []
    transfer.under_way[0].done = True
    transfer.poll()
    assert [getattr(item, "family", "event") for item in out] == ["gradients", "train", "event"]
    assert out[0].values.tolist() == [1.0, 2.0]


def test_at_the_end_everything_is_waited_for(on_device: None) -> None:
    out: list[Any] = []
    transfer = Slow(out.append)
    for step in (1, 2, 3):
        transfer.put([Pending(frame("train", step), [torch.tensor([float(step)])])])
    transfer.poll(wait=True)
    assert [item.values.tolist() for item in out] == [[1.0], [2.0], [3.0]]


def test_each_frame_of_a_step_gets_its_own_part_of_the_copy(on_device: None) -> None:
    out: list[Any] = []
    transfer = Slow(out.append)
    filled: list[list[list[float]]] = []

    def fill(values: np.ndarray, arrays: list[np.ndarray]) -> None:
        filled.append([array.tolist() for array in arrays])

    transfer.put(
        [
            Pending(frame("gradients", 1), [torch.tensor([1.0, 2.0])]),
            Pending(frame("system", 1, 1)),
            Pending(frame("train", 1, 1), [torch.tensor([3.0]), torch.zeros(0)], fill),
        ]
    )
    transfer.poll(wait=True)
    assert out[0].values.tolist() == [1.0, 2.0]
    assert filled == [[[3.0], []]]


def test_train_leaves_after_the_other_families_and_before_the_events() -> None:
    held = Held()
    held.train.append(Pending(frame("train", 1)))
    held.events.append(Event("lr", 1))
    held.others += [Pending(frame(family, 1)) for family in ("system", "zeta", "gradients")]
    kinds = [i.kind if isinstance(i, Event) else i.frame.family for i in held.in_order()]
    assert kinds == ["gradients", "system", "zeta", "train", "lr"]


def test_train_filled_later_holds_what_train_filled_at_once_holds() -> None:
    model = torch.nn.Linear(2, 2)
    throughput = Throughput()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    columns = [c.name for c in throughput.attach(Training(model, [optimizer]))]
    for losses in ([torch.tensor(0.5), torch.tensor(1.5)], [torch.tensor(float("nan"))], []):
        at_once, late = throughput.row(Step(losses=[loss.item() for loss in losses]), [0.1])
        assert late == []
        row, _ = throughput.row(Step(losses=[]), [0.1])
        values = np.array(row, np.float32)
        throughput._waits.append(float("nan"))
        arrays = [t.numpy() for t in throughput._late(losses, torch.tensor([9.0, float("inf")]))]
        throughput.fill(values, arrays)
        np.testing.assert_equal(values[0], at_once[0])
        place = columns.index("non_finite")
        assert values[place] == at_once[place] + 1
        assert np.isinf(values[columns.index("grad_sq")])


def test_hooks_keep_a_compiled_model_in_one_graph_a_state(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    torch.manual_seed(0)
    model: Any = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 3)
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with attach(
        model, optimizer, probes=[Activations(every=2)], spool=tmp_path, strict=True, verdict=False
    ) as recorder:
        compiled = torch.compile(model, backend="eager")
        counters.clear()
        inputs = []
        for step in range(6):
            x = torch.randn(32, 8)
            if step % 2 == 0:
                y = torch.nn.functional.linear(x, model[0].weight, model[0].bias)
                inputs.append(float((y.detach() < -2.28).float().mean()))
            loss = compiled(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss, 32)
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "activations")
    np.testing.assert_allclose(series.column("saturated/1"), inputs, atol=1e-6)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 2  # flag on, flag off
