"""Effective rank, tail index and per-example norms, against other ways to compute them."""

from __future__ import annotations

import math

import pytest
import torch
from otoscope.callbacks.measures import (
    effective_rank,
    per_example_squares,
    sampled_rows,
    tail_index,
)
from otoscope.store import ConfigError
from torch import Tensor, nn


def by_singular_values(rows: Tensor) -> float:
    p = torch.linalg.svdvals(rows.double())
    p = p[p > 0] / p.sum()
    return float((-(p * p.log()).sum()).exp()) / min(rows.shape)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (16, 16)])
def test_the_effective_rank_is_that_of_the_singular_values(shape):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(
        0, -3, shape[1]
    )
    assert effective_rank(rows).item() == pytest.approx(by_singular_values(rows), rel=1e-5)


def test_directions_are_counted_and_collapse_reads_one_over_units():
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    half = torch.cat([basis[:4], -basis[:4]])
    assert effective_rank(half).item() == pytest.approx(4 / 8, rel=1e-4)
    assert effective_rank(
        torch.randn(64, 1, generator=generator) @ torch.ones(1, 8)
    ).item() == pytest.approx(1 / 8)


def test_units_are_last_in_sequences_and_second_in_images():
    tokens = torch.randn(4, 10, 6, generator=torch.Generator().manual_seed(2))
    assert effective_rank(tokens).item() == pytest.approx(by_singular_values(tokens.view(40, 6)))
    image = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(3))
    flat = image.permute(0, 2, 3, 1).reshape(-1, 6)
    assert effective_rank(image).item() == pytest.approx(by_singular_values(flat), rel=1e-6)
    assert effective_rank(tokens, dim=1).item() == pytest.approx(
        by_singular_values(tokens.mT.reshape(-1, 10)), rel=1e-6
    )


def test_sampled_rows_are_rows_of_the_output_spread_over_all_samples():
    image = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5).float()
    rows = sampled_rows(image, rows=8)
    everything = image.permute(0, 2, 3, 1).reshape(-1, 3)
    assert torch.equal(rows, everything[(torch.arange(8) * 40) // 8])


def test_outputs_without_a_direction_have_no_rank():
    assert math.isnan(effective_rank(torch.zeros(4, 4)).item())
    broken = torch.ones(4, 4)
    broken[1, 2] = math.nan
    assert math.isnan(effective_rank(broken).item())
    for shape in ((5,), (0, 3)):
        with pytest.raises(ConfigError, match="must have a dimension of samples"):
            effective_rank(torch.ones(shape))


def stable(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """Draws of a symmetric α-stable law (Chambers, Mallows and Stuck 1976)."""
    angle = math.pi * (torch.rand(count, generator=generator, dtype=torch.float64) - 0.5)
    energy = -torch.rand(count, generator=generator, dtype=torch.float64).log()
    first = (alpha * angle).sin() / angle.cos() ** (1 / alpha)
    return first * (((1 - alpha) * angle).cos() / energy) ** ((1 - alpha) / alpha)


@pytest.mark.parametrize("alpha", [0.7, 1.0, 1.5, 2.0])
def test_the_tail_index_of_stable_laws_is_their_own(alpha):
    generator = torch.Generator().manual_seed(4)
    found = torch.stack([tail_index(stable(alpha, 40_000, generator)) for _ in range(20)])
    standard_error = float(found.std()) / math.sqrt(20)
    assert abs(float(found.mean()) - alpha) <= max(0.02 * alpha, 3 * standard_error)


def test_unequal_scales_make_a_gaussian_look_heavy_tailed_as_its_caveat_says():
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(100_000, generator=generator)
    scales = (2 * torch.randn(100_000, generator=generator)).exp()
    assert tail_index(noise, group=10).item() > 1.9
    assert tail_index(noise * scales, group=10).item() < 1.2


def test_zeros_are_left_out_of_the_tail():
    noise = torch.randn(10_000, generator=torch.Generator().manual_seed(6))
    with_zeros = noise.clone()
    with_zeros[::1000] = 0
    assert tail_index(with_zeros).item() == pytest.approx(tail_index(noise).item(), rel=0.02)


def test_too_little_noise_has_no_tail():
    assert math.isnan(tail_index(torch.ones(3)).item())
    assert math.isnan(tail_index(torch.zeros(64)).item())
    with pytest.raises(ConfigError, match="group must be between 2 and half of the 10"):
        tail_index(torch.randn(10), group=6)


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear over tokens, through products": (nn.Linear(50, 30), (4, 3, 50)),
    "linear over tokens, through gradients": (nn.Linear(5, 3), (4, 9, 5)),
    "linear over two dimensions": (nn.Linear(5, 3, bias=False), (4, 2, 6, 5)),
    "layer norm": (nn.LayerNorm(6), (4, 6)),
    "layer norm over tokens": (nn.LayerNorm([2, 3]), (4, 7, 2, 3)),
    "layer norm without weights": (nn.LayerNorm(6, elementwise_affine=False), (4, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_squares_of_examples_are_those_of_one_backward_pass_each(name):
    module, shape = LAYERS[name]
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(6))
    compare(module, inputs)


@pytest.mark.parametrize("padding", [None, 1])
def test_an_embedding_adds_up_the_positions_of_the_same_token(padding):
    ids = torch.randint(0, 4, (5, 9), generator=torch.Generator().manual_seed(7))
    compare(nn.Embedding(4, 3, padding_idx=padding), ids)
    compare(nn.Embedding(4, 3, padding_idx=padding), ids[:, 0])


def test_frozen_parameters_do_not_count():
    module = nn.Linear(5, 3)
    module.weight.requires_grad_(False)
    compare(module, torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(8)))
    table = nn.Embedding(4, 3).requires_grad_(False)
    ids = torch.zeros(2, 3, dtype=torch.long)
    assert per_example_squares(table, ids, torch.ones(2, 3, 3)).tolist() == [0.0, 0.0]


def compare(module: nn.Module, inputs: Tensor) -> None:
    parameters = [p for p in module.parameters() if p.requires_grad]
    grad = torch.randn(module(inputs).shape, generator=torch.Generator().manual_seed(9))

    found = per_example_squares(module, inputs, grad)

    for i in range(len(inputs)):
        part = (module(inputs[i : i + 1]) * grad[i : i + 1]).sum()
        grads = torch.autograd.grad(part, parameters) if parameters else ()
        expected = sum(float(g.double().square().sum()) for g in grads)
        assert found[i].item() == pytest.approx(expected, rel=1e-5)
    assert found.shape == (len(inputs),)


def test_other_modules_and_other_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"got Conv1d; leave this module out"):
        per_example_squares(nn.Conv1d(1, 1, 1), torch.ones(1, 1, 1), torch.ones(1, 1, 1))
    with pytest.raises(ConfigError, match="must agree in all dimensions"):
        per_example_squares(nn.Linear(2, 2), torch.ones(4, 2), torch.ones(3, 2))
