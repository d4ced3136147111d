"""Effective rank: over how many directions a layer's outputs spread (low where they collapse)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...store import ConfigError
from .activations import unit_dimension


def effective_rank(outputs: Tensor, *, rows: int = 512, dim: int | None = None) -> Tensor:
    """Return exp(entropy of the singular values) as a share of the largest possible, in (0, 1].

    `outputs` is what a layer gave for a batch; its units lie in dimension `dim` (None:
    `unit_dimension`: the last of (B, T, C), the second of images) and everything else makes rows, of
    which `rows` are taken, spread evenly. With σ the singular values of the rows [n, units] and
    p = σ/Σσ the effective rank is exp(-Σ p log p) (Roy and Vetterli 2007), here divided by
    min(n, units): 1 where all directions are used alike, 1/units where all rows are parallel. Float32
    scalar on the outputs' device; nan for outputs of zeros and where anything is not finite. The
    decomposition of 512 rows is no small thing, and makes a GPU wait: take `sampled_rows` there and
    hand in their copy later.

    >>> effective_rank(torch.eye(4)).item(), round(effective_rank(torch.ones(8, 4)).item(), 3)
    (1.0, 0.25)

    Raises ConfigError for outputs of fewer than two dimensions or `rows` under 1.
    """
    taken = sampled_rows(outputs, rows=rows, dim=dim).double()
    if taken.shape[0] > taken.shape[1]:
        taken = taken.T
    # Through the smaller Gram matrix: singular values under 1e-8 of the largest are lost in its
    # rounding, and nothing of the entropy with them.
    gram = taken @ taken.T
    finite = gram.isfinite().all()
    gram = torch.where(finite, gram, 0.0)
    sigma = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    p = sigma / sigma.sum()
    entropy = -(p * p.clamp_min(1e-300).log()).sum()
    return (entropy.exp() / len(sigma)).float()  # 0/0 is the nan of zeros and of what is not finite


def sampled_rows(outputs: Tensor, *, rows: int = 512, dim: int | None = None) -> Tensor:
    """Return up to `rows` rows [n, units] of a layer's outputs, spread evenly, without a random draw.

    >>> sampled_rows(torch.zeros(8, 3, 5, 5), rows=100).shape
    torch.Size([100, 3])
    """
    if outputs.ndim < 2 or 0 in outputs.shape or rows < 1:
        raise ConfigError(
            "outputs must have a dimension of samples and one of units, and rows be at least 1, got "
            f"a tensor of shape {tuple(outputs.shape)} and rows={rows}"
        )
    dim = unit_dimension(outputs.ndim) if dim is None else dim % outputs.ndim
    units = outputs.detach().movedim(dim, -1)
    total = math.prod(units.shape[:-1])
    if total <= rows:
        return units.reshape(total, -1)
    chosen = (torch.arange(rows, device=outputs.device) * total) // rows
    # One index a dimension: reshape would copy all outputs of a convolution. Worked out by hand, as
    # torch.unravel_index makes tensors of the sizes, for which a GPU is waited for.
    places = []
    for size in reversed(units.shape[:-1]):
        places.append(chosen % size)
        chosen = chosen // size
    return units[tuple(reversed(places))]
