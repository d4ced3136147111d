"""Causes that hide what began with them or behind them, and nothing that was there before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from otoscope.diagnostics.inhibition import is_cause
from otoscope.store import Finding

from .made import ADAM, Made, falling, train
from .test_no_gradient import at, made


def finding(rule: str, first_step: int) -> Finding:
    some = made(at((1, 2, 3, 20, 30)), steps=30).sure
    return replace(some, id=f"{rule}:run:1:{first_step}", rule=rule, first_step=first_step)


@pytest.mark.parametrize("left_behind", ["stale_second_moment", "saturated_activations"])
def test_what_a_stretch_of_bad_batches_left_behind_hangs_under_it(left_behind: str) -> None:
    spike = finding("loss_spike", 210)
    assert is_cause(spike, finding(left_behind, 210))
    assert is_cause(spike, finding(left_behind, 310))
    assert not is_cause(spike, finding(left_behind, 205))


def test_a_second_moment_that_was_stale_before_is_what_threw_the_loss_up() -> None:
    spike, stale = finding("loss_spike", 210), finding("stale_second_moment", 200)
    assert is_cause(stale, spike)
    assert not is_cause(spike, stale)


@pytest.mark.parametrize(("step_of_146", "onset"), [(0.005, 148), (0.012, 146)])
def test_a_second_moment_is_stale_from_the_first_step_on_that_was_longer(
    step_of_146: float, onset: int
) -> None:
    steps = list(range(100, 162, 2))
    ratios, sizes = dict.fromkeys(steps, 1.5), dict.fromkeys(steps, 0.006)
    ratios |= {146: 4.4, 148: 4.6, 150: 6.5, 152: 5.0}
    sizes |= {146: step_of_146, 148: 0.009, 150: 0.01, 152: 0.01}
    losses = falling(170)
    losses[147:165] = 4.0
    run = Made("stale_second_moment", optimizers=[ADAM])
    run.add("train", train(losses))
    layer = {"update_sq": [sizes[s] ** 2 for s in steps], "weight_sq": np.ones(len(steps))}
    rows = {name: {"0": list(row)} for name, row in layer.items()}
    run.add("gradients", {}, steps, {**rows, "adam_ratio": {"0": [ratios[s] for s in steps]}})
    (stale,) = run.judge()
    assert stale.first_step == onset
