"""Does the edge of stability tell at which learning rate training blows up?

Known, by bisection: the largest learning rate that 100 steps from the initialization survive (the
loss over all data ends below the first one), the largest at which it stays calm on the way (never
over 1.25 times the first), and the largest that one can go on with after 40 steps at the default
rate (it never stands over 1.25 times what it was there, for 30 steps). Predicted: learning rate over
`edge_ratio`, as the curvature probe records it, at the initialization, in those 40 steps, and
(`advice`) in a run at eight times the largest rate, from its highest ratio, as lr_too_high reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from otoscope.callbacks.probes.curvature import Curvature
from otoscope.callbacks.probes.gradients import Gradients
from otoscope.store import Store

from .ranking import NOT_RANKED, ranking, spread
from .subjects import HELD_OUT, Subject
from .training import DEFAULT, OPTIMIZERS, curve, looked_into, median, recorded

STEPS = 100
FINE = 4
"""Tries in a factor of two: learning rates are 2^(i/4)."""
SEEDS = 2
RISEN = 1.25
WATCHED = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 100)
EARLY = (20, 10, 40)
"""First sample, steps between two, steps in all, of the run at the default learning rate."""
GOES_ON = 30
FOUND = ("survives", "calm", "goes_on")
PREDICTORS = (
    "edge_at_start", "edge_early", "batch_early", "advice", "update_rule", "update_early",
    "other_nets",
)  # fmt: skip
LEFT_OUT = {
    "survives": {"update_early"},
    "calm": {"update_early"},
    "goes_on": {"edge_at_start", "advice", "update_rule"},
}
"""Predictions that are left out, as they were not made for that question."""
BLOWN, BLOWN_TIMES = (2, 4, 22), 8
ADVISED = 0.9
UPDATE_RULE = 0.02
"""The step, in shares of the weights, over which the rule of thumb calls it too long."""


def cells(quick: bool) -> list[tuple[Subject, str]]:
    nets = HELD_OUT[:3] if quick else HELD_OUT
    return list(product(nets, OPTIMIZERS))


def survives(losses: np.ndarray) -> bool:
    """Tell whether a run came through: not where it broke off, nor where it ended as dead as it began.

    >>> survives(np.array([1.0, 2.0, 0.5])), survives(np.array([1.0, 9.0, 0.99]))
    (True, False)
    """
    if not np.isfinite(losses[-1]) or losses[-1] >= losses[0]:
        return False
    return is_calm(losses) or bool(losses[-1] < 0.9 * losses[0])


def is_calm(losses: np.ndarray) -> bool:
    """Tell whether the loss never rose far over the first one."""
    return bool(losses.max() <= RISEN * losses[0])


def largest(holds: Callable[[int], bool], start: int, *, stride: int = 8, ends: int = 80) -> int:
    """Return the largest index at which something holds, where it fails at the next one.

    It is looked for from `start` in strides, then by bisection; ±`ends` where it always or never
    holds.

    >>> largest(lambda i: i <= 13, 0), largest(lambda i: i <= -21, 4), largest(lambda i: True, 0)
    (13, -21, 80)
    """
    low = high = start
    if holds(start):
        while holds(high):
            low, high = high, high + stride
            if high > ends:
                return ends
    else:
        while not holds(low):
            low, high = low - stride, low
            if low < -ends:
                return -ends
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def blow_up(subject: Subject, kind: str, seed: int) -> dict[str, float]:
    """Return the two largest learning rates, by bisection over the same runs."""
    seen: dict[int, np.ndarray] = {}

    def run(index: int) -> np.ndarray:
        if index not in seen:
            seen[index] = curve(subject, kind, 2 ** (index / FINE), WATCHED, seed)
        return seen[index]

    start = round(FINE * math.log2(4 * DEFAULT[kind]))
    most = largest(lambda i: survives(run(i)), start)
    calm = most if is_calm(run(most)) else largest(lambda i: is_calm(run(i)), most)
    jump = largest(lambda i: is_calm(continued(subject, kind, 2 ** (i / FINE), seed)), start)
    return {
        "survives": 2 ** (most / FINE),
        "calm": 2 ** (calm / FINE),
        "goes_on": 2 ** (jump / FINE),
    }


def continued(subject: Subject, kind: str, lr: float, seed: int) -> np.ndarray:
    """Return the loss over all data after 40 steps at the default rate, and on from there."""
    begun = EARLY[-1]
    asked = [begun + step for step in (0, 1, 2, 3, 4, 5, 6, 8, 11, 15, 20, 25, GOES_ON)]
    return curve(subject, kind, DEFAULT[kind], asked, seed, then=(begun, lr))[1:]


def geometric(rows: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(rows))))


def measured(subject: Subject, kind: str) -> dict[str, Any]:
    """Return what is known and what is predicted of one net under one optimizer."""
    known = [blow_up(subject, kind, seed) for seed in range(SEEDS)]
    row: dict[str, Any] = {"net": subject.name, "optimizer": kind}
    row |= {name: geometric([one[name] for one in known]) for name in FOUND}
    lr = DEFAULT[kind]
    at_start = Curvature(first=1, every=1)  # of Adam's it is not known before its tenth step
    with looked_into(subject, kind, lr, 1, [at_start, Gradients(every=1)]) as (store, run):
        row["edge_at_start"] = lr / median(recorded(store, run, "curvature", "edge_ratio"))
        row["update_rule"] = lr * UPDATE_RULE / update_ratio(store, run)
    first, every, steps = EARLY
    early = [Curvature(first=first, every=every), Gradients(every=1)]
    with looked_into(subject, kind, lr, steps, early) as (store, run):
        ratios = recorded(store, run, "curvature", "edge_ratio")
        row["samples"] = len(ratios)
        row["edge_early"] = lr / median(ratios)
        row["update_early"] = lr * UPDATE_RULE / update_ratio(store, run)
        row["batch_early"] = _by_batches(store, run, kind)
    row["advice"] = advised(subject, kind, row["survives"])
    return row


def advised(subject: Subject, kind: str, most: float) -> float:
    """Return what lr_too_high makes of the edge in a run at eight times the largest rate.

    nan where no sample stands over the edge: there it does not go by curvature.
    """
    lr = BLOWN_TIMES * most
    first, every, steps = BLOWN
    blown = Curvature(first=first, every=every)
    with looked_into(subject, kind, lr, steps, [blown], may_fail=True) as (store, run):
        ratios = recorded(store, run, "curvature", "edge_ratio")
    peak = float(ratios.max()) if len(ratios) else math.nan
    return min(lr / 2, ADVISED * lr / peak) if peak > 1 else math.nan


def update_ratio(store: Store, run: str) -> float:
    """Return the median over weight layers of the last step's size, as the rule takes it."""
    series = store.read(run, "gradients", columns=["update_ratio"])
    values = series.values[-1]
    return median(values[np.isfinite(values)])


