"""Squared gradient norms of single examples, from what a layer's hooks see in one backward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...store import ConfigError

PER_EXAMPLE = (nn.Linear, nn.LayerNorm, nn.Embedding)
"""Modules whose gradient falls apart into those of the examples, exactly."""


def per_example_squares(module: nn.Module, inputs: Tensor, grad_outputs: Tensor) -> Tensor:
    """Return the squared norm of each example's part of a module's gradient, float64[B].

    `inputs` [B, …] is what went into a Linear, LayerNorm or Embedding (for the last: the ids) and
    `grad_outputs` [B, …, C] the gradient of the loss with respect to what came out. Only parameters
    that require a gradient count. The parts add up to the gradient of the batch: for a loss that is
    a mean over B examples, B² times the result is the squared norm of a single example's gradient.
    Exact for a module that runs once in a forward pass; with examples of several positions through
    the products of their positions, so that no gradient of an example is formed (Goodfellow 2015;
    Li et al. 2022).

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> per_example_squares(layer, torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.ones(2, 1)).tolist()
    [25.0, 1.0]

    Raises ConfigError for another module, and for shapes that do not belong together.
    """
    if not isinstance(module, PER_EXAMPLE):
        raise ConfigError(
            "gradients of single examples are exact for Linear, LayerNorm and Embedding, got "
            f"{type(module).__name__}; leave this module out"
        )
    places = inputs.shape if isinstance(module, nn.Embedding) else inputs.shape[:-1]
    if isinstance(module, nn.LayerNorm):
        places = inputs.shape[: inputs.ndim - len(module.normalized_shape)]
    if not places or grad_outputs.shape[: len(places)] != places:
        raise ConfigError(
            "inputs and grad_outputs must agree in all dimensions but those of the units, got "
            f"{tuple(inputs.shape)} and {tuple(grad_outputs.shape)} for {type(module).__name__}"
        )
    given, back = inputs.detach(), grad_outputs.detach().double()
    if isinstance(module, nn.Linear):
        return _linear(module, given.double(), back)
    if isinstance(module, nn.LayerNorm):
        return _layer_norm(module, given.double(), back, len(places))
    return _embedding(module, given, back)


def _trains(parameter: Tensor | None) -> bool:
    return parameter is not None and parameter.requires_grad


def _linear(module: nn.Linear, given: Tensor, back: Tensor) -> Tensor:
    x = given.reshape(len(given), -1, given.shape[-1])  # [B, T, inputs]
    g = back.reshape(len(back), -1, back.shape[-1])  # [B, T, outputs]
    total = g.new_zeros(len(g))
    if _trains(module.weight):
        positions, inputs, outputs = x.shape[1], x.shape[2], g.shape[2]
        if positions * (inputs + outputs) <= inputs * outputs:
            total += ((x @ x.mT) * (g @ g.mT)).sum((1, 2))
        else:  # the example's own gradient is the smaller of the two
            total += (g.mT @ x).square().sum((1, 2))
    if _trains(module.bias):
        total += g.sum(1).square().sum(1)
    return total


def _layer_norm(module: nn.LayerNorm, given: Tensor, back: Tensor, places: int) -> Tensor:
    positions = tuple(range(1, places))
    total = back.new_zeros(len(back))
    if _trains(module.weight):
        normal = functional.layer_norm(given, module.normalized_shape, eps=module.eps)
        total += _over(back * normal, positions).square().flatten(1).sum(1)
    if _trains(module.bias):
        total += _over(back, positions).square().flatten(1).sum(1)
    return total


def _over(parts: Tensor, positions: tuple[int, ...]) -> Tensor:
    return parts.sum(positions) if positions else parts


def _embedding(module: nn.Embedding, ids: Tensor, back: Tensor) -> Tensor:
    if not _trains(module.weight):
        return back.new_zeros(len(back))
    ids = ids.reshape(len(ids), -1)
    g = back.reshape(*ids.shape, -1)
    if module.padding_idx is not None:
        g = g * (ids != module.padding_idx)[..., None]
    same = ids[:, :, None] == ids[:, None, :]  # positions that move the same row
    return (torch.where(same, g @ g.mT, 0.0)).sum((1, 2))
