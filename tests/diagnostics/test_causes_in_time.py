"""Causes that hide what began with them or behind them, and nothing that was there before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from otoscope.diagnostics.inhibition import is_cause
from otoscope.store import Finding

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
