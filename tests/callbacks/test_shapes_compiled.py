"""Compiled models: hooks of ours neither break a graph nor have it compiled again and again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Activations, Gradients, attach
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters
from torch.nn import functional

from tests.callbacks.fits import recorded
from tests.callbacks.shapes import both, remembering, square


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.act(self.first(x)))


def inside(net: Any, backend: Any) -> tuple[nn.Module, Callable[..., Any]]:
    compiled: Any = torch.compile(net, backend=backend)
    model = nn.Sequential(compiled)
    return model, model


def whole(net: Any, backend: Any) -> tuple[Any, Callable[..., Any]]:
    model: Any = torch.compile(net, backend=backend)
    return model, model


def untold(net: Any, backend: Any) -> tuple[nn.Module, Callable[..., Any]]:
    """The raw model is attached, and another object runs it."""
    return net, torch.compile(net, backend=backend)


def in_place(net: Any, backend: Any) -> tuple[nn.Module, Callable[..., Any]]:
    net.compile(backend=backend)
    return net, net


def forward(net: Any, backend: Any) -> tuple[nn.Module, Callable[..., Any]]:
    net.forward = torch.compile(net.forward, backend=backend)
    return net, net


WAYS = [inside, whole, untold, in_place, forward]


def train(how: Any, where: Path | None, every: int) -> tuple[Any, Any, list[torch.Tensor], Any]:
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    counter, net = CompileCounter(), Net()
    model, run = how(net, counter)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = None
    if where is not None:
        probes = [Activations(every=every), Gradients(every=every)]
        recorder = attach(model, optimizer, probes=probes, spool=where, strict=True, verdict=False)
    outputs = []
    generator = torch.Generator().manual_seed(4)
    for _ in range(8):
        x = torch.randn(32, 12, generator=generator)
        with torch.no_grad():
            outputs.append(functional.linear(x, net.first.weight, net.first.bias))
        optimizer.zero_grad()
        loss = run(x).square().mean()
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.step(loss, 32)
    if recorder is not None:
        recorder.finish()
    return recorder, net, outputs, counter


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("every", [1, 2])
def test_a_compiled_model_keeps_one_graph_and_is_measured_right(
    how: Any, every: int, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    _, bare, _, alone = train(how, None, every)
    recorder, net, outputs, counter = train(how, tmp_path, every)
    for key, value in bare.state_dict().items():
        assert torch.equal(value, net.state_dict()[key]), key
    assert alone.frame_count == 1
    # one graph for the steps that are sampled, and one for those that are not
    assert counter.frame_count == every
    assert not counters["graph_break"]
    assert not [w for w in recwarn if "global hooks" in str(w.message)]
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "activations")
    (first,) = [n for n in series.columns if n.startswith("sum_sq/") and n.endswith("first")]
    (act,) = [n for n in series.columns if n.startswith("saturated/")]
    seen = outputs[::every]
    squares = [float(y.double().square().sum()) for y in seen]
    np.testing.assert_allclose(series.column(first), squares, rtol=1e-5)
    zeros = [float((y <= 0).float().mean()) for y in seen]
    np.testing.assert_allclose(series.column(act), zeros, rtol=1e-5)


def test_warnings_that_are_errors_do_not_end_a_second_run(tmp_path: Path) -> None:
    train(untold, tmp_path / "first", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # in front of what the first run added
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        recorder, *_ = train(untold, tmp_path / "second", 1)
    assert recorder.steps == 8


def test_another_model_that_is_compiled_is_not_compiled_for_us(tmp_path: Path) -> None:
    counter = CompileCounter()
    teacher, net = torch.compile(Net(), backend=counter), Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    probes = [Activations(every=2)]
    with attach(
        net, optimizer, probes=probes, spool=tmp_path, strict=True, verdict=False
    ) as recorder:
        for _ in range(6):
            x = torch.randn(32, 12)
            optimizer.zero_grad()
            loss = (net(x) - teacher(x).detach()).square().mean()
            loss.backward()
            optimizer.step()
            recorder.step(loss, 32)
    assert counter.frame_count == 1
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "activations")
    assert (series.column("numel/first") == 32 * 20).all()


def test_a_compiled_lightning_module_is_recorded_like_any_other(tmp_path: Path) -> None:
    made: list[Any] = []

    def make() -> Any:
        torch._dynamo.reset()
        # the memory of the net is no part of a graph
        made.append(remembering(net=Net))
        made[-1].memory.add = torch.compiler.disable(made[-1].memory.add)
        return torch.compile(made[-1], backend="aot_eager")

    told = both(tmp_path, make)
    module = made[-1]
    assert module._compiler_ctx["compiler"] == "dynamo"
    eager = lambda batch: functional.cross_entropy(module.net(batch[0]), batch[1])  # noqa: E731
    with torch.compiler.set_stance("force_eager"):
        rows = module.memory.again(module, eager)
    np.testing.assert_allclose(told.column("loss"), [loss for loss, _ in rows], rtol=1e-5)
    np.testing.assert_allclose(told.column("grad_sq"), [square(g) for _, g in rows], rtol=1e-4)
    assert (np.array(told.column("numel/net.first", "activations")) == 16 * 20).all()
