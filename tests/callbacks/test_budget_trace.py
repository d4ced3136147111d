"""The budget on the costs of a real run, as `record_costs` wrote them down."""

from __future__ import annotations

import json
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import pytest
from otoscope.callbacks.budget import POOL, Budget

TRACE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "costs.json").read_text())
DEAR = [name for name, how in TRACE["claims"].items() if how.get("dear")]


def replayed(share: float, known: bool, repeats: int = 1) -> tuple[Budget, dict[str, list[int]]]:
    """Train on the trace, `repeats` times over; return the budget and the steps of each probe."""
    steps = TRACE["steps"] * repeats
    budget = Budget(share)
    for name, how in TRACE["claims"].items():
        budget.claim(name, **how)
    budget.begin(0, len(steps) if known else None)
    costs = {name: cycle(seconds) for name, seconds in TRACE["samples"].items()}
    sampled: dict[str, list[int]] = {name: [] for name in TRACE["claims"]}
    for number, (rest, fixed) in enumerate(steps, 1):
        spent = 0.0
        for name in budget.due(number):
            cost = next(costs[name])
            budget.paid(name, cost, number)
            sampled[name].append(number)
            spent += cost
        for name, why in budget.hopeless(number):
            budget.off(name, why)
        budget.stepped(rest + fixed + spent, fixed)
    return budget, sampled


def test_the_trace_is_of_a_run_with_every_default_probe() -> None:
    assert len(TRACE["steps"]) == 1000
    assert set(DEAR) == {"noise", "curvature", "landscape"}
    assert set(TRACE["samples"]) == set(TRACE["claims"])


@pytest.mark.parametrize("known", [True, False], ids=["known length", "unknown length"])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_a_recorded_run_stays_under_its_budget(share: float, known: bool) -> None:
    budget, sampled = replayed(share, known)
    assert budget.overhead <= share * 1.001
    assert budget.overhead >= 0.4 * share
    assert all(sampled[name] for name in TRACE["claims"] if name not in DEAR)
    assert len(sampled["norm"]) >= 9


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_a_dear_probe_that_the_run_can_pay_samples_in_its_first_tenth(share: float) -> None:
    budget, sampled = replayed(share, known=True)
    for name in DEAR:
        if budget.claims[name].off is None:
            assert sampled[name][0] <= 100
        else:
            assert sampled[name] == [], "what goes off costs nothing"
    assert sampled["noise"], "two half batches are never too dear"


def test_a_larger_budget_can_pay_all_of_them() -> None:
    budget, sampled = replayed(0.6, known=True)
    assert all(budget.claims[name].off is None and sampled[name] for name in DEAR)
    assert budget.overhead <= 0.6


def test_dear_samples_lie_a_pool_of_batches_apart() -> None:
    _, sampled = replayed(0.3, known=True, repeats=5)
    steps = sorted(step for name in DEAR for step in sampled[name])
    assert len(steps) > 50 and all(sampled[name] for name in DEAR)
    assert min(b - a for a, b in pairwise(steps)) >= POOL
