"""A rate that threw the loss far over its start is critical, also where the loss came back."""

from __future__ import annotations

import pytest
from otoscope.diagnostics.facts import Facts
from otoscope.diagnostics.high_rates import blew_up
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.thresholds import load
from otoscope.store import Meta


@pytest.mark.parametrize(
    ("peak", "critical"), [(2.6, False), (4.9, False), (5.1, True), (float("inf"), True)]
)
def test_the_peak_of_the_loss_makes_it_critical(peak: float, critical: bool) -> None:
    numbers = load("lr_too_high", {})
    facts = Facts(loss_start=2.5, loss_peak=peak)
    assert blew_up(Context(meta=Meta(), facts=facts, thresholds=numbers, rates=numbers)) is critical