def _by_batches(store: Store, run: str, kind: str) -> float:
    if kind == "adam":  # batch sharpness is that of the plain Hessian
        return math.nan
    times = 3.8 if kind == "momentum" else 2.0
    return times / median(recorded(store, run, "curvature", "batch_sharpness"))


def of_other_nets(rows: Sequence[dict[str, Any]], known: str) -> list[float]:
    """Return the median of what is known of the other nets, for each."""
    logs = np.log([row[known] for row in rows])
    return [math.exp(float(np.median(np.delete(logs, i)))) for i in range(len(rows))]


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each known rate, optimizer and predictor."""
    told = []
    for known, kind, predictor in product(FOUND, OPTIMIZERS, PREDICTORS):
        mine = [row for row in rows if row["optimizer"] == kind]
        found = [row[known] for row in mine]
        if predictor == "other_nets":
            predicted = of_other_nets(mine, known)
        else:
            predicted = [row[predictor] for row in mine]
        if predictor in LEFT_OUT[known] or not any(map(math.isfinite, predicted)):
            continue
        # neither ranks: the highest net has the lowest others, and the advice begins at the answer
        ranks = predictor not in ("other_nets", "advice")
        order = ranking(predicted, found) if ranks else NOT_RANKED
        told.append(
            {
                "optimizer": kind,
                "found": known,
                "predictor": predictor,
                "safe": safe(predicted, found, 1.0 if predictor == "advice" else ADVISED),
                **{f"ratio_{k}": v for k, v in vars(spread(predicted, found)).items()},
                **{f"rank_{k}": v for k, v in vars(order).items()},
            }
        )
    return told


def safe(predicted: Sequence[float], found: Sequence[float], share: float = ADVISED) -> float:
    """Return the share of nets that 0.9 times what is predicted, as the rule proposes it, suits.

    >>> safe([1.0, 1.0, math.nan], [0.95, 0.5, 1.0])
    0.5
    """
    known = [(a, b) for a, b in zip(predicted, found, strict=True) if math.isfinite(a)]
    return float(np.mean([b >= share * a for a, b in known]))
