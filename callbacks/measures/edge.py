"""The edge of stability: the largest eigenvalue at which an optimizer's steps still shrink."""

from __future__ import annotations

import math

from ...store import ConfigError


def edge_of_stability(
    optimizer_name: str,
    lr: float,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    beta1: float = 0.9,
) -> float:
    """Return the largest stable eigenvalue on a quadratic; nan where it is not known.

    SGD: 2/lr, with heavy ball 2(1+m)/lr, with Nesterov 2(1+m)/((1+2m) lr) (m is `momentum`), to
    hold against the Hessian. Adam and AdamW: 2(1+b)/((1-b) lr) (b is `beta1`; 38/lr at 0.9), to
    hold against the *preconditioned* Hessian (Cohen et al. 2022). Any other optimizer: nan, never
    a guess. `optimizer_name` is the class's name in any case. A learning rate of 0 has no edge: inf.

    >>> edge_of_stability("SGD", 0.1), round(edge_of_stability("AdamW", 0.001), 6)
    (20.0, 38000.0)

    Raises ConfigError for a negative or non-finite lr, or momentum or beta1 outside [0, 1).
    """
    if not (lr >= 0 and math.isfinite(lr)):
        raise ConfigError(f"lr must be finite and not negative, got {lr}")
    if not (0 <= momentum < 1 and 0 <= beta1 < 1):
        raise ConfigError(
            f"momentum and beta1 must be in [0, 1), got momentum={momentum}, beta1={beta1}"
        )
    name = optimizer_name.lower()
    if name == "sgd":
        factor = 2 * (1 + momentum) / ((1 + 2 * momentum) if nesterov else 1)
    elif name in ("adam", "adamw"):
        factor = 2 * (1 + beta1) / (1 - beta1)
    else:
        return math.nan
    return math.inf if lr == 0 else factor / lr
