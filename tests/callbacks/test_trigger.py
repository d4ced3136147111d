"""The trigger: what of a run's losses and norms calls for a look at the model."""

from __future__ import annotations

import math

import numpy as np
from otoscope.callbacks.trigger import COOL_DOWN, Trigger


def said(losses: list[float], *, apart: int = 8) -> list[tuple[int, str]]:
    """Feed losses some at a time, as steps leave; return (step, why)."""
    trigger, found = Trigger(), []
    for begin in range(0, len(losses), apart):
        part = losses[begin : begin + apart]
        why = trigger.observe(begin + len(part), part)
        if why is not None:
            found.append((begin + len(part), why))
    return found


def falling(steps: int, noise: float = 0.2, seed: int = 0) -> list[float]:
    chance = np.random.default_rng(seed)
    return (
        np.exp(-np.arange(steps) / 400) * np.exp(noise * chance.standard_normal(steps))
    ).tolist()


def test_a_loss_that_falls_with_its_noise_calls_for_nothing() -> None:
    assert [said(falling(1000, seed=seed)) for seed in range(20)] == [[]] * 20


def test_a_loss_that_turns_round_calls_within_two_blocks() -> None:
    losses = falling(400) + [2 * falling(400)[-1]] * 40
    found = said(losses)
    assert [why for _, why in found] == ["rise"] and 400 < found[0][0] <= 432


def test_a_loss_that_stays_up_calls_again_only_behind_the_cool_down() -> None:
    steps = [step for step, _ in said(falling(400) + [3.0] * 1000)]
    assert len(steps) > 1
    assert min(np.diff(steps)) >= COOL_DOWN


def test_a_flat_stretch_calls_once_and_again_only_after_the_loss_fell() -> None:
    flat = [1.0 + 0.001 * (i % 3) for i in range(1000)]
    assert [why for _, why in said(flat)] == ["flat"]
    again = said(flat[:400] + [0.9 - 0.001 * i for i in range(300)] + [0.5] * 400)
    assert [why for _, why in again] == ["flat", "flat"]


def test_a_gradient_norm_far_beyond_the_last_ones_calls() -> None:
    trigger = Trigger()
    assert all(trigger.observe(i, [], [1.0 + i % 3]) is None for i in range(1, 30))
    assert trigger.observe(30, [], [9.0]) is None
    assert trigger.observe(31, [], [40.0]) == "spike"


def test_what_is_not_finite_is_no_reason_and_breaks_nothing() -> None:
    trigger = Trigger()
    assert trigger.observe(300, [math.nan, math.inf] * 100, [math.nan, math.inf] * 20) is None
    assert trigger.observe(400, falling(32)) is None
