"""Parameters as one vector [d]: gradients laid end to end, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ...store import ConfigError


def measured(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the parameters that a Hessian is taken of: those that require a gradient.

    Raises ConfigError where there is none, or where one is in half precision, whose products are
    off by more than they say.
    """
    found = [p for p in parameters if p.requires_grad]
    if not found:
        raise ConfigError(
            "a Hessian needs a parameter with requires_grad, got none; unfreeze one, or pass the "
            "model's parameters() as a list if they were an iterator that is spent"
        )
    dtypes = {p.dtype for p in found}
    if not dtypes <= {torch.float32, torch.float64}:
        raise ConfigError(
            f"a Hessian needs parameters of float32 or float64, got {_names(dtypes)}; convert the "
            "model with .float()"
        )
    return found


def scalar(value: Tensor) -> Tensor:
    """Return a loss as a tensor without dimensions; ConfigError where it is none."""
    if not isinstance(value, Tensor):
        raise ConfigError(f"a loss must return a scalar tensor, got {type(value).__name__}")
    if value.numel() != 1 or not value.requires_grad:
        raise ConfigError(
            f"a loss must be a scalar that depends on the parameters, got a tensor of shape "
            f"{tuple(value.shape)} with requires_grad={value.requires_grad}; take its mean, and do "
            "not detach it or run it under no_grad"
        )
    return value.reshape(())


def flat(parameters: Sequence[Tensor], parts: Iterable[Tensor | None]) -> Tensor:
    """Return one part a parameter (None: zeros) as one vector [d] without a graph."""
    pieces: list[Tensor] = []
    for p, part in zip(parameters, parts, strict=True):
        part = torch.zeros_like(p) if part is None else part
        part = part.to_dense() if part.layout != torch.strided else part
        pieces.append(part.detach().reshape(-1))
    return torch.cat(pieces)


def split(parameters: Sequence[Tensor], vector: Tensor) -> list[Tensor]:
    """Return a vector [d] as one tensor a parameter, of its shape (autograd sees to the type)."""
    size = sum(p.numel() for p in parameters)
    if vector.shape != (size,):
        raise ConfigError(
            f"a vector must have one number for each of the {size} of the parameters, got shape "
            f"{tuple(vector.shape)}"
        )
    parts = vector.split([p.numel() for p in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]


def _names(dtypes: Iterable[torch.dtype]) -> str:
    return ", ".join(sorted(map(str, dtypes)))
