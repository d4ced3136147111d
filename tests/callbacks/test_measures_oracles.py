"""The Hessian against oracles of others: torch's own dense one, PyHessian, and where Adam hovers."""

from __future__ import annotations

import copy
import statistics
import warnings

import pyhessian
import pytest
import torch
from otoscope.callbacks.measures import (
    Hessian,
    edge_of_stability,
    hessian_eigenvalues,
    lanczos,
    newton_gain,
)
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.callbacks.test_measures_hessian import NETS, trained


def dense_of_torch(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The Hessian that torch.autograd.functional forms over all parameters as one vector."""
    shapes = {name: p.shape for name, p in net.named_parameters()}

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes.values()])
        weights = {
            name: part.view(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        torch.manual_seed(5)  # of the dropout
        return F.cross_entropy(functional_call(net, weights, (x,)), y)

    weights = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    found = torch.autograd.functional.hessian(loss, weights, vectorize=True)
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("name", NETS)
def test_every_product_in_training_mode_is_that_of_the_dense_hessian_of_torch(name):
    """With batch statistics and dropout as the training has them; all of it, not only the top."""
    net, x, y = trained(name, 3)
    net, x = net.double().train(), x.double()
    exact = dense_of_torch(net, x, y)

    def loss() -> Tensor:
        torch.manual_seed(5)
        return F.cross_entropy(net(x), y)

    with torch.random.fork_rng():
        hessian = Hessian([loss], net.parameters())
        found = torch.stack([hessian(v) for v in torch.eye(len(exact), dtype=torch.float64)])

    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-9)
    energy = torch.linalg.eigh(exact)
    shares = (energy.eigenvectors.T @ hessian.gradient).square() / hessian.gradient.square().sum()
    spectrum = lanczos(lambda v: exact @ v, hessian.gradient, tol=0, max_products=16)
    # Gauss quadrature: 16 products know the first 31 moments of the gradient's energy exactly.
    scaled = energy.eigenvalues / energy.eigenvalues.abs().max()
    ritz = spectrum.ritz_values / energy.eigenvalues.abs().max()
    for power in (1, 2, 5, 20, 31):
        expected = float(shares @ scaled**power)
        assert float(spectrum.ritz_weights @ ritz**power) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", NETS)
def test_pyhessian_finds_the_same_eigenvalues(name):
    net, x, y = trained(name, 2)
    ours = hessian_eigenvalues(lambda: F.cross_entropy(net(x), y), net.parameters(), k=3)

    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # on backward(create_graph=True)
        torch.manual_seed(0)
        theirs = pyhessian.hessian(copy.deepcopy(net), F.cross_entropy, data=(x, y), cuda=False)
        values, _ = theirs.eigenvalues(maxIter=400, tol=1e-6, top_n=3)

    assert ours.smallest > -values[-1]  # else its largest in magnitude were not the largest
    torch.testing.assert_close(
        ours.values, torch.tensor(values, dtype=torch.float64), rtol=5e-3, atol=0
    )


def test_adam_hovers_where_the_preconditioned_top_eigenvalue_meets_its_edge():
    """Cohen et al. 2022: P = √v̂ + ε of full-batch Adam holds λ(P^-1/2 H P^-1/2) at 38/lr."""
    lr = 0.01
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 5)
        )
        x, y = torch.randn(100, 20), torch.randn(100, 5)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    edge = edge_of_stability("Adam", lr)

    def loss() -> Tensor:
        return (net(x) - y).square().sum(1).mean()

    def ratio() -> float:
        hessian = Hessian([loss], net.parameters())
        moments = [optimizer.state[p] for p in hessian.parameters]
        step = float(moments[0]["step"])
        roots = torch.cat(
            [((m["exp_avg_sq"] / (1 - 0.999**step)).sqrt() + 1e-8).reshape(-1) for m in moments]
        ).rsqrt()
        found = lanczos(lambda v: roots * hessian(roots * v), roots * hessian.gradient, tol=0.01)
        hessian.close()
        return found.values[0].item() / edge

    ratios = []
    for step in range(1, 1001):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if step == 20 or (step > 700 and step % 20 == 0):
            ratios.append(ratio())
    assert ratios[0] < 0.7
    assert statistics.median(ratios[1:]) == pytest.approx(1.0, abs=0.1)


def test_a_preconditioner_that_fits_takes_the_newton_gain_to_one():
    """On an ill-conditioned quadratic P = diag(H) makes every direction alike."""
    scales = torch.logspace(0, 3, 40, dtype=torch.float64)
    w = scales.reciprocal().requires_grad_()  # where the gradient is 1 in every direction
    hessian = Hessian([lambda: 0.5 * (scales * w**2).sum()], [w])
    root = scales.rsqrt()
    gains = []
    for product, start in (
        (hessian, hessian.gradient),
        (lambda v: root * hessian(root * v), root * hessian.gradient),
    ):
        found = lanczos(product, start, tol=0, max_products=20)
        gains.append(newton_gain(found.ritz_values, found.ritz_weights))

    exact = float((1.01 * 1000 / (scales + 10)).mean())
    assert gains[0] == pytest.approx(exact, rel=0.15)
    assert gains[1] == pytest.approx(1.0, rel=1e-6)
