"""Does the Newton gain rank nets by what Adam's preconditioner is worth?

Found: steps to a loss by tuned SGD over those by tuned Adam. Predicted: `newton_gain` over
`preconditioned_newton_gain`, which is how many times less Newton would still gain, as the curvature
probe records them a quarter, a half and three quarters of the way; and the gains alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from otoscope.callbacks.probes.curvature import Curvature

from . import subjects as nets
from .ranking import ranking, spread
from .subjects import Subject, unequal
from .training import curve, looked_into, recorded

SUBJECTS = (
    nets.LOGISTIC, unequal(nets.LOGISTIC, 100), nets.SOFTMAX, nets.WIDE, nets.TANH,
    unequal(nets.TANH, 30), nets.DEEP, nets.LAYERED, nets.BATCHED, nets.SILU,
    unequal(nets.SILU, 30), nets.RESIDUAL, nets.CONV, nets.CONV_NORM, nets.ATTENTION, nets.ELU,
    unequal(nets.ELU, 30), nets.SIGMOID, nets.LINEAR, unequal(nets.LINEAR, 30),
)  # fmt: skip
STEPS = 200
"""Steps of tuned SGD; the loss that it reaches there is the target."""
PATIENCE = 2
"""Times as many steps for the other one to reach it."""
EVERY = 5
TRIED = {"sgd": (-8, 5), "adam": (-11, -2)}
"""Learning rates tried, powers of two, first and last."""
SHARES = (0.25, 0.5, 0.75)
"""Where on the way to the target the gains are measured."""
LEAST = 12
"""First step at which a gain is measured: Adam's preconditioner is not known before its tenth."""


def cells(quick: bool) -> list[tuple[Subject]]:
    return [(one,) for one in (SUBJECTS[:4] if quick else SUBJECTS)]


def measured(subject: Subject) -> dict[str, Any]:
    """Return how many times fewer steps tuned Adam takes, and the gains on the way of both."""
    asked = range(EVERY, STEPS + 1, EVERY)
    sgd_lr, by_sgd = best(subject, "sgd", asked)
    adam_lr, _ = best(subject, "adam", asked)
    by_adam = curve(subject, "adam", adam_lr, range(EVERY, PATIENCE * STEPS + 1, EVERY))
    target = float(by_sgd[-1])
    ways = {"sgd": reached(by_sgd, target, EVERY), "adam": reached(by_adam, target, EVERY)}
    row = {"net": subject.name, "target": target, "adam_speed_up": ways["sgd"] / ways["adam"]}
    row["gain_start"] = gains(subject, "adam", 1e-3, (1,))[0]
    row["gain_sgd"], _ = gains(subject, "sgd", sgd_lr, shares(ways["sgd"]))
    row["gain_adam"], left = gains(subject, "adam", adam_lr, shares(ways["adam"]))
    return row | {
        "gain_left": left,
        "gain_bought": row["gain_adam"] / left,
        "gain_both": row["gain_sgd"] / left,
    }


def shares(way: float) -> tuple[int, ...]:
    """Return the steps at a quarter, a half and three quarters of the way."""
    return tuple(sorted({max(LEAST, round(share * way)) for share in SHARES}))


def gains(subject: Subject, kind: str, lr: float, steps: tuple[int, ...]) -> tuple[float, float]:
    """Return the geometric means of both gains, as the probe records them at some steps."""
    probe = Curvature(first=steps[0], every=max(1, steps[-1] - steps[0]) // max(1, len(steps) - 1))
    with looked_into(subject, kind, lr, steps[-1], [probe]) as (store, run):
        return (
            geometric(recorded(store, run, "curvature", "newton_gain")),
            geometric(recorded(store, run, "curvature", "preconditioned_newton_gain")),
        )


def best(subject: Subject, kind: str, asked: range) -> tuple[float, np.ndarray]:
    """Return the learning rate that ends lowest, and its curve."""
    rates = [2.0**power for power in range(TRIED[kind][0], TRIED[kind][1] + 1)]
    curves = {lr: curve(subject, kind, lr, asked) for lr in rates}
    lr = min(rates, key=lambda rate: float(curves[rate][-1]))
    return lr, curves[lr]


def reached(losses: np.ndarray, target: float, every: float = 1.0) -> float:
    """Return the steps after which a loss first stands at a target, between two samples by line.

    Where it never does: the steps of the whole curve, which is then the least that it takes.

    >>> reached(np.array([4.0, 2.0, 1.0]), 1.5)
    1.5
    """
    below = np.flatnonzero(losses <= target)
    if not len(below):
        return every * (len(losses) - 1)
    last = int(below[0])
    if last == 0:
        return 0.0
    before, after = float(losses[last - 1]), float(losses[last])
    return every * (last - (target - after) / (before - after) if math.isfinite(before) else last)


def geometric(values: np.ndarray) -> float:
    return float(np.exp(np.log(values[np.isfinite(values)]).mean())) if len(values) else math.nan


PAIRS = (
    ("adam_speed_up", "gain_bought"),
    ("adam_speed_up", "gain_both"),
    ("adam_speed_up", "gain_sgd"),
    ("adam_speed_up", "gain_start"),
)


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rank correlation of each pair of found and predicted."""
    return pairs(rows, PAIRS)


def pairs(rows: Sequence[dict[str, Any]], names: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return rank correlation and ratio of found and predicted, for pairs of such names."""
    told = []
    for found, predictor in names:
        a, b = [row[predictor] for row in rows], [row[found] for row in rows]
        told.append(
            {
                "found": found,
                "predictor": predictor,
                **{f"ratio_{k}": v for k, v in vars(spread(a, b)).items()},
                **{f"rank_{k}": v for k, v in vars(ranking(a, b)).items()},
            }
        )
    return told
