"""SageMaker Debugger's built-in rules with their documented defaults, at every step of a trace.

Source: Amazon SageMaker developer guide, "List of Debugger Built-in Rules" (its rules are closed;
what the guide leaves open is said at each). The service looks every 500 steps by default; here it
sees each step, which gives it every chance, to be right as to be wrong. A rule that returns True
is one alert until it has been silent for 50 steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .alert import Alert, episodes
from .trace import FIRST_STEPS, Trace


def sagemaker(trace: Trace) -> list[Alert]:
    """All rules of the list whose data a trace holds."""
    return [alert for rule in RULES for alert in rule(trace)]


def _steps(held: Any) -> list[int]:
    return [int(place) + 1 for place in np.flatnonzero(held)]


def vanishing_gradient(trace: Trace, threshold: float = 1e-7) -> list[Alert]:
    """VanishingGradient: the mean of a gradient's absolute values under 1e-7, of any weight."""
    small = (trace.weight("grad_abs_mean") < threshold).any(1)
    return episodes("vanishing", "VanishingGradient", _steps(small))


def exploding_tensor(trace: Trace) -> list[Alert]:
    """ExplodingTensor: a loss, gradient or weight that is NaN or infinite."""
    loss = np.isfinite(trace.get("loss"))
    norm = np.isfinite(trace.get("grad_norm"))
    weights = np.isfinite(trace.weight("weight_norm")).all(1)
    return episodes("not finite", "ExplodingTensor", _steps(~(loss & norm & weights)))


def dead_relu(trace: Trace, layer: float = 0.5) -> list[Alert]:
    """DeadRelu: over 50 % of a layer's ReLUs active in under 1 % of a batch."""
    dead = (trace.activation("inactive", "relu") > layer).any(1)
    return episodes("dead units", "DeadRelu", _steps(dead))


def saturated_activation(trace: Trace, layer: float = 0.5) -> list[Alert]:
    """SaturatedActivation: over 50 % of a tanh or sigmoid layer beyond ±9.5, or −23 and 17."""
    held = np.zeros(trace.steps, dtype=bool)
    for kind in ("tanh", "sigmoid"):
        held |= (trace.activation("inactive", kind) > layer).any(1)
    return episodes("saturated", "SaturatedActivation", _steps(held))


def poor_weight_initialization(
    trace: Trace, threshold: float = 10.0, spread: float = 0.001, patience: int = 5
) -> list[Alert]:
    """PoorWeightInitialization, in the first ten steps.

    The variance of the ReLUs' inputs differs between layers by more than a factor of 10; or the
    smallest distance between the 5th and 95th percentile of a gradient is under 0.001; or the
    loss finds no new minimum in 5 steps. The guide does not say how the three combine: each fires,
    as its parameter's description has it ("the rule returns True").
    """
    first = slice(0, FIRST_STEPS)
    variance = trace.activation("input_variance", "relu")[first]
    held = np.zeros(min(FIRST_STEPS, trace.steps), dtype=bool)
    if variance.shape[1] > 1:
        with np.errstate(all="ignore"):
            held |= variance.max(1) / variance.min(1) > threshold
    spreads = trace.weight("grad_spread")[first]
    held |= (spreads < spread).any(1)
    loss = trace.get("loss")[first]
    since = np.arange(len(loss)) - np.array(
        [int(np.nanargmin(loss[: end + 1])) if np.isfinite(loss[: end + 1]).any() else 0
         for end in range(len(loss))]
    )  # fmt: skip
    held |= since >= patience
    return episodes("initialization", "PoorWeightInitialization", _steps(held))


def weight_update_ratio(trace: Trace, large: float = 10.0, small: float = 1e-8) -> list[Alert]:
    """WeightUpdateRatio: update over weight above 10 or below 1e-8 (ε 1e-9), of any weight."""
    with np.errstate(all="ignore"):
        ratio = trace.weight("update_norm") / (trace.weight("weight_norm") + 1e-9)
    return [
        *episodes("update too large", "WeightUpdateRatio, large", _steps((ratio > large).any(1))),
        *episodes("not updated", "WeightUpdateRatio, small", _steps((ratio < small).any(1))),
    ]


def loss_not_decreasing(trace: Trace, num_steps: int = 10) -> list[Alert]:
    """LossNotDecreasing: at every tenth step, the loss is not below that of ten steps before.

    `diff_percent` has no default: any decrease is one.
    """
    loss = trace.get("loss")
    told = [
        place + 1
        for place in range(num_steps, len(loss), num_steps)
        if not loss[place] < loss[place - num_steps]
    ]
    return episodes("not learning", "LossNotDecreasing", told)


def overfit(trace: Trace, ratio: float = 0.1, patience: int = 1) -> list[Alert]:
    """Overfit: validation loss over 10 % above the mean training loss, at one validation.

    The training loss is the mean since the validation before.
    """
    told, run, before = [], 0, 0
    loss, validation = trace.get("loss"), trace.get("val_loss")
    for place in np.flatnonzero(~np.isnan(validation)):
        mean = loss[before : place + 1].mean()
        run = run + 1 if validation[place] - mean > ratio * mean else 0
        before = place + 1
        if run >= patience:
            told.append(int(place) + 1)
    return episodes("overfitting", "Overfit", told)


def overtraining(
    trace: Trace, patience_train: int = 5, patience_validation: int = 10, delta: float = 0.1
) -> list[Alert]:
    """Overtraining: training loss without a better value (by 0.1) in 5 steps, and validation in 10.

    The guide counts steps that were saved; for the validation loss those are validations.
    """
    told = []
    loss, validation = trace.get("loss"), trace.get("val_loss")
    best = [np.inf, np.inf]
    waited = [0, 0]
    for place in range(trace.steps):
        for which, value in ((0, loss[place]), (1, validation[place])):
            if which == 1 and np.isnan(value):
                continue
            if value < best[which] - delta:
                best[which], waited[which] = value, 0
            else:
                waited[which] += 1
        if waited[0] >= patience_train and waited[1] >= patience_validation:
            told.append(place + 1)
    return episodes("overfitting", "Overtraining", told)


def class_imbalance(
    trace: Trace, imbalance: float = 10.0, misprediction: float = 0.7, samples: int = 500
) -> list[Alert]:
    """ClassImbalance: the largest class ten times the smallest, or 70 % of a class got wrong.

    Over all labels seen so far, after 500 of them. Whether the service forgets is not said.
    """
    if trace.labels is None or trace.wrong is None:
        return []
    seen, wrong = trace.labels.cumsum(0), trace.wrong.cumsum(0)
    enough = seen.sum(1) >= samples
    with np.errstate(all="ignore"):
        uneven = seen.max(1) / seen.min(1) > imbalance
        missed = (wrong / seen > misprediction).any(1)
    return episodes("classes", "ClassImbalance", _steps(enough & (uneven | missed)))


RULES = (
    vanishing_gradient,
    exploding_tensor,
    dead_relu,
    saturated_activation,
    poor_weight_initialization,
    weight_update_ratio,
    loss_not_decreasing,
    overfit,
    overtraining,
    class_imbalance,
)
