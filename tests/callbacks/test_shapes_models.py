"""Models of every shape: activations that are called, checkpointed blocks, recurrence, attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Activations, Gradients, attach
from otoscope.store import Series
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from tests.callbacks.fits import recorded

Step = Callable[[Any, torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    """What torch.compile did in other tests of this process is no part of these."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


class Loop:
    """A plain loop over random batches, with what the model gave of its inner values."""

    def __init__(
        self, where: Path, make: Callable[[], Any], shape: tuple[int, ...] = (12,)
    ) -> None:
        self.where, self.make, self.shape = where, make, shape
        self.batches: list[torch.Tensor] = []

    def train(self, watch: bool, steps: int, call: Step, every: int, lr: float) -> Any:
        torch.manual_seed(5)
        self.model = self.make()
        optimizer = torch.optim.SGD(self.model.parameters(), lr)
        generator = torch.Generator().manual_seed(9)
        self.batches = []
        recorder = None
        if watch:
            recorder = attach(
                self.model,
                optimizer,
                probes=[Activations(every=every), Gradients(every=every)],
                spool=self.where,
                strict=True,
                verdict=False,
            )
        for _ in range(steps):
            batch = torch.randn(24, *self.shape, generator=generator)
            self.batches.append(batch)
            optimizer.zero_grad()
            loss = call(self.model, batch)
            loss.backward()
            optimizer.step()
            if recorder is not None:
                recorder.step(loss, 24)
        if recorder is not None:
            recorder.finish()
        return recorder

    def run(
        self,
        steps: int = 3,
        call: Step = lambda model, batch: model(batch).square().mean(),
        every: int = 1,
        lr: float = 0.1,
    ) -> Series:
        """Train without and with; the weights must end in the same bits."""
        self.train(False, steps, call, every, lr)
        bare = self.model.state_dict()
        recorder = self.train(True, steps, call, every, lr)
        for key, value in bare.items():
            assert torch.equal(value, self.model.state_dict()[key]), key
        return recorded(self.where, recorder.run_id).read(recorder.run_id, "activations")


def names(series: Series, quantity: str) -> list[str]:
    return [
        name.removeprefix(f"{quantity}/")
        for name in series.columns
        if name.startswith(f"{quantity}/")
    ]


class Called(nn.Module):
    """Every activation here is a call: two of one kind on one line, one in a loop, one in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 20), nn.Linear(20, 12)
        self.seen: dict[str, list[torch.Tensor]] = {}

    def note(self, name: str, value: torch.Tensor) -> torch.Tensor:
        self.seen.setdefault(name, []).append(value.detach().clone())
        return value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = functional.relu(self.note("relu()", self.first(x)))
        y = self.note("clamped", self.second(h))
        y = self.note("tanh()", y.clamp(min=0) + 2 * x).tanh()
        for _ in range(2):
            y = self.note("sigmoid()", 3 * y).sigmoid()
        return functional.relu_(self.note("relu()#2", y - 0.5))


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
