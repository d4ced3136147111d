"""Does B_noise tell what doubling the batch buys?

From a checkpoint, branches at batch B and 2B over many seeds. Found: how many times farther the loss
over all data falls in one step of 2B (`step`), and how many times fewer steps 2B takes to where B
ends after 40 (`branch`), each at its best learning rate; `scaled`: the same branch where 2B's rate
is not tuned but scaled as the theory has it, lr ~ 1/(1 + B_noise/B). Predicted: (1 + B_noise/B) /
(1 + B_noise/2B), with B_noise estimated there from half batches, as in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from otoscope.callbacks.measures import (
    Hessian,
    NoiseEstimate,
    NoiseScaleEstimator,
    hessian_eigenvalues,
)

from . import subjects as nets
from .branching import Checkpoint, flat, moved
from .gain import reached
from .ranking import ranking, spread
from .subjects import Subject

SUBJECTS = (
    nets.LOGISTIC, nets.SOFTMAX, nets.TANH, nets.LAYERED, nets.SILU, nets.LINEAR, nets.SIGMOID,
    nets.ELU, nets.RESIDUAL, nets.WIDE,
)  # fmt: skip
"""Those that many seeds at once are cheap for: convolutions with weights of their own each take minutes."""
POINTS = (20, 150)
"""Steps of SGD before the checkpoint."""
BATCHES = (2, 8, 32, 128)
STEPS, EVERY, BRANCHES, DRAWS = 40, 2, 24, 192
FINE, FAR = 2, 24
"""Learning rates in a factor of two, and how many of them the best may lie from the first guess."""
ESTIMATES, SMALL = 256, 8


def cells(quick: bool) -> list[tuple[Subject, int]]:
    return list(product(SUBJECTS[:2] if quick else SUBJECTS, POINTS[:1] if quick else POINTS))


def estimated(here: Checkpoint) -> NoiseEstimate:
    """Return B_noise as in training, from half batches and their mean, over so many steps."""
    estimator = NoiseScaleEstimator(decay=1.0)
    generator = torch.Generator().manual_seed(7)
    weights, half = here.copies(2), here.subject.batch // 2
    for _ in range(ESTIMATES):
        halves = flat(here.gradients(weights, here.drawn(2, half, generator))).double()
        small = float(halves.square().sum(1).mean())
        estimator.update(small, float(halves.mean(0).square().sum()), half, 2 * half)
    return estimator.estimate()


def weighted(here: Checkpoint) -> tuple[float, float]:
    """Return tr(HS)/GHG, of which B_noise is a simplification, and G²/GHG, the best step without noise.

    S is the covariance of one sample's gradient, H the Hessian and G the gradient over all data.
    """
    net, subject = here.net, here.subject
    hessian = Hessian([lambda: subject.value(net, here.data)], net.parameters())
    gradient = hessian.gradient
    along = float(hessian(gradient) @ gradient)
    generator = torch.Generator().manual_seed(8)
    count = ESTIMATES // 2
    off = flat(here.gradients(here.copies(count), here.drawn(count, SMALL, generator))) - gradient
    total = sum(float(hessian(row) @ row) for row in off)
    hessian.close()
    scale = SMALL * total / count / along
    return (scale if along > 0 else math.nan), float(gradient @ gradient) / abs(along)


def steepest(here: Checkpoint) -> float:
    """Return the largest eigenvalue of the Hessian over all data."""
    loss = here.subject.value(here.net, here.data)
    return float(hessian_eigenvalues(lambda: loss, here.net.parameters(), 1).values[0])


def tuned(end: Callable[[float], float], start: float) -> float:
    """Return the learning rate, in half powers of two, at which something is smallest.

    >>> tuned(lambda lr: abs(lr - 0.26), 1.0)
    0.25
    """
    seen: dict[int, float] = {}

    def at(power: int) -> float:
        if power not in seen:
            seen[power] = end(start * 2.0 ** (power / FINE))
        return seen[power]

    best = 0
    while best < FAR and at(best + 1) < at(best):
        best += 1
    while best > -FAR and at(best - 1) <= at(best):
        best -= 1
    return start * 2.0 ** (best / FINE)


def slowed(scale: float, size: int) -> float:
    """Return how many times more steps noise asks for at a batch size."""
    return 1 + scale / size


def speed_up(scale: float, size: int) -> float:
    """Return how many times fewer steps twice the batch takes.

    >>> speed_up(8.0, 8), speed_up(0.0, 8)
    (1.3333333333333333, 1.0)
    """
    return slowed(scale, size) / slowed(scale, 2 * size)


def measured(subject: Subject, steps: int) -> dict[str, Any]:
    """Return B_noise at one checkpoint, and what doubling each batch size bought there."""
    here = Checkpoint(subject, steps)
    estimate = estimated(here)
    scale = estimate.scale
    exact, best = weighted(here)
    row: dict[str, Any] = {"net": subject.name, "steps": steps, "noise_scale": scale}
    row |= {"low": estimate.low, "high": estimate.high, "weighted": exact}
    falls = {
        size: fall(here, size, best) for size in sorted({k * b for b in BATCHES for k in (1, 2)})
    }
    row["each"] = [
        {
            "batch": size,
            "predicted": speed_up(scale, size),
            "predicted_weighted": speed_up(exact, size),
            "step": falls[2 * size] / falls[size] if falls[size] > 0 else math.nan,
            **doubled(here, size, scale, best),
        }
        for size in BATCHES
    ]
    return row


def fall(here: Checkpoint, size: int, lr: float) -> float:
    """Return how far the loss falls in one step of a batch size at its best learning rate."""
    weights = here.copies(DRAWS)
    slopes = here.gradients(weights, here.drawn(DRAWS, size, torch.Generator().manual_seed(size)))
    best = tuned(lambda lr: float(here.losses(moved(weights, slopes, lr)).mean()), lr / 8)
    return here.loss - float(here.losses(moved(weights, slopes, best)).mean())


def doubled(here: Checkpoint, size: int, scale: float, lr: float) -> dict[str, float]:
    """Return how many times fewer steps branches of twice the batch take to where those of B end."""
    curves: dict[tuple[int, float], np.ndarray] = {}

    def run(size: int, lr: float) -> np.ndarray:
        if (size, lr) not in curves:
            curves[size, lr] = here.branch(size, lr, STEPS, EVERY, BRANCHES)
        return curves[size, lr]

    begin = tuned(lambda lr: float(run(size, lr)[-1]), lr / 4)
    if not run(size, begin)[-1] < here.loss:  # that far out, rates are all alike
        begin = tuned(lambda lr: float(run(size, lr)[-1]), 1 / (4 * steepest(here)))
    lr, target = begin, float(run(size, begin)[-1])
    if not target < here.loss:  # nothing was gained: there is nothing to reach
        return {"branch": math.nan, "scaled": math.nan}
    soonest = tuned(lambda lr: reached(run(2 * size, lr), target, EVERY), lr)
    found = {"branch": STEPS / reached(run(2 * size, soonest), target, EVERY), "scaled": math.nan}
    if math.isfinite(scale):
        times = speed_up(scale, size)
        found["scaled"] = STEPS / reached(run(2 * size, lr * times), target, EVERY)
    return found


PAIRS = tuple(product(("step", "branch", "scaled"), ("predicted", "predicted_weighted")))


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rank correlation and ratio of each pair of found and predicted."""
    each = [one for row in rows for one in row["each"]]
    told = []
    for found, predictor in PAIRS:
        a, b = [one[predictor] for one in each], [one[found] for one in each]
        told.append(
            {
                "found": found,
                "predictor": predictor,
                **{f"ratio_{k}": v for k, v in vars(spread(a, b)).items()},
                **{f"rank_{k}": v for k, v in vars(ranking(a, b)).items()},
            }
        )
    return told
