"""Rates that are far too low: under a schedule that decays, and beside layers that begin at zero."""

from __future__ import annotations

import numpy as np
import pytest
from otoscope.store import Finding

from .made import ADAM, Made, falling, flat, train

STEPS = 400


def decaying(ratio: float, losses: np.ndarray, *, first: float | None = None) -> list[Finding]:
    """Return what is said of a rate that falls as a cosine does, whose longest steps are such a share of the weights.

    `first`: the first loss over that of guessing.
    """
    step = np.arange(STEPS)
    rate = 0.5 * (1 + np.cos(np.pi * step / STEPS))
    made = Made("lr_too_low", max_steps=STEPS)
    made.add("train", {**train(losses), "lr": 1e-6 * rate})
    at = list(range(1, STEPS, 10))
    moves = {layer: [(ratio * rate[i - 1]) ** 2 for i in at] for layer in "ab"}
    made.add("gradients", {}, at, {"update_sq": moves, "weight_sq": {x: [1.0] * 40 for x in "ab"}})
    if first is not None:
        made.add("initialization", {"loss_ratio": [first]}, [1])
    return made.judge()


def test_a_decay_does_not_explain_a_loss_that_no_step_of_the_run_was_long_enough_for() -> None:
    (finding,) = decaying(1e-6, flat(STEPS))
    assert finding.rule == "lr_too_low"
    assert finding.recommendation is not None
    assert finding.recommendation.parameter == "lr"
    assert finding.recommendation.proposed > 1e-4


@pytest.mark.parametrize(
    ("ratio", "losses", "first"),
    [
        (1e-3, flat(STEPS), None),  # it stands for another reason
        (1e-6, falling(STEPS), None),  # so it has learned, whatever its steps
        (1e-6, flat(STEPS), 0.3),  # it goes on from what has learned
    ],
    ids=["long steps", "learned", "fine-tuned"],
)
def test_a_decay_ends_a_run_whose_steps_were_long_or_which_has_learned(
    ratio: float, losses: np.ndarray, first: float | None
) -> None:
    assert decaying(ratio, losses, first=first) == []


def beside_zero(
    ratio: float,
    losses: np.ndarray,
    head: float = 1e-8,
    fan_in: int | None = 64,
    size: float = 1.0,
) -> list[Finding]:
    """Return what is said of layers that move by a share of their weights, beside a head that began at zero.

    `head`: how far each step moves it, of weights that would usually be 3.2 long; of no `fan_in`, `size`, as
    long as the others.
    """
    rows = [
        {"name": f"{x}.weight", "layer": x, "ndim": 2, "numel": 640, "fan_in": fan_in}
        for x in ("a", "b", "head")
    ]
    rows += [{"name": f"{x}.bias", "layer": x, "ndim": 1, "numel": 10} for x in ("a", "b", "head")]
    made = Made("lr_too_low", optimizers=[ADAM], parameters=rows)
    made.add("train", train(losses, lr=1e-8))
    at = [1, *range(10, STEPS, 10)]
    sizes = {
        "update_sq": {x: [(size * ratio) ** 2] * 40 for x in "ab"} | {"head": [head**2] * 40},
        "weight_sq": {x: [size**2] * 40 for x in "ab"} | {"head": [(i * head) ** 2 for i in at]},
        "numel": {x: [640.0] * 40 for x in ("a", "b", "head")},
    }
    made.add("gradients", {}, at, sizes)
    return made.judge()


@pytest.mark.parametrize("fan_in", [64, None])
def test_a_head_that_began_at_zero_does_not_hide_a_rate_that_is_too_low(
    fan_in: int | None,
) -> None:
    (finding,) = beside_zero(1e-7, flat(STEPS), fan_in=fan_in)
    assert finding.rule == "lr_too_low"
    assert beside_zero(1e-2, flat(STEPS)) == []
    assert beside_zero(1e-7, falling(STEPS, noise=0.01)) == []  # the head alone learns


def test_a_head_that_grows_from_zero_by_sound_steps_leaves_the_others_as_they_are_at_first() -> (
    None
):
    assert beside_zero(1e-6, flat(STEPS), head=0.01) == []
    assert beside_zero(1e-6, flat(STEPS), head=0.01, fan_in=None) == []
    # however large the others are: how large its own would be is told by its fan-in
    assert beside_zero(1e-7, flat(STEPS), head=3e-3, size=25.3) == []


def test_a_net_all_of_whose_layers_began_at_zero_is_read_by_what_they_are_now() -> None:
    made = Made("lr_too_low")
    made.add("train", train(flat(STEPS)))
    at = [1, *range(10, STEPS, 10)]
    sizes = {"update_sq": {"a": [1.0] * 40}, "weight_sq": {"a": [float(i * i) for i in at]}}
    made.add("gradients", {}, at, sizes)
    assert made.judge() == []
    assert made.judged("lr_too_low")
