"""The curvature probe, driven by hand: its numbers against dense references, and what it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from otoscope.callbacks.probes.curvature import Curvature
from otoscope.callbacks.probes.probe import ProbeOffError, Training
from otoscope.callbacks.undisturbed import CollectiveError
from otoscope.store import ConfigError
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.dropout, self.last = nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(torch.tanh(self.norm(self.first(x)))))


class Fit:
    """A small real training, with its last four batches at hand."""

    def __init__(
        self,
        optimizer: Callable[[Any], torch.optim.Optimizer] = lambda p: torch.optim.SGD(p, lr=0.1),
        size: int = 32,
        steps: int = 30,
    ):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = Net().double()
            self.optimizer = optimizer(self.model.parameters())
            self.batches: list[Batch] = []
            for _ in range(steps):
                batch = (torch.randn(size, 6).double(), torch.randint(0, 3, (size,)))
                self.optimizer.zero_grad()
                cross_entropy(self.model, batch).backward()
                self.optimizer.step()
                self.batches = [*self.batches, batch][-4:]

    def training(self, loss_fn: Callable[..., Tensor] | None = cross_entropy, **more) -> Training:
        return Training(
            self.model, [self.optimizer], loss_fn=loss_fn, batches=lambda: self.batches, **more
        )

    def sample(self, probe: Curvature, training: Training | None = None) -> dict[str, float]:
        columns = probe.attach(training or self.training())
        return dict(zip([c.name for c in columns], probe.sample(20), strict=True))

    def dense(self, batches: list[Batch]) -> tuple[Tensor, Tensor]:
        """Gradient and Hessian of the pool's mean loss by central differences, dropout off."""
        self.model.dropout.eval()
        parameters = list(self.model.parameters())

        def gradient() -> Tensor:
            loss = torch.stack([cross_entropy(self.model, b) for b in batches]).mean()
            return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])

        columns = []
        for p in parameters:
            flat = p.detach().view(-1)
            for i in range(p.numel()):
                value = flat[i].item()
                flat[i] = value + 1e-5
                above = gradient()
                flat[i] = value - 1e-5
                columns.append((above - gradient()) / 2e-5)
                flat[i] = value
        matrix, here = torch.stack(columns), gradient()
        self.model.dropout.train()
        return here, (matrix + matrix.T) / 2


def test_the_eigenvalues_are_those_of_the_dense_hessian_of_the_same_pool():
    fit = Fit()
    measured = fit.sample(Curvature(k=3, products=40))

    _, matrix = fit.dense(fit.batches)
    exact = torch.linalg.eigvalsh(matrix).flip(0)
    for i in range(3):
        assert measured[f"lambda_{i + 1}"] == pytest.approx(exact[i].item(), rel=1e-3)
        assert measured[f"bound_{i + 1}"] <= 0.01 * exact[0]
    assert measured["edge_ratio"] == pytest.approx(exact[0].item() * 0.1 / 2, rel=1e-3)
    assert measured["pool_samples"] == 128


def test_eight_products_give_the_top_to_a_percent():
    fit = Fit()
    measured = fit.sample(Curvature())
    exact = torch.linalg.eigvalsh(fit.dense(fit.batches)[1])[-1].item()
    assert measured["lambda_1"] == pytest.approx(exact, rel=0.01)
    assert measured["products"] == 8 + 1


def test_spread_and_batch_sharpness_are_those_of_the_single_batches():
    fit = Fit()
    measured = fit.sample(Curvature(products=40))

    _, pooled = fit.dense(fit.batches)
    top = torch.linalg.eigh(pooled).eigenvectors[:, -1]
    quotients, sharpness = [], []
    for batch in fit.batches:
        g, h = fit.dense([batch])
        quotients.append((top @ h @ top).item())
        sharpness.append((g @ h @ g / (g @ g)).item())
    assert measured["lambda_spread"] == pytest.approx(max(quotients) - min(quotients), rel=1e-2)
    assert measured["batch_sharpness"] == pytest.approx(sum(sharpness) / 4, rel=1e-3)


def test_share_of_the_gradient_in_the_top_space():
    fit = Fit()
    measured = fit.sample(Curvature(k=2, products=40))
    g, h = fit.dense(fit.batches)
    top = torch.linalg.eigh(h).eigenvectors[:, -2:]
    exact = ((top.T @ g).square().sum() / g.square().sum()).item()
    assert measured["top_space_share"] == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_for_adam_the_edge_is_held_against_the_preconditioned_hessian(kind):
    fit = Fit(lambda p: kind(p, lr=0.01, betas=(0.8, 0.99)))
    measured = fit.sample(Curvature(products=60))

    _, h = fit.dense(fit.batches)
    second = torch.cat(
        [fit.optimizer.state[p]["exp_avg_sq"].view(-1) for p in fit.model.parameters()]
    )
    scale = 1 / ((second / (1 - 0.99**30)).sqrt() + 1e-8).sqrt()
    exact = torch.linalg.eigvalsh(scale[:, None] * h * scale)[-1].item()
    assert measured["preconditioned_lambda"] == pytest.approx(exact, rel=1e-3)
    assert measured["edge_ratio"] == pytest.approx(exact * 0.01 * 0.2 / (2 * 1.8), rel=1e-3)
    assert 1 <= measured["preconditioned_newton_gain"] <= 101


