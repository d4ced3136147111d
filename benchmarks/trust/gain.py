"""Does the Newton gain rank nets as their measured steps with and without a preconditioner do?

Adam: steps to a loss by tuned SGD over those by tuned Adam, against `newton_gain` over
`preconditioned_newton_gain` as the probe records them in a run of Adam at its default rate.
Newton: steps by tuned gradient descent on all data over those by damped Newton steps (with a line
search), against `newton_gain` at the initialization and after a few steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from otoscope.callbacks.measures import Hessian, lanczos, newton_gain
from otoscope.callbacks.probes.curvature import Curvature
from torch import Tensor, nn

from . import subjects as nets
from .ranking import ranking
from .subjects import Subject, unequal
from .training import curve, looked_into, made, recorded

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
NEWTON_STEPS, NEWTON_PRODUCTS, DAMPING = 10, 32, 0.01
GD_STEPS = 300


def cells(quick: bool) -> list[tuple[Subject]]:
    return [(one,) for one in (SUBJECTS[:4] if quick else SUBJECTS)]


def measured(subject: Subject) -> dict[str, Any]:
    row: dict[str, Any] = {"net": subject.name}
    row |= adam(subject)
    row |= newton(subject)
    return row


def adam(subject: Subject) -> dict[str, float]:
    """Return how many times fewer steps tuned Adam takes, and the gains on the way of both."""
    asked = range(EVERY, STEPS + 1, EVERY)
    sgd_lr, by_sgd = best(subject, "sgd", asked)
    adam_lr, _ = best(subject, "adam", asked)
    by_adam = curve(subject, "adam", adam_lr, range(EVERY, PATIENCE * STEPS + 1, EVERY))
    target = float(by_sgd[-1])
    ways = {"sgd": reached(by_sgd, target, EVERY), "adam": reached(by_adam, target, EVERY)}
    row = {"target": target, "adam_speed_up": ways["sgd"] / ways["adam"]}
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
    return tuple(sorted({max(2, round(share * way)) for share in SHARES}))


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


def newton(subject: Subject) -> dict[str, float]:
    """Return how many gradient steps a damped Newton step is worth, and the gain that says so."""
    by_newton, along = descended(subject)
    start, top = along[0]
    rates = [2.0**power / top for power in range(-5, 4)]
    curves = {lr: gradient_descent(subject, lr, GD_STEPS)[0] for lr in rates}
    lr = min(rates, key=lambda rate: float(curves[rate][-1]))
    # a target that both reach: as far as the slower one comes
    target = max(by_newton[-1], float(curves[lr][-1]))
    way = reached(curves[lr], target)
    on_the_way = []
    for steps in shares(way):
        net = gradient_descent(subject, lr, steps)[1]
        hessian = Hessian([lambda net=net: subject.value(net, subject.data())], net.parameters())
        on_the_way.append(newton_step(hessian)[1])
        hessian.close()
    return {
        "newton_speed_up": way / reached(np.array(by_newton), target),
        "full_gain_start": start,
        "full_gain": geometric(np.array(on_the_way)),
    }


def descended(subject: Subject) -> tuple[list[float], list[tuple[float, float]]]:
    """Return the losses of damped Newton steps on all data, and gain and top eigenvalue at each."""
    net, data = made(subject, 0), subject.data()
    weights = list(net.parameters())
    losses, told = [], []
    for _ in range(NEWTON_STEPS):
        hessian = Hessian([lambda: subject.value(net, data)], weights)
        losses.append(hessian.losses[0])
        step, gain, top = newton_step(hessian)
        hessian.close()
        told.append((gain, top))
        losses.append(searched(subject, net, data, weights, step, losses[-1]))
        if losses.pop() >= losses[-1]:
            break
    else:
        with torch.no_grad():
            losses.append(float(subject.value(net, data)))
    return losses, told


def newton_step(hessian: Hessian) -> tuple[Tensor, float, float]:
    """Return -(|H| + 0.01 λ)⁻¹ g in the Krylov space of the gradient, its gain, and λ."""
    gradient = hessian.gradient
    spectrum = lanczos(hessian, gradient, NEWTON_PRODUCTS, tol=0.0, max_products=NEWTON_PRODUCTS)
    top = float(spectrum.values[0])
    gain = newton_gain(spectrum.ritz_values, spectrum.ritz_weights)
    damped = (spectrum.values.abs() + DAMPING * top).to(gradient)
    return -spectrum.vectors.T @ ((spectrum.vectors @ gradient) / damped), gain, top


def geometric(values: np.ndarray) -> float:
    return float(np.exp(np.log(values[np.isfinite(values)]).mean())) if len(values) else math.nan


def searched(
    subject: Subject, net: nn.Module, data: Any, weights: list[Any], step: Tensor, loss: float
) -> float:
    """Take the longest of 1, 1/2, 1/4 … of a step that lowers the loss; return the loss there."""
    before = [weight.detach().clone() for weight in weights]
    parts = step.split([weight.numel() for weight in weights])
    with torch.no_grad():
        for halvings in range(8):
            for weight, start, part in zip(weights, before, parts, strict=True):
                weight.copy_(start + part.view_as(start) / 2**halvings)
            value = float(subject.value(net, data))
            if value < loss:
                return value
        for weight, start in zip(weights, before, strict=True):
            weight.copy_(start)
    return loss


def gradient_descent(subject: Subject, lr: float, steps: int) -> tuple[np.ndarray, nn.Module]:
    """Return the loss on all data before each step and behind the last, and the net."""
    net, data = made(subject, 0), subject.data()
    weights = list(net.parameters())
    losses = np.full(steps + 1, math.inf)
    for step in range(steps + 1):
        loss = subject.value(net, data)
        value = float(loss.detach())
        if not math.isfinite(value):
            break
        losses[step] = value
        if step < steps:
            grads = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for weight, grad in zip(weights, grads, strict=True):
                    weight -= lr * grad
    return losses, net


PAIRS = (
    ("adam_speed_up", "gain_bought"),
    ("adam_speed_up", "gain_both"),
    ("adam_speed_up", "gain_sgd"),
    ("adam_speed_up", "gain_start"),
    ("newton_speed_up", "full_gain"),
    ("newton_speed_up", "full_gain_start"),
)


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rank correlation of each pair of found and predicted."""
    return [
        {"found": found, "predictor": predictor, **_ranked(rows, predictor, found)}
        for found, predictor in PAIRS
    ]


def _ranked(rows: Sequence[dict[str, Any]], predictor: str, found: str) -> dict[str, float]:
    one = ranking([row[predictor] for row in rows], [row[found] for row in rows])
    return {"rho": one.rho, "low": one.low, "high": one.high, "count": one.count}
