"""The curvature probe, driven by hand: its numbers against dense references."""

from __future__ import annotations

import math

import pytest
import torch
from otoscope.callbacks.probes.curvature import Curvature
from otoscope.callbacks.probes.probe import Training
from torch import Tensor, nn

from tests.callbacks.by_hand import Fit


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


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_pyhessian_finds_the_same_eigenvalues_and_leaves_model_and_gradients_alone(kind):
    fit = Fit(lambda p: kind(p, lr=0.01))
    fit.model.float()
    fit.batches = [(x.float(), y) for x, y in fit.batches]
    own = fit.sample(Curvature(k=2, products=40))
    for p in fit.model.parameters():
        p.grad = torch.ones_like(p)
    states, probe = torch.get_rng_state(), Curvature(k=2, engine="pyhessian", products=400)

    theirs = fit.sample(probe)

    assert torch.equal(states, torch.get_rng_state())
    assert all(bool((p.grad == 1).all()) for p in fit.model.parameters() if p.grad is not None)
    assert all(m.training for m in fit.model.modules())
    for name in ("lambda_1", "lambda_2", "edge_ratio"):
        assert theirs[name] == pytest.approx(own[name], rel=0.02), name
    assert 0 < theirs["lambda_spread"] < own["lambda_1"]
    assert theirs["batch_sharpness"] == own["batch_sharpness"]
    assert abs(theirs["lambda_1"] - own["lambda_1"]) <= theirs["bound_1"] + 1e-6
    assert math.isnan(theirs["newton_gain"])
    assert theirs["products"] > own["products"] / 3


@pytest.mark.parametrize("engine", ["lanczos", "pyhessian"])
def test_one_batch_has_no_spread(engine):
    fit = Fit()
    fit.batches = fit.batches[-1:]
    measured = fit.sample(Curvature(engine=engine))
    assert math.isnan(measured["lambda_spread"])
    g, h = fit.dense(fit.batches)
    assert measured["batch_sharpness"] == pytest.approx((g @ h @ g / (g @ g)).item(), rel=1e-3)


def test_each_of_several_optimizers_is_held_against_the_edge_of_its_own_block():
    fit = Fit()
    first, last = fit.model.first.parameters(), fit.model.last.parameters()
    optimizers = [
        torch.optim.SGD(first, lr=0.1),
        torch.optim.SGD(last, lr=0.3, momentum=0.5),
        torch.optim.RMSprop(fit.model.norm.parameters(), lr=0.1),
    ]
    training = fit.training()
    training.optimizers = optimizers
    measured = fit.sample(Curvature(products=60), training)

    _, h = fit.dense(fit.batches)  # in the model's order: first 56, norm 16, last 27
    tops = [torch.linalg.eigvalsh(h[i:j, i:j])[-1].item() for i, j in ((0, 56), (72, 99))]
    assert measured["edge_ratio/0"] == pytest.approx(tops[0] * 0.1 / 2, rel=1e-3)
    assert measured["edge_ratio/1"] == pytest.approx(tops[1] * 0.3 / 3, rel=1e-3)
    assert math.isnan(measured["edge_ratio/2"])
    assert "edge_ratio" not in measured


@pytest.mark.parametrize(
    ("kind", "lr", "steps"), [(torch.optim.SGD, 0.6, 900), (torch.optim.Adam, 0.01, 1500)]
)
def test_training_on_the_full_batch_settles_at_the_edge_of_stability(kind, lr, steps):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5)]
        model = nn.Sequential(*layers)
        batch = (torch.randn(100, 20), torch.randn(100, 5))
    optimizer = kind(model.parameters(), lr=lr)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    probe = Curvature()
    columns = probe.attach(Training(model, [optimizer], loss_fn=loss, batches=lambda: [batch]))
    measured = dict(zip([c.name for c in columns], probe.sample(steps), strict=True))
    assert measured["edge_ratio"] == pytest.approx(1.0, abs=0.04)


def test_the_edge_is_that_of_the_rate_that_the_step_was_taken_with():
    fit = Fit()
    probe = Curvature()
    columns = [c.name for c in probe.attach(fit.training())]
    probe.arm(20)
    fit.optimizer.param_groups[0]["lr"] = 0.4  # a scheduler's, for the next step
    armed = dict(zip(columns, probe.sample(20), strict=True))
    now = dict(zip(columns, probe.sample(21), strict=True))
    assert now["edge_ratio"] == pytest.approx(4 * armed["edge_ratio"])


def test_adam_has_an_edge_from_its_tenth_step_and_moves_nothing_without_gradients():
    few, enough = (Fit(lambda p: torch.optim.Adam(p, lr=0.01), steps=n) for n in (9, 10))
    assert math.isnan(few.sample(Curvature())["edge_ratio"])
    before = enough.sample(Curvature())["edge_ratio"]
    assert before > 0
    enough.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3).double())]})
    assert enough.sample(Curvature())["edge_ratio"] == pytest.approx(before, rel=1e-6)