def test_groups_with_rates_of_their_own_are_held_against_the_edge_together():
    def two_groups(parameters):
        first, *rest = parameters
        groups = [{"params": [first], "lr": 0.4}, {"params": rest}]
        return torch.optim.SGD(groups, lr=0.1)

    fit = Fit(two_groups)
    measured = fit.sample(Curvature(products=60))
    _, h = fit.dense(fit.batches)
    rates = torch.full((len(h),), 0.1).double()
    rates[:48] = 0.4
    exact = torch.linalg.eigvalsh(rates.sqrt()[:, None] * h * rates.sqrt())[-1].item() / 2
    assert measured["edge_ratio"] == pytest.approx(exact, rel=1e-3)


def test_an_optimizer_whose_edge_is_unknown_has_no_edge_ratio():
    measured = Fit(lambda p: torch.optim.RMSprop(p, lr=0.001)).sample(Curvature())
    assert math.isnan(measured["edge_ratio"])
    assert measured["lambda_1"] > 0


def test_a_direction_that_the_gradient_has_lost_is_kept_from_the_last_sample():
    w = nn.Parameter(torch.tensor([1.0, 1.0]))
    model = nn.Module()
    model.w = w
    scales = torch.tensor([1.0, 10.0])
    training = Training(
        model,
        [torch.optim.SGD([w], lr=0.1)],
        loss_fn=lambda m, batch: 0.5 * (scales * w**2).sum() * batch.mean(),
        batches=lambda: [torch.ones(2)],
    )
    probe = Curvature()
    probe.attach(training)
    assert probe.sample(20)[0] == pytest.approx(10.0)
    w.data = torch.tensor([1.0, 0.0])  # the gradient is an eigenvector of the smaller value
    assert probe.sample(40)[0] == pytest.approx(10.0)

    blind = Curvature()
    blind.attach(training)
    assert blind.sample(40)[0] == pytest.approx(1.0)


def test_each_batch_is_cut_to_the_samples_asked_for():
    fit = Fit(size=32)
    assert fit.sample(Curvature(samples=8))["pool_samples"] == 32


def test_the_weights_that_the_step_began_with_are_measured_and_those_behind_it_kept():
    fit = Fit()
    expected = fit.sample(Curvature())
    probe = Curvature()
    columns = [c.name for c in probe.attach(fit.training())]
    probe.arm(20)
    for p in fit.model.parameters():
        p.data.mul_(3.0)
    after = [p.detach().clone() for p in fit.model.parameters()]

    measured = dict(zip(columns, probe.sample(20), strict=True))

    assert measured["lambda_1"] == expected["lambda_1"]
    assert all(torch.equal(a, p) for a, p in zip(after, fit.model.parameters(), strict=True))
    again = dict(zip(columns, probe.sample(21), strict=True))  # not armed: the weights as they are
    assert again["lambda_1"] != expected["lambda_1"]


def test_sampling_changes_nothing_of_the_run():
    fit = Fit()
    for p in fit.model.parameters():
        p.grad = torch.ones_like(p)
    before = {k: v.clone() for k, v in fit.model.state_dict().items()}
    states = torch.get_rng_state()
    modes = [m.training for m in fit.model.modules()]

    fit.sample(Curvature(k=2))

    assert all(torch.equal(before[k], v) for k, v in fit.model.state_dict().items())
    assert torch.equal(states, torch.get_rng_state())
    assert modes == [m.training for m in fit.model.modules()]
    assert all(p.grad is not None and bool((p.grad == 1).all()) for p in fit.model.parameters())


def test_a_loss_that_fails_gives_nan_and_the_third_time_switches_the_probe_off():
    fit = Fit()

    def broken(model, batch):
        raise RuntimeError("no second derivative here")

    probe = Curvature()
    probe.attach(fit.training(broken))
    assert math.isnan(probe.sample(20)[0])
    assert math.isnan(probe.sample(40)[0])
    with pytest.raises(ProbeOffError, match=r"3 times in a row.*no second derivative here"):
        probe.sample(60)


def test_a_success_between_starts_the_count_of_failures_anew():
    fit = Fit()
    fail = [True, True, False, True, True, True]

    def sometimes(model, batch):
        if fail[0]:
            raise RuntimeError("out of memory")
        return cross_entropy(model, batch)

    probe = Curvature()
    probe.attach(fit.training(sometimes))
    for expected in (True, True, False, True, True):
        assert math.isnan(probe.sample(20)[0]) == expected
        fail.pop(0)
    with pytest.raises(ProbeOffError):
        probe.sample(20)


def test_weights_that_are_not_finite_give_nan():
    fit = Fit()
    next(iter(fit.model.parameters())).data.fill_(math.nan)
    assert math.isnan(fit.sample(Curvature())["lambda_1"])


def test_a_collective_within_the_loss_switches_the_probe_off_at_once():
    def gathering(model, batch):
        raise CollectiveError("the loss calls torch.distributed.all_gather")

    probe = Curvature()
    probe.attach(Fit().training(gathering))
    with pytest.raises(ProbeOffError, match="all_gather"):
        probe.sample(20)


def test_where_it_cannot_work_it_says_why_from_the_start():
    fit = Fit()
    with pytest.raises(ProbeOffError, match="manual"):
        Curvature().attach(fit.training(None, why_no_loss="manual optimization"))
    with pytest.raises(ProbeOffError, match="sharded"):
        Curvature().attach(fit.training(sharded=True))
    fit.model.bfloat16()
    probe = Curvature()
    probe.attach(fit.training())
    with pytest.raises(ProbeOffError, match="bfloat16"):
        probe.sample(20)


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="k=0"):
        Curvature(k=0)
