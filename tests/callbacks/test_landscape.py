"""The landscape probe, driven by hand: its numbers against closed forms, and real small trainings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from otoscope.callbacks import Landscape
from otoscope.callbacks.probes.probe import Training
from torch import Tensor, nn
from torch.nn import functional as F

NAMES = [f"scan_{i}" for i in range(8)]


class Stepper:
    """A model, its optimizer and its batches; `sample` takes one step and looks at it."""

    def __init__(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        loss_fn: Callable[[Any, Any], Tensor],
        batches: list[Any],
    ) -> None:
        self.model, self.optimizer, self.loss_fn = model, optimizer, loss_fn
        self.batches, self.notes = batches, []
        self.probe = Landscape()
        self.names = [column.name for column in self.probe.attach(self.training())]

    def training(self) -> Training:
        return Training(
            self.model,
            [self.optimizer],
            loss_fn=self.loss_fn,
            batches=lambda: self.batches[-4:],
            note=self.notes.append,
        )

    def step(self) -> None:
        self.optimizer.zero_grad()
        torch.stack([self.loss_fn(self.model, b) for b in self.batches]).mean().backward()
        self.optimizer.step()

    def sample(self) -> dict[str, float]:
        self.probe.arm(1)
        self.step()
        return dict(zip(self.names, self.probe.sample(1), strict=True))


def line(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return 0.5 * (model(batch[0]).squeeze(-1) - batch[1]).square().mean()


def regression(lr: float) -> Stepper:
    """Linear regression on the full batch: the loss is a quadratic, its Hessian is known."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(64, 5, generator=generator)
    y = torch.randn(64, generator=generator)
    model = nn.Linear(5, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.randn(1, 5, generator=generator))
    return Stepper(model, torch.optim.SGD(model.parameters(), lr), line, [(x, y)])


@pytest.mark.parametrize("lr", [0.01, 0.9, 1.5])
def test_on_a_quadratic_position_slope_and_curvature_are_exact_and_no_horizon_is_in_sight(lr):
    stepper = regression(lr)
    x, y = (t.double() for t in stepper.batches[0])
    before = stepper.model.weight.detach().double().clone().view(-1)

    found = stepper.sample()

    gradient = x.T @ (x @ before - y) / 64
    delta = -lr * gradient
    bend = (delta @ (x.T @ x / 64) @ delta).item()
    slope = (gradient @ delta).item()
    assert found["slope"] == pytest.approx(slope, rel=1e-4)
    assert found["curvature_along"] == pytest.approx(bend, rel=1e-4)
    assert found["alpha"] == pytest.approx(min(3.0, -bend / slope - 1), rel=1e-4)
    assert found["horizon"] == 16.0
    assert found["uphill"] == 0.0
    for name, c in zip(NAMES, (0, 0.25, 0.5, 1, 2, 4, 8, 16), strict=True):
        exact = 0.5 * (x @ (before + c * delta) - y).square().mean().item()
        assert found[name] == pytest.approx(exact, rel=1e-4), name


class Quartic(nn.Module):
    """f(w) = w⁴/4 - w²/2 + 2w, of one weight."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self) -> Tensor:
        return self.w**4 / 4 - self.w**2 / 2 + 2 * self.w


def test_on_a_quartic_the_horizon_ends_where_the_fourth_order_takes_over():
    model = Quartic(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stepper = Stepper(model, optimizer, lambda m, batch: m() * batch.mean(), [torch.ones(3)])
    found = stepper.sample()
    # f' = 2, f'' = 2 at 1, so the update is -0.2: slope -0.4, curvature 0.08
    assert found["slope"] == pytest.approx(-0.4)
    assert found["curvature_along"] == pytest.approx(0.08)
    assert found["alpha"] == pytest.approx(-0.8)
    # the rest, w'''=6: |c³(-0.008) + 0.0004 c⁴| against 0.2 (0.4 c + 0.04 c²): holds at 4, not at 8
    assert found["horizon"] == 4.0


def test_uphill_has_no_position_and_says_so():
    class Ascent(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.add_(p.grad, alpha=0.1)

    stepper = regression(0.1)
    stepper.optimizer = Ascent(stepper.model.parameters(), lr=0.1)
    found = stepper.sample()
    assert found["uphill"] == 1.0
    assert math.isnan(found["alpha"])
    assert found["slope"] > 0
    assert found["horizon"] == 16.0


def test_weights_that_did_not_move_have_no_landscape():
    found = regression(0.0).sample()
    assert all(map(math.isnan, found.values()))


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Dropout(0.2), nn.Linear(32, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def classified(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def trained(lr: float, steps: int) -> Stepper:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Deep()
        x = torch.randn(128, 8)
        y = (x[:, 0] > 0).long() + (x[:, 1] * x[:, 2] > 0).long()
        batches = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 128, 32)]
        stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr), classified, batches)
        for _ in range(steps):
            stepper.step()
    return stepper


def test_a_healthy_net_sees_as_far_as_its_step_and_one_that_blows_up_does_not():
    healthy, torn = trained(0.1, 20), trained(30.0, 3)
    seen = [healthy.sample()["horizon"] for _ in range(5)]
    assert sorted(seen)[2] >= 1
    short = [torn.sample()["horizon"] for _ in range(5)]
    assert sorted(short)[2] <= 0.5


def test_sampling_leaves_no_trace_and_scans_the_real_step():
    watched, bare = trained(0.1, 3), trained(0.1, 3)
    torch.manual_seed(3)
    found = watched.sample()
    states = torch.get_rng_state()
    torch.manual_seed(3)
    bare.step()
    assert torch.equal(states, torch.get_rng_state())

    kept = bare.model.state_dict()
    changed = [k for k, v in watched.model.state_dict().items() if not torch.equal(v, kept[k])]
    assert changed == []
    assert all(m.training for m in watched.model.modules())
    watched.model.layers[3].eval()
    here = torch.stack([classified(watched.model, b) for b in watched.batches]).mean().item()
    assert found["scan_3"] == pytest.approx(here, rel=1e-5)


def test_a_loss_that_draws_and_counts_is_scanned_as_one_function():
    stepper = regression(0.1)
    stepper.model.calls = 0

    def noisy(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        model.calls += 1
        shift = torch.randn(()) + torch.rand(1).item()
        return line(model, batch) + 10 * shift * model.weight.sum() + model.calls

    stepper.loss_fn = noisy
    stepper.probe.attach(stepper.training())
    found = stepper.sample()
    assert stepper.model.calls == 1  # its own step's
    assert found["horizon"] == 16.0  # a quadratic still


def test_a_failure_is_told_once_and_the_third_in_a_row_ends_it():
    stepper = regression(0.1)

    def broken(model: Any, batch: Any) -> Tensor:
        raise ValueError("wants two batches")

    stepper.probe.attach(stepper.training())
    stepper.probe._training.loss_fn = broken  # type: ignore[union-attr]
    assert math.isnan(stepper.sample()["horizon"])
    assert math.isnan(stepper.sample()["horizon"])
    assert stepper.notes == ["landscape could not be measured: ValueError: wants two batches"]


def test_without_the_weights_before_the_step_it_cannot_tell():
    stepper = regression(0.1)
    assert all(map(math.isnan, stepper.probe.sample(1)))
    assert "not armed" in stepper.notes[0]
