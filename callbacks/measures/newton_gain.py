"""Newton gain: how many stable gradient steps one damped Newton step is worth (conditioning)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...store import ConfigError


def newton_gain(
    ritz_values: Tensor,
    ritz_weights: Tensor,
    *,
    top: float | None = None,
    damping: float = 0.01,
) -> float:
    """Return the mean of top/|eigenvalue| over the gradient's energy, between 1 and 1 + 1/damping.

    `ritz_values` [m] and `ritz_weights` [m] are those of a Lanczos run that started at the
    gradient (`Spectrum`): Gauss quadrature, 8 to 16 products give the gain within about 15 %.
    `top` is the largest eigenvalue where it is known better. With D = damping × top the gain is
    (1 + D/top) top Σ w_j / (|v_j| + D), |v_j| at most top. nan where top is not above 0 or
    anything is not finite: there is no valley to speak of.

    >>> values, weights = torch.tensor([1.0, 10.0]), torch.tensor([0.5, 0.5])
    >>> round(newton_gain(values, weights), 2)
    5.09
    >>> newton_gain(torch.tensor([3.0]), torch.tensor([1.0]))
    1.0

    Raises ConfigError where the shapes differ or are empty, or damping is not above 0.
    """
    if ritz_values.shape != ritz_weights.shape or ritz_values.numel() == 0:
        raise ConfigError(
            "ritz_values and ritz_weights must have the same shape and hold at least one number, "
            f"got {tuple(ritz_values.shape)} and {tuple(ritz_weights.shape)}"
        )
    if not damping > 0:
        raise ConfigError(f"damping must be above 0, got {damping}; 0.01 is a hundredth of the top")
    values = ritz_values.double()
    weights = ritz_weights.double()
    largest = float(values.max()) if top is None else float(top)
    finite = math.isfinite(largest) and bool(
        torch.isfinite(values).all() & weights.isfinite().all()
    )
    if not finite or largest <= 0:
        return math.nan
    floor = damping * largest
    shares = weights / weights.sum()
    return float(
        (1 + damping) * largest * (shares / (values.abs().clamp_max(largest) + floor)).sum()
    )
