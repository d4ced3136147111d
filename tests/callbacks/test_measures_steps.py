"""Edge of stability, Newton gain, step position and horizon, against closed forms and real descents."""

from __future__ import annotations

import math

import pytest
import torch
from otoscope.callbacks.measures import (
    edge_of_stability,
    hessian_eigenvalues,
    horizon,
    newton_gain,
    step_position,
)
from otoscope.store import ConfigError
from torch import nn


def distance_after(optimizer: torch.optim.Optimizer, w: torch.Tensor, curvature: float) -> float:
    for _ in range(400):
        optimizer.zero_grad()
        (0.5 * curvature * w.square()).sum().backward()
        optimizer.step()
    return w.abs().item()


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_converges_below_its_edge_and_diverges_above(momentum, nesterov):
    edge = edge_of_stability("SGD", 0.1, momentum=momentum, nesterov=nesterov)
    for share, converges in ((0.97, True), (1.03, False)):
        w = torch.ones(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1, momentum=momentum, nesterov=nesterov)
        assert (distance_after(optimizer, w, share * edge) < 1) == converges


def test_the_edge_of_adam_is_that_of_averaged_momentum_on_a_fixed_preconditioner():
    edge = edge_of_stability("AdamW", 0.1, beta1=0.9)
    assert edge == pytest.approx(380)
    for share, converges in ((0.97, True), (1.03, False)):
        w = torch.ones(1, dtype=torch.float64, requires_grad=True)
        # With dampening = momentum SGD takes steps along the running mean of gradients, as Adam does.
        optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9, dampening=0.9)
        assert (distance_after(optimizer, w, share * edge) < 1) == converges


def test_an_unknown_optimizer_has_an_unknown_edge():
    assert math.isnan(edge_of_stability("RMSprop", 0.1))


def test_a_learning_rate_of_zero_is_always_stable():
    assert edge_of_stability("sgd", 0.0) == math.inf


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="lr must be finite"):
        edge_of_stability("SGD", -0.1)
    with pytest.raises(ConfigError, match="momentum and beta1"):
        edge_of_stability("SGD", 0.1, momentum=1.0)


def test_full_batch_descent_hovers_where_the_top_eigenvalue_meets_the_edge():
    """Cohen et al. 2021: on a squared loss the sharpness rises to 2/lr and stays there."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 5)
        )
        x, y = torch.randn(100, 20), torch.randn(100, 5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    edge = edge_of_stability("SGD", 0.3)

    def loss() -> torch.Tensor:
        return (net(x) - y).square().sum(1).mean()

    ratios = []
    for step in range(1000):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if step in (0,) or (step >= 800 and step % 20 == 0):
            top = hessian_eigenvalues(loss, net.parameters(), k=1, tol=1e-2)
            ratios.append(top.values[0].item() / edge)
    assert ratios[0] < 0.7
    late = sorted(ratios[1:])
    assert late[len(late) // 2] == pytest.approx(1.0, abs=0.1)


def test_the_newton_gain_of_a_quadratic_is_exact_and_lies_between_1_and_101():
    scales = torch.tensor([0.0, 1.0, 10.0, 100.0], dtype=torch.float64)
    w = torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        return 0.5 * (scales * w**2).sum() + w[0]

    spectrum = hessian_eigenvalues(loss, [w], k=1, tol=0, max_products=4)

    energy = torch.tensor([1.0, 1.0, 100.0, 10_000.0], dtype=torch.float64)
    exact = 1.01 * 100 * (energy / energy.sum() / (scales + 1.0)).sum()
    gain = newton_gain(spectrum.ritz_values, spectrum.ritz_weights)
    assert gain == pytest.approx(exact.item(), rel=1e-9)
    flat = newton_gain(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert flat == pytest.approx(101.0)
    round_valley = newton_gain(torch.tensor([2.0, 2.0]), torch.tensor([0.3, 0.7]))
    assert round_valley == pytest.approx(1.0)


def test_there_is_no_newton_gain_without_a_positive_top():
    assert math.isnan(newton_gain(torch.tensor([-1.0]), torch.tensor([1.0])))
    assert math.isnan(newton_gain(torch.tensor([math.nan]), torch.tensor([1.0])))
    with pytest.raises(ConfigError, match="same shape"):
        newton_gain(torch.ones(2), torch.ones(3))


@pytest.mark.parametrize("lr", [0.1, 0.5, 1.0])
def test_the_position_of_a_descent_step_on_a_quadratic_is_its_closed_form(lr):
    curvature, w = 2.0, 3.0
    update = -lr * curvature * w
    position = step_position(curvature * w * update, curvature * update**2)
    assert position == pytest.approx(lr * curvature - 1)


def test_uphill_steps_have_no_position_and_wild_ones_are_clipped():
    assert math.isnan(step_position(0.0, 1.0))
    assert math.isnan(step_position(-1.0, math.nan))
    assert step_position(-1e-9, 1.0) == 3.0
    assert step_position(-1.0, -5.0) == -1.0


SCAN = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]


def test_a_quadratic_has_no_horizon():
    assert horizon(SCAN, [2 - 3 * c + c * c for c in SCAN], slope=-3, curvature=2) == math.inf


def test_the_horizon_of_a_quartic_is_where_its_fourth_power_takes_over():
    # |0.05 c^4| <= 0.2 (2c + c²) up to c = 2.3 (c = 2: 0.8 <= 1.6; c = 4: 12.8 > 4.8)
    losses = [1 - 2 * c + c * c + 0.05 * c**4 for c in SCAN]
    assert horizon(SCAN, losses, slope=-2, curvature=2) == 2.0


def test_a_loss_that_blows_up_at_once_has_horizon_zero():
    assert horizon(SCAN, [1.0] + [math.inf] * 7, slope=-1, curvature=0) == 0.0
    assert horizon(SCAN, [1.0] + [math.nan] * 7, slope=-1, curvature=0) == 0.0


def test_rounding_does_not_take_the_horizon_of_a_tiny_step():
    losses = [100.0 + 5e-5 * (i % 2) for i in range(8)]
    assert horizon(SCAN, losses, slope=-1e-9, curvature=0) == math.inf


def test_a_scan_without_its_origin_is_refused():
    with pytest.raises(ConfigError, match="0 be scanned"):
        horizon([1.0], [2.0], -1, 0)
