"""Forward passes of every kind: checkpointed, recurrent, in place, scripted, traced, transformed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.callbacks.loops import Called, Loop


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    """What torch.compile did in other tests of this process is no part of these."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
def test_a_checkpointed_block_counts_once(reentrant: bool, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.block, self.out = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = lambda h: functional.relu(self.block(h))  # noqa: E731
            h = self.into(x)
            h = checkpoint(inner, h, use_reentrant=reentrant)
            return self.out(h)

    loop = Loop(tmp_path, Net)
    series = loop.run(steps=3, lr=0.0)
    model, expected, zeros = loop.model, [], []
    for batch in loop.batches:
        with torch.no_grad():
            h = model.block(model.into(batch))
        expected.append(float(h.double().square().sum()))
        zeros.append(float((h <= 0).float().mean()))
    assert (series.column("numel/block") == 24 * 8).all()
    np.testing.assert_allclose(series.column("sum_sq/block"), expected, rtol=1e-5)
    np.testing.assert_allclose(series.column("saturated/relu()"), zeros, rtol=1e-5)


def test_outputs_of_a_recurrence_and_of_attention_are_their_first_tensor(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(12, 6, batch_first=True)
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
            self.seen: list[tuple[float, float]] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden, _ = self.lstm(x)
            mixed, _ = self.attention(hidden, hidden, hidden)
            self.seen.append((_square(hidden), float(hidden.detach().abs().max())))
            return mixed

    loop = Loop(tmp_path, Net, shape=(5, 12))
    series = loop.run(steps=3)
    seen = loop.model.seen
    np.testing.assert_allclose(series.column("sum_sq/lstm"), [s for s, _ in seen], rtol=1e-5)
    np.testing.assert_allclose(series.column("absmax/lstm"), [m for _, m in seen], rtol=1e-6)
    assert (series.column("numel/lstm") == 24 * 5 * 6).all()


def _square(x: torch.Tensor) -> float:
    return float(x.detach().double().square().sum())


def test_an_activation_in_place_is_measured_from_what_it_left(tmp_path: Path) -> None:
    make = lambda: nn.Sequential(nn.Linear(12, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))  # noqa: E731
    loop = Loop(tmp_path, make)
    series = loop.run(steps=3, lr=0.0)
    with torch.no_grad():
        zeros = [float((loop.model[0](x) <= 0).float().mean()) for x in loop.batches]
    np.testing.assert_allclose(series.column("saturated/1"), zeros, rtol=1e-5)


def test_the_model_can_be_scripted_in_the_middle_of_a_run(tmp_path: Path) -> None:
    def call(model: Any, batch: torch.Tensor) -> torch.Tensor:
        scripted = torch.jit.script(model)
        assert torch.equal(scripted(batch), model(batch))
        return model(batch).square().mean()

    make = lambda: nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))  # noqa: E731
    series = Loop(tmp_path, make).run(call=call)
    assert len(series) == 3


def test_a_part_that_is_scripted_is_passed_by_and_the_rest_measured(tmp_path: Path) -> None:
    def make() -> nn.Module:
        part: Any = torch.jit.script(nn.Sequential(nn.Linear(12, 8), nn.ReLU()))
        return nn.Sequential(part, nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))

    series = Loop(tmp_path, make).run()
    assert (series.column("numel/1") == 24 * 6).all()
    assert (series.column("units/2") == 6).all()


def transformed(model: Any, batch: torch.Tensor) -> None:
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(given: Any, row: torch.Tensor) -> torch.Tensor:
        return functional_call(model, given, (row[None],)).square().mean()

    assert len(vmap(grad(loss), in_dims=(None, 0))(weights, batch)) == len(weights)


def traced(model: Any, batch: torch.Tensor) -> None:
    found: Any = torch.jit.trace(model, batch, check_trace=False)
    assert "aten::item" not in str(found.inlined_graph)


def exported(model: Any, batch: torch.Tensor) -> None:
    assert "item" not in str(torch.export.export(model, (batch,)).graph)


def faked(model: Any, batch: torch.Tensor) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(torch.randn(4, 12))


@pytest.mark.parametrize("how", [transformed, traced, exported, faked])
def test_a_forward_pass_that_computes_no_step_does_not_count(how: Any, tmp_path: Path) -> None:
    def call(model: Any, batch: torch.Tensor) -> torch.Tensor:
        how(model, batch)
        return model(batch).square().mean()

    class Both(Called):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.relu(self.second(torch.tanh(self.first(x))))

    series = Loop(tmp_path, Both).run(call=call)
    assert len(series) == 3
    assert (series.column("numel/first") == 24 * 20).all()
    assert (series.column("numel/relu()") == 24 * 12).all()


def test_an_output_that_is_no_ordinary_tensor_is_not_measured(tmp_path: Path) -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(12))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.weight).to_sparse()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd, self.last = Sparse(), nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.odd(x).to_dense())

    series = Loop(tmp_path, Net).run()
    assert np.isnan(series.column("numel/odd")).all()
    assert (series.column("numel/last") == 24 * 3).all()


def test_a_warning_of_the_users_is_not_shown_again_in_every_step_that_is_looked_at(
    tmp_path: Path,
) -> None:
    class Net(nn.Sequential):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            warnings.warn("mine", stacklevel=1)
            return super().forward(input)

    with warnings.catch_warnings(record=True) as shown:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        series = Loop(tmp_path, lambda: Net(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))).run(
            steps=5, lr=0.0
        )
    assert len(series) == 5
    told = [str(item.message) for item in shown if "mine" in str(item.message)]
    assert told == ["mine"] * 2  # without us, and where we began: a filter forgets what was shown
