"""Spectral density and trace, against dense spectra."""

from __future__ import annotations

import math

import pytest
import torch
from otoscope.callbacks.measures import lanczos_density, spectral_density
from otoscope.store import ConfigError
from torch import Tensor
from torch.nn import functional as F

from tests.callbacks.test_measures_hessian import NETS, dense, trained
from tests.callbacks.test_measures_lanczos import operator


def moment(density: Tensor, grid: Tensor, power: int) -> float:
    return float(torch.trapezoid(density * grid**power, grid))


@pytest.mark.parametrize("name", NETS)
def test_trace_moments_and_distribution_are_those_of_the_dense_spectrum(name):
    net, x, y = trained(name, 0)
    exact = torch.linalg.eigvalsh(dense(name, 0)[1])
    size = len(exact)

    found = spectral_density(
        lambda: F.cross_entropy(net(x), y),
        net.parameters(),
        probes=8,
        steps=30,
        generator=torch.Generator().manual_seed(1),
    )

    # The variance of v'Hv over signs is 2 (‖H‖² - Σ H_ii²), so at most 2‖H‖².
    error = math.sqrt(2 * float(exact.square().sum()) / 8)
    assert abs(found.trace - float(exact.sum())) <= 3 * error
    assert 0 < found.trace_error <= 3 * error
    assert moment(found.density, found.grid, 0) == pytest.approx(1, abs=1e-3)
    assert moment(found.density, found.grid, 1) == pytest.approx(found.trace / size, rel=1e-3)
    second = float(exact.square().mean())
    assert moment(found.density, found.grid, 2) - found.width**2 == pytest.approx(second, rel=0.5)
    # Distance in distribution: area between the two shares of eigenvalues up to each point.
    step = found.grid[1] - found.grid[0]
    share = found.density.cumsum(0) * step
    true = (exact[:, None] <= found.grid).double().mean(0)
    area = float(((share - true).abs() * step).sum())
    assert area < 0.02 * float(exact[-1] - exact[0])


def test_the_mean_over_many_seeds_is_the_trace():
    matrix = operator(torch.cat([torch.linspace(-1, 0, 10), torch.linspace(0, 5, 20)]).double())
    like = torch.zeros(30, dtype=torch.float64)
    found = [
        lanczos_density(
            matrix.mv, like, probes=2, steps=8, generator=torch.Generator().manual_seed(seed)
        )
        for seed in range(200)
    ]

    traces = torch.tensor([density.trace for density in found])
    standard_error = float(traces.std()) / math.sqrt(200)
    assert abs(float(traces.mean()) - float(matrix.trace())) <= 3 * standard_error
    # What it says of its own error is right in the root mean square.
    said = torch.tensor([density.trace_error for density in found]).square().mean().sqrt()
    assert float(said) == pytest.approx(float(traces.std()), rel=0.25)


def test_a_gap_in_the_spectrum_is_a_gap_in_the_density():
    spectrum = torch.cat([torch.full((75,), -1.0), torch.full((25,), 3.0)]).double()
    found = lanczos_density(operator(spectrum).mv, spectrum, probes=16, steps=5)
    step = float(found.grid[1] - found.grid[0])
    lower = float(found.density[found.grid < 1].sum() * step)
    assert lower == pytest.approx(0.75, abs=0.06)
    assert float(found.density[(found.grid > 0) & (found.grid < 2)].max()) < 1e-6


@pytest.mark.parametrize("scale", [0.0, 4.0])
def test_a_multiple_of_the_identity_is_one_peak(scale):
    found = lanczos_density(lambda v: scale * v, torch.ones(6), probes=2)
    assert found.trace == pytest.approx(6 * scale)
    assert float(found.grid[found.density.argmax()]) == pytest.approx(scale, abs=found.width)
    assert float(torch.trapezoid(found.density, found.grid)) == pytest.approx(1, abs=1e-3)


def test_without_a_generator_the_random_state_of_torch_is_left_alone():
    before = torch.get_rng_state()
    one = lanczos_density(lambda v: 2 * v, torch.ones(4), probes=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert math.isnan(one.trace_error)


@pytest.mark.parametrize("asked", [{"probes": 0}, {"steps": 0}, {"points": 1}])
def test_numbers_out_of_range_are_refused(asked):
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(ConfigError, match="must be at least 1"):
        spectral_density(lambda: w.square().sum(), [w], **asked)
