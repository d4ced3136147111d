"""The budget of dear probes: set aside, spaced, brought forward, paid back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from otoscope.callbacks.account import SPARE
from otoscope.callbacks.budget import POOL, Budget
from otoscope.callbacks.claim import ONCE

from .test_budget import replay

DEAR = {"curvature": (4.0, 60.0), "landscape": (1.0, 20.0), "noise": (2.0, 2.0)}
"""Weight, and cost of a sample in steps."""
CHEAP = {"norm": 1e-4, "gradients": 8e-4, "activations": 2e-4}
STEP = 0.01
COSTS = CHEAP | {name: STEP * cost for name, (_, cost) in DEAR.items()}


def of_all(share: float, max_steps: int | None = None) -> Budget:
    budget = Budget(share)
    budget.claim("norm", weight=2.0)
    budget.claim("gradients")
    budget.claim("activations")
    for name, (weight, guess) in DEAR.items():
        budget.claim(name, weight=weight, dear=True, first=20, guess=guess)
    budget.begin(0, max_steps)
    return budget


def test_more_dear_probes_take_nothing_from_the_cheap_ones() -> None:
    few, many = Budget(0.02), of_all(0.02)
    for name in CHEAP:
        few.claim(name, weight=2.0 if name == "norm" else 1.0)
    few.claim("curvature", weight=4.0, dear=True, first=20)
    for budget in (few, many):
        budget.stepped(STEP, 0.0)
    assert many.allowances()["gradients"] == pytest.approx(few.allowances()["gradients"])


def test_every_dear_probe_that_a_run_of_1000_steps_can_pay_samples_in_its_first_tenth() -> None:
    budget = of_all(0.4, 1000)
    sampled = replay(budget, 1000, step=STEP, fixed=0.0, costs=COSTS)
    assert all(sampled[name][0] <= 100 for name in DEAR)
    assert budget.overhead <= 0.4


def test_what_a_short_run_cannot_pay_goes_off_and_leaves_its_part_to_the_rest() -> None:
    budget = of_all(0.02, 1000)
    sampled = replay(budget, 1000, step=STEP, fixed=0.0, costs=COSTS)
    assert sampled["curvature"] == [] and budget.claims["curvature"].off is not None
    assert len(sampled["noise"]) >= 2 and sampled["noise"][0] <= 100
    assert budget.overhead <= 0.02


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_dear_samples_lie_at_least_a_pool_of_batches_apart(share: float) -> None:
    sampled = replay(of_all(share, 5000), 5000, step=STEP, fixed=0.0, costs=COSTS)
    steps = sorted(step for name in DEAR for step in sampled[name])
    assert len(steps) > 10
    assert min(b - a for a, b in pairwise(steps)) >= POOL


def test_dear_probes_at_every_step_take_turns() -> None:
    budget = Budget(1.0)
    for name in ("curvature", "noise"):
        budget.claim(name, dear=True, every=1)
    budget.begin(0, 100)
    sampled = replay(
        budget, 100, step=STEP, fixed=0.0, costs=dict.fromkeys(("curvature", "noise"), STEP)
    )
    assert len(sampled["curvature"]) == len(sampled["noise"]) == 50
    assert not set(sampled["curvature"]) & set(sampled["noise"])


def waits(budget: Budget, hastened_at: int) -> tuple[list[int], float]:
    """Replay 40,000 steps and return the steps of curvature, and the largest overhead late on."""
    found: list[int] = []
    worst = 0.0
    for step in range(1, 40_001):
        if step == hastened_at:
            budget.hasten(step)
        spent = 0.0
        for name in budget.due(step):
            budget.paid(name, COSTS[name], step)
            spent += COSTS[name]
            found += [step] if name == "curvature" else []
        budget.stepped(STEP + spent, 0.0)
        worst = max(worst, budget.overhead) if step > 35_000 else worst
    return found, worst


@pytest.mark.parametrize("known", [True, False], ids=["known length", "unknown length"])
def test_a_hastened_sample_comes_at_once_and_a_longer_wait_pays_it_back(known: bool) -> None:
    length = 40_000 if known else None
    calm, _ = waits(of_all(0.05, length), -1)
    at = calm[1] + (calm[2] - calm[1]) // 3
    hurried, overhead = waits(of_all(0.05, length), at)
    assert hurried[:2] == calm[:2]
    assert at < hurried[2] <= at + 4 * POOL
    assert hurried[3] - hurried[2] > calm[2] - calm[1]
    assert len(hurried) <= len(calm)
    assert overhead <= 0.05


def test_nobody_hurries_who_is_in_debt_or_has_never_sampled() -> None:
    budget = of_all(0.02)
    budget.stepped(STEP, 0.0)
    before = {name: claim.next_step for name, claim in budget.claims.items()}
    budget.hasten(5)
    assert {name: claim.next_step for name, claim in budget.claims.items()} == before
    budget.paid("curvature", 0.6, 20)
    due = budget.claims["curvature"].next_step
    budget.hasten(30)
    assert budget.claims["curvature"].next_step == due


@pytest.mark.parametrize("steps", [20, 52, 200])
def test_a_short_run_borrows_no_more_than_it_can_pay_back(steps: int) -> None:
    budget = of_all(0.02, steps)
    replay(budget, steps, step=0.057, fixed=3e-5, costs=CHEAP | dict.fromkeys(DEAR, 10.0))
    assert budget.overhead <= 0.02 * 1.001
    assert budget.spent > 0.25 * 0.02 * budget.elapsed


@pytest.mark.parametrize("known", [True, False], ids=["known length", "unknown length"])
def test_what_the_start_has_cost_is_paid_back_bit_by_bit(known: bool) -> None:
    budget = of_all(0.02, 10_000 if known else None)
    budget.start_seconds = 0.2
    budget.claim("initialization", least=ONCE)
    budget.paid("initialization", 0.1, 1)
    sampled = replay(budget, 10_000, step=STEP, fixed=0.0, costs=COSTS)
    assert budget.overhead <= 0.02
    early = [step for step in sampled["gradients"] if step <= 1000]
    free = replay(of_all(0.02, 10_000), 1000, step=STEP, fixed=0.0, costs=COSTS)
    assert len(early) >= 0.5 * len(free["gradients"])


def test_what_following_steps_takes_is_taken_from_cheap_and_dear_probes_alike() -> None:
    spent: dict[float, tuple[float, float]] = {}
    for fixed in (0.0, 0.008):  # of a budget of 0.02
        budget = of_all(0.02)
        costs = CHEAP | {"curvature": 20 * STEP, "landscape": 8 * STEP, "noise": 2 * STEP}
        replay(budget, 40_000, step=STEP, fixed=fixed * STEP, costs=costs)
        claims = budget.claims
        spent[fixed] = (
            sum(claims[name].seconds for name in CHEAP),
            sum(claims[name].seconds for name in DEAR),
        )
    left = 1 - 0.008 * SPARE / 0.02
    for before, after in zip(spent[0.0], spent[0.008], strict=True):
        assert after / before == pytest.approx(left, rel=0.1)
