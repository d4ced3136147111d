"""Models whose activations are called, and what must not be taken for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Activations, attach
from torch import nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from tests.callbacks.loops import Called, Loop, names


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    """What torch.compile did in other tests of this process is no part of these."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


def test_activations_that_are_called_are_those_of_a_direct_count(tmp_path: Path) -> None:
    loop = Loop(tmp_path, lambda: nn.Sequential(Called(), nn.Linear(12, 3)))
    series = loop.run(steps=3)
    seen = loop.model[0].seen
    named = names(series, "saturated")
    assert named == ["0.relu()", "0.relu()#2", "0.tanh()", "0.sigmoid()", "0.relu()#3"]

    def share(values: torch.Tensor, low: float, high: float | None = None) -> float:
        flat = values <= low if high is None else values.abs() > high
        return float(flat.float().mean())

    wanted = {
        "0.relu()": [share(v, 0.0) for v in seen["relu()"]],
        "0.relu()#2": [share(v, 0.0) for v in seen["clamped"]],
        "0.tanh()": [share(v, 0.0, 2.18) for v in seen["tanh()"]],
        "0.sigmoid()": [
            share(torch.stack(seen["sigmoid()"][i : i + 2]), 0.0, 4.36) for i in (0, 2, 4)
        ],
        "0.relu()#3": [share(v, 0.0) for v in seen["relu()#2"]],
    }
    for name, expected in wanted.items():
        found = series.column(f"saturated/{name}")
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)
    assert series.column("units/0.relu()").tolist() == [20.0] * 3
    assert series.column("numel/0.sigmoid()").tolist() == [2 * 24 * 12.0] * 3


def test_dead_units_of_a_called_relu_are_counted(tmp_path: Path) -> None:
    class Dying(Called):
        def __init__(self) -> None:
            super().__init__()
            with torch.no_grad():
                self.first.bias[:5] = -100.0

    series = Loop(tmp_path, Dying).run(steps=24, lr=0.0)
    assert series.column("dead/relu()")[-1] == pytest.approx(5 / 20)


def test_a_layer_of_torch_that_calls_its_activation_is_named_by_its_path(tmp_path: Path) -> None:
    def make() -> nn.Module:
        layer = nn.TransformerEncoderLayer(12, 2, 16, dropout=0.0, batch_first=True)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    loop = Loop(tmp_path, make, shape=(5, 12))
    series = loop.run(steps=2)
    assert names(series, "saturated") == ["layers.0.relu()", "layers.1.relu()"]
    assert series.column("units/layers.0.relu()").tolist() == [16.0, 16.0]
    assert (series.column("numel/layers.0.linear1") == 24 * 5 * 16).all()


def test_what_an_activation_is_made_of_is_no_activation(tmp_path: Path) -> None:
    class Swish(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.sigmoid(x)

    class Hinge(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (1 - x).clamp(min=0).mean()

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(12, 8), Swish(), nn.ReLU(), nn.Linear(8, 3), Hinge())

    series = Loop(tmp_path, make).run(call=lambda model, batch: model(batch))
    assert names(series, "saturated") == ["2"]


def test_a_step_that_is_not_sampled_has_nothing_of_ours_in_its_forward_pass(
    tmp_path: Path,
) -> None:
    inside: list[tuple[int, int]] = []

    def call(model: Any, batch: torch.Tensor) -> torch.Tensor:
        output = model(batch)
        assert not _get_current_function_mode_stack()  # left with the outermost forward pass
        hooks = nn.modules.module._global_forward_hooks
        inside.append((len(hooks), sum(len(m._forward_hooks) for m in model.modules())))
        return output.square().mean()

    Loop(tmp_path, Called).run(steps=6, call=call, every=3)
    assert inside == [(0, 0)] * 6 + [(1, 0), (0, 0), (0, 0)] * 2
    assert not nn.modules.module._global_forward_hooks


class Upper(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_a_mode_that_a_forward_pass_enters_and_leaves_later_stays_the_users(
    tmp_path: Path,
) -> None:
    mode = Upper()

    class Entering(Called):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mode.__enter__()
            return super().forward(x)

    def call(model: Any, batch: torch.Tensor) -> torch.Tensor:
        loss = model(batch).square().mean()
        assert _get_current_function_mode_stack() == [mode]
        mode.__exit__(None, None, None)
        assert _get_current_function_mode_stack() == []
        return loss

    series = Loop(tmp_path, Entering).run(call=call)
    assert "relu()" in names(series, "saturated")


def test_a_mode_of_the_users_own_sees_nothing_of_what_we_compute(tmp_path: Path) -> None:
    counts: list[int] = []

    class Counting(Upper):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            counts[-1] += 1
            return super().__torch_function__(func, types, args, kwargs)

    def call(model: Any, batch: torch.Tensor) -> torch.Tensor:
        counts.append(0)
        with Counting():
            return model(batch).square().mean()

    make = lambda: nn.Sequential(Called(), nn.ReLU(), nn.Linear(12, 3), nn.Tanh())  # noqa: E731
    Loop(tmp_path, make).run(steps=3, call=call)
    assert counts[:3] == counts[3:] and counts[0] > 10


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_forward_pass_that_raises_leaves_no_mode_and_no_hook(
    error: type[BaseException], tmp_path: Path
) -> None:
    class Raising(Called):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            super().forward(x)
            raise error("the user's own")

    with pytest.raises(error, match="the user's own"):
        model = Raising()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        probes = [Activations(every=1)]
        with attach(model, optimizer, probes=probes, spool=tmp_path, strict=True, verdict=False):
            model(torch.randn(4, 12))
    assert _get_current_function_mode_stack() == []
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks


def test_a_validation_between_two_steps_does_not_count_into_the_next(tmp_path: Path) -> None:
    def call(model: Any, batch: torch.Tensor) -> torch.Tensor:
        model.eval()
        with torch.no_grad():
            model(torch.full((1000, 12), 1e6))
        model.train()
        return model(batch).square().mean()

    series = Loop(tmp_path, Called).run(call=call)
    assert (series.column("numel/first") == 24 * 20).all()
    assert series.column("absmax/first").max() < 100


def test_a_part_in_eval_mode_counts_where_gradients_pass_through_it(tmp_path: Path) -> None:
    def call(model: Any, batch: torch.Tensor) -> torch.Tensor:
        model[0].eval()  # as one keeps the statistics of a BatchNorm
        return model(batch).square().mean()

    make = lambda: nn.Sequential(Called(), nn.Linear(12, 3))  # noqa: E731
    series = Loop(tmp_path, make).run(call=call)
    assert (series.column("numel/0.first") == 24 * 20).all()
    assert (series.column("units/0.relu()") == 20).all()
