"""The budget, replayed over traces of costs: no clock, no training."""

from __future__ import annotations

import random

import pytest
from otoscope.callbacks.account import SPARE
from otoscope.callbacks.budget import Budget
from otoscope.callbacks.claim import DEAR_STEPS


def replay(
    budget: Budget,
    steps: int,
    *,
    step: float,
    fixed: float,
    costs: dict[str, float],
    noise: float = 0.0,
    warm: float = 1.0,
) -> dict[str, list[int]]:
    """Run a training of a given step time; returns in which steps each probe sampled."""
    chance = random.Random(5)
    sampled: dict[str, list[int]] = {name: [] for name in costs}
    for number in range(1, steps + 1):
        spent = 0.0
        for name in budget.due(number):
            cost = costs[name] * (1 + noise * chance.random())
            cost *= warm if not sampled[name] else 1
            budget.paid(name, cost, number)
            sampled[name].append(number)
            spent += cost
        for name, why in budget.hopeless(number):
            budget.off(name, why)
        budget.stepped(step * (1 + noise * chance.random()) + fixed + spent, fixed)
    return sampled


def default(share: float, max_steps: int | None = None) -> Budget:
    budget = Budget(share)
    budget.claim("norm", weight=2.0)
    budget.claim("gradients")
    budget.claim("activations")
    budget.claim("system", weight=0.3, least=10)
    budget.claim("curvature", weight=4.0, dear=True, first=20)
    budget.begin(0, max_steps)
    return budget


MLP = {"norm": 1e-4, "gradients": 8e-4, "activations": 2e-4, "system": 3e-5, "curvature": 0.2}


@pytest.mark.parametrize(
    ("share", "steps", "pace"),
    [
        (share, steps, pace)
        for share in (0.005, 0.02, 0.1, 0.5)
        for steps in (500, 3000, 20_000)
        for pace in (0.002, 0.01, 0.4)
        if share * steps * pace >= 0.02  # else too short to pay for one sample of each
    ],
)
@pytest.mark.parametrize("known", [True, False], ids=["known length", "unknown length"])
def test_the_total_stays_at_or_under_the_budget(
    share: float, steps: int, known: bool, pace: float
) -> None:
    budget = default(share, steps if known else None)
    dear = MLP | {"curvature": 50 * pace}
    replay(budget, steps, step=pace, fixed=1e-6, costs=dear, noise=0.3, warm=3.0)
    assert budget.overhead <= share * 1.001


def test_a_probe_runs_every_cost_over_allowance_steps() -> None:
    budget = Budget(0.02)
    budget.claim("gradients")
    sampled = replay(budget, 4000, step=0.010, fixed=0.0, costs={"gradients": 0.002})
    late = [b - a for a, b in zip(sampled["gradients"], sampled["gradients"][1:], strict=False)]
    # 2 ms at two percent of 10 ms
    assert set(late[-100:]) == {11}


def test_what_one_probe_leaves_goes_to_the_others() -> None:
    alone, shared = Budget(0.02), Budget(0.02)
    for budget in (alone, shared):
        budget.claim("gradients")
    shared.claim("norm", weight=5.0)
    costs = {"gradients": 0.002, "norm": 1e-6}
    first = replay(alone, 3000, step=0.01, fixed=0.0, costs={"gradients": 0.002})
    second = replay(shared, 3000, step=0.01, fixed=0.0, costs=costs)
    assert len(second["norm"]) >= 2990
    assert len(second["gradients"]) >= 0.9 * len(first["gradients"])


def test_early_samples_are_taken_on_credit_and_paid_back() -> None:
    budget = default(0.02, 2000)
    sampled = replay(budget, 300, step=0.002, fixed=1e-5, costs=MLP)
    assert all(sampled[name][0] == 1 for name in ("norm", "gradients", "activations", "system"))
    assert budget.overhead <= 0.02


def test_an_expensive_first_sample_does_not_starve_the_probe() -> None:
    budget = Budget(0.02)
    budget.claim("gradients")
    sampled = replay(budget, 3000, step=0.01, fixed=0.0, costs={"gradients": 0.001}, warm=30.0)
    assert len(sampled["gradients"]) > 0.7 * (3000 * 0.01 * 0.02 - 0.03) / 0.001


def test_a_slow_first_step_starves_nobody() -> None:
    budget = default(0.02)
    budget.stepped(0.5, 0.05)
    sampled = replay(budget, 1000, step=0.05, fixed=3e-5, costs=MLP, warm=30.0)
    assert len([step for step in sampled["norm"] if step > 100]) >= 800
    assert len(sampled["gradients"]) >= 100


def test_nothing_is_left_for_probes_where_every_step_costs_the_budget() -> None:
    budget = default(0.02)
    sampled = replay(budget, 5000, step=0.001, fixed=5e-5, costs=MLP)
    assert all(step <= 300 for steps in sampled.values() for step in steps)


def test_a_dear_probe_takes_its_first_sample_at_step_20_where_the_run_pays_it_back() -> None:
    budget = default(0.02, 20_000)
    sampled = replay(budget, 20_000, step=0.01, fixed=0.0, costs=MLP | {"curvature": 0.5})
    assert sampled["curvature"][0] == 20
    assert len(sampled["curvature"]) >= 3
    assert budget.overhead <= 0.02


def test_a_dear_probe_of_a_run_of_unknown_length_waits_until_it_has_been_earned() -> None:
    budget = default(0.02)
    sampled = replay(budget, 20_000, step=0.01, fixed=0.0, costs=MLP | {"curvature": 0.5})
    guess = DEAR_STEPS / (0.02 * 4 / 8.3)
    assert 0.9 * guess <= sampled["curvature"][0] <= 1.2 * guess


def test_a_run_too_short_for_a_dear_probe_switches_it_off_with_the_budget_that_would_do() -> None:
    budget = default(0.02, 1000)
    sampled = replay(budget, 1000, step=0.01, fixed=0.0, costs=MLP)
    assert sampled["curvature"] == []
    why = budget.claims["curvature"].off
    assert why is not None and "1000 steps of 10 ms" in why and "budget=0.14 would pay it" in why


def test_two_dear_probes_never_share_a_step() -> None:
    budget = Budget(0.5)
    budget.claim("curvature", dear=True, first=20)
    budget.claim("landscape", dear=True, first=20)
    budget.begin(0, 10_000)
    sampled = replay(
        budget, 10_000, step=0.01, fixed=0.0, costs={"curvature": 0.1, "landscape": 0.1}
    )
    assert sampled["curvature"] and sampled["landscape"]
    assert not set(sampled["curvature"]) & set(sampled["landscape"])


def test_a_fixed_interval_is_kept_whatever_it_costs() -> None:
    budget = Budget(0.01)
    budget.claim("gradients", every=7)
    sampled = replay(budget, 100, step=0.001, fixed=0.0, costs={"gradients": 0.01})
    assert sampled["gradients"] == list(range(1, 101, 7))


def test_a_resumed_run_counts_its_first_samples_from_where_it_starts() -> None:
    budget = default(0.02)
    budget.begin(5000, 90_000)
    assert budget.due(5001) == ["norm", "gradients", "activations", "system"]


def test_of_a_budget_that_following_steps_uses_up_nearly_all_as_much_is_kept_to_spare() -> None:
    budget = Budget(0.02)
    budget.claim("norm")
    budget.begin(0, None)
    sampled = replay(budget, 4000, step=7.26e-3, fixed=110e-6, costs={"norm": 2e-4})
    assert len(sampled["norm"]) > 20
    assert budget.overhead <= 1.02 * 0.02 / SPARE
