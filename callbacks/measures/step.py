"""Where a step lands: its position in the valley, and how far the local quadratic holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...store import ConfigError


def step_position(slope: float, curvature: float) -> float:
    """Return where an update lands on the quadratic along it: -1 start, 0 floor, +1 other side.

    `slope` is gᵀΔ and `curvature` is ΔᵀHΔ for the update Δ; the position is -curvature/slope - 1,
    clipped to [-1, 3] (near the floor the ratio runs wild: 40 and -1,200 were seen in ordinary
    runs). nan uphill (slope not below 0) and where either is not finite.

    >>> step_position(-2.0, 2.0), step_position(-2.0, 4.0), step_position(1.0, 2.0)
    (0.0, 1.0, nan)
    """
    if not (math.isfinite(slope) and math.isfinite(curvature)) or slope >= 0:
        return math.nan
    return min(3.0, max(-1.0, -curvature / slope - 1.0))


def horizon(
    multiples: Sequence[float], losses: Sequence[float], slope: float, curvature: float
) -> float:
    """Return the largest scanned multiple of an update up to which the local quadratic holds.

    `losses[i]` is the loss at `multiples[i]` times the update; 0 must be among the multiples. A
    point holds where |f(c) - q(c)| is at most 0.2 (|c slope| + ½c²|curvature|) + 1e-6 |f(0)|; the
    last term is float32 rounding, without it a tiny step would have horizon 0. Every scanned
    point up to the result holds; 0 where the first already fails, inf where all hold (a quadratic
    has no horizon within the scan). A loss that is not finite does not hold.

    >>> scan = [0.0, 0.5, 1.0, 2.0, 4.0]
    >>> horizon(scan, [1 - c + c**4 for c in scan], slope=-1.0, curvature=0.0)
    0.5

    Raises ConfigError where the lengths differ or 0 is not scanned.
    """
    if len(multiples) != len(losses) or 0.0 not in multiples:
        raise ConfigError(
            f"multiples and losses must have the same length and 0 be scanned, got {len(multiples)} "
            f"multiples {list(multiples)} and {len(losses)} losses"
        )
    points = sorted((c, f) for c, f in zip(multiples, losses, strict=True) if c > 0)
    origin = losses[list(multiples).index(0.0)]
    reached = 0.0
    for c, f in points:
        quadratic = origin + c * slope + 0.5 * c * c * curvature
        room = 0.2 * (abs(c * slope) + 0.5 * c * c * abs(curvature)) + 1e-6 * abs(origin)
        if not abs(f - quadratic) <= room:  # NaN fails too
            return reached
        reached = c
    return math.inf
