"""Does the Newton gain tell how many gradient steps a Newton step is worth?

On all data, at the initialization and a quarter, a half and three quarters of the way of tuned
gradient descent. `worth`: steps at the rate 1/λ that fall as far as a tenth of a damped Newton step
does, times ten; the gain claims that number. `newton_speed_up`: steps of tuned gradient descent
to a loss over those of damped Newton with a line search, all the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from otoscope.callbacks.measures import Hessian, lanczos, newton_gain
from torch import Tensor, nn

from .gain import SUBJECTS, geometric, pairs, reached, shares
from .subjects import Subject
from .training import made

NEWTON_STEPS, NEWTON_PRODUCTS, DAMPING = 10, 32, 0.01
PROBE_PRODUCTS = 8
"""Products that the curvature probe spends by default."""
GD_STEPS = 300
PART = 0.1
"""Share of a Newton step that is compared: the gain is a rate, and a whole step leaves the model."""
MOST = 400


def cells(quick: bool) -> list[tuple[Subject]]:
    return [(one,) for one in (SUBJECTS[:4] if quick else SUBJECTS)]


def measured(subject: Subject) -> dict[str, Any]:
    """Return how many gradient steps Newton steps are worth, and the gains that say so."""
    by_newton, top = descended(subject)
    rates = [2.0**power / top for power in range(-5, 4)]
    curves = {lr: gradient_descent(made(subject, 0), subject, lr, GD_STEPS) for lr in rates}
    lr = min(rates, key=lambda rate: float(curves[rate][-1]))
    # a target that both reach: as far as the slower one comes
    target = max(by_newton[-1], float(curves[lr][-1]))
    way = reached(curves[lr], target)
    told = [local(subject, lr, steps) for steps in (0, *shares(way))]
    return {
        "net": subject.name,
        "newton_speed_up": way / reached(np.array(by_newton), target) if way else math.nan,
        "full_gain_start": told[0][1],
        "full_gain": geometric(np.array([gain for _, gain in told[1:]])),
        "worth_start": told[0][0],
        "worth": geometric(np.array([worth for worth, _ in told[1:]])),
    }


def local(subject: Subject, lr: float, steps: int) -> tuple[float, float]:
    """Return what a Newton step is worth after so many gradient steps, and the gain there."""
    net, data = made(subject, 0), subject.data()
    gradient_descent(net, subject, lr, steps)
    weights = list(net.parameters())
    hessian = Hessian([lambda: subject.value(net, data)], weights)
    step, top = newton_step(hessian)
    by_probe = lanczos(hessian, hessian.gradient, tol=0.0, max_products=PROBE_PRODUCTS)
    gain = newton_gain(by_probe.ritz_values, by_probe.ritz_weights)
    hessian.close()
    before = [weight.detach().clone() for weight in weights]
    target = moved(subject, net, before, PART * step)
    moved(subject, net, before, torch.zeros_like(step))
    losses = gradient_descent(net, subject, 1 / top, MOST, until=target)
    found = reached(losses, target) / PART if losses[-1] <= target < losses[0] else math.nan
    return found, gain


def descended(subject: Subject) -> tuple[list[float], float]:
    """Return the losses of damped Newton steps with a line search, and the first top eigenvalue."""
    net, data = made(subject, 0), subject.data()
    weights = list(net.parameters())
    first = math.nan
    losses: list[float] = []
    for _ in range(NEWTON_STEPS):
        hessian = Hessian([lambda: subject.value(net, data)], weights)
        losses = losses or [hessian.losses[0]]
        step, top = newton_step(hessian)
        hessian.close()
        first = top if math.isnan(first) else first
        value = searched(subject, net, step, losses[-1])
        if value >= losses[-1]:
            break
        losses.append(value)
    return losses, first


def newton_step(hessian: Hessian) -> tuple[Tensor, float]:
    """Return -(|H| + 0.01 λ)⁻¹ g in the Krylov space of the gradient, and λ."""
    gradient = hessian.gradient
    spectrum = lanczos(hessian, gradient, NEWTON_PRODUCTS, tol=0.0, max_products=NEWTON_PRODUCTS)
    top = float(spectrum.values[0])
    damped = (spectrum.values.abs() + DAMPING * top).to(gradient)
    return -spectrum.vectors.T @ ((spectrum.vectors @ gradient) / damped), top


def moved(subject: Subject, net: nn.Module, start: Sequence[Tensor], step: Tensor) -> float:
    """Put the weights a step from where they started; return the loss over all data there."""
    weights = list(net.parameters())
    parts = step.split([weight.numel() for weight in weights])
    with torch.no_grad():
        for weight, before, part in zip(weights, start, parts, strict=True):
            weight.copy_(before + part.view_as(before))
        return float(subject.value(net, subject.data()))


def searched(subject: Subject, net: nn.Module, step: Tensor, loss: float) -> float:
    """Take the longest of 1, 1/2, 1/4 … of a step that lowers the loss; return the loss there."""
    start = [weight.detach().clone() for weight in net.parameters()]
    for halvings in range(8):
        value = moved(subject, net, start, step / 2**halvings)
        if value < loss:
            return value
    return moved(subject, net, start, torch.zeros_like(step))


def gradient_descent(
    net: nn.Module, subject: Subject, lr: float, steps: int, until: float = -math.inf
) -> np.ndarray:
    """Train a net on all data; return the loss before each step and behind the last one.

    inf from where it is not finite; shorter where it came down to `until`.
    """
    data, weights = subject.data(), list(net.parameters())
    losses = np.full(steps + 1, math.inf)
    for step in range(steps + 1):
        loss = subject.value(net, data)
        value = float(loss.detach())
        if not math.isfinite(value):
            break
        losses[step] = value
        if value <= until:
            return losses[: step + 1]
        if step < steps:
            grads = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for weight, grad in zip(weights, grads, strict=True):
                    weight -= lr * grad
    return losses


PAIRS = (
    ("worth_start", "full_gain_start"),
    ("worth", "full_gain"),
    ("newton_speed_up", "full_gain"),
    ("newton_speed_up", "full_gain_start"),
)


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rank correlation and ratio of each pair of found and predicted."""
    return pairs(rows, PAIRS)
