"""The tail index of gradient noise: 2 for Gaussian noise, lower for heavy tails, with a caveat."""

from __future__ import annotations

import math

from torch import Tensor

from ...store import ConfigError


def tail_index(noise: Tensor, *, group: int | None = None) -> Tensor:
    """Return the index α of an α-stable law for numbers of mean zero, 2 where they are Gaussian.

    `noise` holds gradient noise, of any shape, taken in its order (Şimşekli et al. 2019 use a
    mini-batch gradient less the full one). Estimator of Mohammadi et al. 2015: with sums Y of
    `group` neighbours each (None: about √n), 1/α = (mean log|Y| - mean log|X|) / log(group). Zeros
    are left out. Float32 scalar on the noise's device; nan for fewer than four numbers, or where
    nothing but zeros is there.

    **Caveat**: it holds for numbers of one scale. Coordinates of unequal scales alone make a Gaussian
    read 1.10 when mixed, and Student's t with 3 degrees of freedom, which lies in the Gaussian's
    domain, reads 1.82. A low value is no proof of heavy tails.

    >>> import torch
    >>> draws = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    >>> round(tail_index(draws, group=10).item(), 1)
    2.0

    Raises ConfigError for a `group` under 2 or over half of the numbers.
    """
    flat = noise.detach().reshape(-1).double()
    if group is not None and not 2 <= group <= max(2, flat.numel() // 2):
        raise ConfigError(
            f"group must be between 2 and half of the {flat.numel()} numbers, got {group}"
        )
    if flat.numel() < 4:
        return flat.new_full((), math.nan).float()
    group = max(2, math.isqrt(flat.numel())) if group is None else group
    sums = flat[: flat.numel() // group * group].view(-1, group).sum(1)
    inverse = (_mean_log(sums) - _mean_log(flat)) / math.log(group)
    return inverse.reciprocal().float()


def _mean_log(numbers: Tensor) -> Tensor:
    logs = numbers.abs().log()
    return logs.masked_fill(numbers == 0, math.nan).nanmean()
