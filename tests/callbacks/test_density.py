"""The density probe, driven by hand: its trace, range and area against the dense Hessian."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from otoscope.callbacks import Density
from otoscope.callbacks.probes.probe import Training
from otoscope.store import ConfigError
from torch import Tensor, nn


def quadratic(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return 0.5 * (model(batch[0]).squeeze(-1) - batch[1]).square().mean()


def sampled(**options: Any) -> tuple[dict[str, float], Tensor]:
    """Return a sample on a linear regression, its Hessian's eigenvalues."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(64, 6, generator=generator) * torch.tensor([3.0, 2.0, 1.0, 1.0, 0.5, 0.1])
    batch = (x, torch.randn(64, generator=generator))
    model = nn.Linear(6, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    probe = Density(**options)
    training = Training(model, [optimizer], loss_fn=quadratic, batches=lambda: [batch])
    names = [column.name for column in probe.attach(training)]
    probe.arm(1)
    quadratic(model, batch).backward()
    optimizer.step()
    trained = model.weight.detach().clone()
    found = dict(zip(names, probe.sample(1), strict=True))
    assert torch.equal(model.weight, trained)  # measured where the step began, and put back
    return found, torch.linalg.eigvalsh((x.T @ x / len(x)).double())


def test_trace_range_and_area_are_those_of_the_dense_hessian():
    found, exact = sampled(vectors=64, steps=6)

    assert found["trace"] == pytest.approx(float(exact.sum()), abs=4 * found["trace_error"] + 1e-4)
    width = 0.05 * float(exact[-1] - exact[0])
    assert found["grid_low"] == pytest.approx(float(exact[0]) - width, rel=1e-3, abs=1e-3)
    assert found["grid_high"] == pytest.approx(float(exact[-1]) + width, rel=1e-3)
    heights = torch.tensor([found[f"density_{i}"] for i in range(128)], dtype=torch.float64)
    grid = torch.linspace(found["grid_low"], found["grid_high"], 128, dtype=torch.float64)
    assert float(torch.trapezoid(heights, grid)) == pytest.approx(1.0, rel=1e-3)
    mean = float(torch.trapezoid(heights * grid, grid))
    assert mean == pytest.approx(float(exact.mean()), rel=0.1)


def test_a_single_vector_knows_no_error_of_its_trace():
    found, _ = sampled()
    assert math.isnan(found["trace_error"]) and math.isfinite(found["trace"])


@pytest.mark.parametrize("options", [{"vectors": 0}, {"steps": 0}, {"samples": 0}])
def test_numbers_under_one_are_refused(options):
    with pytest.raises(ConfigError, match="must be at least 1"):
        Density(**options)
