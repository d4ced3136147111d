"""The noise scale from real gradients of a linear regression whose answer is known in closed form.

With x ~ N(0, I_d), y = x·w* + ε and δ = w - w*, the gradient of a sample is x (x·δ - ε): its mean is δ
and tr Σ = (d + 1)|δ|² + d.
"""

from __future__ import annotations

import statistics

import pytest
import torch
from otoscope import store
from otoscope.callbacks import measures
from torch import nn

D = 20
TRUE_SQ = 1.643
TRACE = (D + 1) * TRUE_SQ + D
SCALE = TRACE / TRUE_SQ


def regression() -> nn.Linear:
    """A layer that is off by δ, |δ|² = 1.643, where all weights should be 0."""
    layer = nn.Linear(D, 1, bias=False)
    delta = torch.ones(D) * (TRUE_SQ / D) ** 0.5
    with torch.no_grad():
        layer.weight.copy_(delta)
    return layer


def squares(layer: nn.Linear, batch: int, generator: torch.Generator) -> tuple[float, float, float]:
    """Squared gradient norms: mean over single examples, mean over two halves, whole batch."""
    x = torch.randn(batch, D, generator=generator)
    y = torch.randn(batch, 1, generator=generator)
    outputs = layer(x)
    grad_outputs = torch.autograd.grad(
        0.5 * (outputs - y).square().mean(), outputs, retain_graph=True
    )[0]
    ones = measures.per_example_squares(layer, x, grad_outputs) * batch**2
    halves = []
    for half in (slice(None, batch // 2), slice(batch // 2, None)):
        loss = 0.5 * (layer(x[half]) - y[half]).square().mean()
        halves.append(torch.autograd.grad(loss, [layer.weight])[0].double())
    big = ((halves[0] + halves[1]) / 2).square().sum()
    small = (halves[0].square().sum() + halves[1].square().sum()) / 2
    return float(ones.mean()), float(small), float(big)


@pytest.mark.parametrize(("small", "steps"), [(1, 60), (16, 120)])
def test_both_parts_are_without_bias_and_the_scale_is_right_from_single_examples_and_from_halves(
    small, steps
):
    layer = regression()
    generator = torch.Generator().manual_seed(0)
    gradients, traces, errors, covered = [], [], [], []
    for _ in range(40):
        estimator = measures.NoiseScaleEstimator()
        for _ in range(steps):
            one, half, whole = squares(layer, 32, generator)
            given = one if small == 1 else half
            estimator.update(given, whole, small, 32)
            single = measures.noise_scale(given, whole, small, 32)
            gradients.append(single.gradient_sq)
            traces.append(single.trace)
        found = estimator.estimate()
        errors.append(abs(found.scale / SCALE - 1))
        covered.append(found.low <= SCALE <= found.high)

    assert statistics.mean(gradients) == pytest.approx(TRUE_SQ, rel=0.03)
    assert statistics.mean(traces) == pytest.approx(TRACE, rel=0.03)
    assert statistics.median(errors) < 0.1
    assert sum(covered) >= 34  # 95 % of 40 are 38; fewer than 34 would be one case in 300


def test_the_estimators_are_those_of_the_store():
    for name in ("NoiseEstimate", "NoiseScale", "NoiseScaleEstimator", "noise_scale"):
        assert getattr(measures, name) is getattr(store, name)
