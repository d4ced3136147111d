"""No gradient: a run of which nothing at all comes back from the loss to any weight."""

from __future__ import annotations

import numpy as np

from ..store import Evidence, Recommendation
from .facts import BLOCK, learned
from .rule import Case, Context
from .windows import Samples, Window
from .words import count

NORMS, STEPS = 5, 20
"""Norms of exactly zero in a row, and the steps that they are from, which are no batch by chance."""
IS_NOTHING = 1e-6
"""A loss up to this leaves nothing to learn: a gradient of zero is what it should have."""
HALF = 0.5
"""Share of the first loss, or of that of guessing, under which a run has learned."""


def nothing_comes_back(window: Window, context: Context) -> Case | None:
    """Return the case of a gradient norm that is zero to the last bit; None where there is none.

    Either since the first step, or of late while the loss is no better than half of its start.
    """
    norms = window.history.column("train", "grad_sq", context.start, window.step).finite
    some = np.flatnonzero(norms.values != 0)
    first = int(some[-1]) + 1 if len(some) else 0
    steps = norms.steps[first:]
    if len(steps) < NORMS or steps[-1] - steps[0] < STEPS:
        return None
    losses = window.samples("train", "loss", count=BLOCK).finite
    if not len(losses) or np.abs(losses.values).mean() <= IS_NOTHING:
        return None
    if first and learned(window, context.facts, HALF):
        return None
    return _case(window, context, steps, losses, born=not first)


def _case(
    window: Window, context: Context, steps: np.ndarray, losses: Samples, *, born: bool
) -> Case:
    since = "since the first step" if born else f"since step {int(steps[0]):,}"
    single = _single_softmax(window)
    because = [
        Evidence(
            f"the gradient norm is exactly 0 in each of {count(len(steps), 'measurement')} {since}",
            "train",
            "grad_norm",
            int(steps[-1]),
            0.0,
        ),
        Evidence(
            "the loss is not",
            "train",
            "loss",
            int(losses.steps[-1]),
            float(np.abs(losses.values).mean()),
        ),
    ]
    if single:
        because.append(
            Evidence(
                "the net has one output, and it is 1 for every sample, as a softmax over one unit is",
                "head",
                "probability_rows",
                window.last_step("head"),
                1.0,
            )
        )
    return Case(
        title=f"No gradient reaches any weight: nothing has trained {since}",
        why="The loss does not depend on any weight, as far as its derivative tells: each step is zero.",
        because=tuple(because),
        recommendation=_no_softmax() if single else _look(),
        may_be_normal="Hardly ever: a loss whose margin every sample keeps, at a value that is not zero.",
        severity="critical",
        onset=context.start + 1 if born else int(steps[0]),
    )


def _single_softmax(window: Window) -> bool:
    """Tell whether rows of a single output sum to 1: then each is 1."""
    rows = window.samples("head", "probability_rows", count=20).finite.values
    classes = window.samples("head", "label_entropy", count=20).finite.values
    return bool(len(rows) and rows.min() == 1 and not len(classes))


def _no_softmax() -> Recommendation:
    return Recommendation(
        parameter="remove_softmax",
        current=False,
        proposed=True,
        basis="from your run",
        formula="exp(x) / exp(x) = 1, whatever the one output x is",
        snippet="# the last layer's bare output goes into the loss, and a sigmoid makes a probability of it\n"
        "loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y.float())",
        effect="the output depends on the weights",
        verify="a gradient norm that is not zero at once",
        risk="what reads the net's output as a probability needs the sigmoid there",
    )


def _look() -> Recommendation:
    return Recommendation(
        parameter="inspect",
        current=None,
        proposed=["the loss", "the last layer's output"],
        basis="from your run",
        formula="derivatives that are zero: a clamp or a ReLU behind the last layer, a sigmoid or softmax "
        "whose outputs are 0 and 1 to the last bit, argmax, round, sign",
        snippet="outputs = model(x)\noutputs.retain_grad()\nloss_of(outputs, y).backward()\n"
        "print(outputs.std(0), outputs.grad.abs().max())  # zero: the loss; else what is in front of it",
        effect="the gradient reaches the weights",
        verify="a gradient norm that is not zero at once",
        risk="none",
    )
