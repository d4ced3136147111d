"""Saturation and dead units, held against the derivatives that autograd computes."""

from __future__ import annotations

import pytest
import torch
from otoscope.callbacks.measures import KINDS, activation_kind, dead_units, saturated_share
from otoscope.store import ConfigError
from torch import nn

MODULES: dict[str, nn.Module] = {
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(),
    "elu": nn.ELU(),
    "selu": nn.SELU(),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(),
    "hardsigmoid": nn.Hardsigmoid(),
}


def slope(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(module(x).sum(), x)[0].abs()


@pytest.mark.parametrize("kind", KINDS)
def test_the_saturated_inputs_are_the_tail_where_the_slope_is_under_five_percent(kind):
    x = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    flat = slope(MODULES[kind], x) < 0.05 * slope(MODULES[kind], x).max()
    # The tail: flat from here on to the end of the axis (a single zero of f' does not count).
    left = flat.long().cumprod(0).bool()
    right = flat.flip(0).long().cumprod(0).bool().flip(0)
    expected = (left | right).double().mean().item()

    assert saturated_share(x, kind).item() == pytest.approx(expected, abs=0.01 / 24 * 2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_recognised_from_its_module(kind):
    assert activation_kind(MODULES[kind]) == kind


def test_modules_that_cannot_saturate_have_no_kind():
    assert activation_kind(nn.LeakyReLU()) is None
    assert activation_kind(nn.Linear(2, 2)) is None


def test_nan_is_not_saturated_and_infinity_is():
    assert saturated_share(torch.tensor([float("nan"), 0.0]), "tanh").item() == 0.0
    assert saturated_share(torch.tensor([float("inf"), -float("inf")]), "tanh").item() == 1.0


def test_a_hardtanh_with_its_own_bounds_saturates_there():
    x = torch.tensor([-2.0, 0.0, 0.5, 0.9])
    assert saturated_share(x, "hardtanh", low=0.0, high=0.9).item() == 0.75


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"tanh.*got 'swish2'"):
        saturated_share(torch.zeros(2), "swish2")


def test_dead_units_of_a_dense_layer_never_fire_on_any_sample():
    outputs = torch.relu(torch.randn(64, 5, generator=torch.Generator().manual_seed(0)))
    outputs[:, 3] = 0.0
    assert dead_units(outputs).tolist() == [False, False, False, True, False]


def test_units_of_images_are_channels_and_of_sequences_the_last_dimension():
    image = torch.zeros(4, 3, 8, 8)
    image[2, 1, 5, 5] = 1.0
    assert dead_units(image).tolist() == [True, False, True]

    sequence = torch.zeros(4, 7, 3)
    sequence[1, 6, 0] = 1.0
    assert dead_units(sequence).tolist() == [False, True, True]
    assert dead_units(sequence, dim=1).tolist() == [True] * 6 + [False]


def test_a_unit_that_gives_nan_is_not_called_dead():
    outputs = torch.zeros(4, 2)
    outputs[0, 0] = float("nan")
    assert dead_units(outputs).tolist() == [False, True]
