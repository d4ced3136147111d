"""What is looked at as soon as something happens, and what a run tells of its groups and norms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Head, Inputs, attach
from otoscope.callbacks.budget import HURRIED, HURRIED_APART, Budget
from otoscope.callbacks.layers import described_parameters
from otoscope.callbacks.trigger import COOL_DOWN
from torch import nn

from tests.callbacks.fits import recorded

STEP = 0.01


def in_debt(cost: float, name: str, **claim: Any) -> Budget:
    """Return a budget in debt, a hundred steps into a run, of a probe of that name and a plain one."""
    budget = Budget(0.02)
    budget.claim(name, **claim)
    budget.claim("gradients")
    budget.begin(0)
    for step in range(1, 101):
        for due in budget.due(step):
            budget.paid(due, cost, step)
        budget.stepped(STEP, 0.9 * 0.02 * STEP)
    budget.paid("gradients", 1.0, 100)
    return budget


def eager(cost: float) -> Budget:
    return in_debt(cost, "inputs", eager=True, least=20)


def sampled(budget: Budget, name: str, steps: range, cost: float) -> list[int]:
    found = []
    for step in steps:
        due = budget.due(step)
        for other in due:
            budget.paid(other, cost, step)
        found += [step] if name in due else []
        budget.stepped(STEP, 0.9 * 0.02 * STEP)
    return found


def test_an_eager_probe_looks_several_times_at_once_although_the_budget_is_in_debt() -> None:
    cost = 1e-3
    calm, budget = eager(cost), eager(cost)
    after = range(101, 101 + COOL_DOWN)
    assert sampled(calm, "inputs", after, cost) == []
    budget.hasten(100)
    expected = [101 + i * HURRIED_APART for i in range(HURRIED)]
    assert sampled(budget, "inputs", after, cost) == expected
    assert budget.claims["gradients"].hurried == 0


def test_an_eager_probe_that_is_dear_beside_the_steps_does_not_hurry() -> None:
    budget = eager(5e-3)
    budget.hasten(100)
    assert budget.claims["inputs"].hurried == 0


def promising(cost: float) -> list[int]:
    """Return the steps of a probe that has promised three looks from step 105 on, of a budget in debt."""
    budget = in_debt(cost, "head", least=10, promised=((105, 3),))
    return sampled(budget, "head", range(101, 401), cost)


def test_looks_that_were_promised_are_taken_in_debt_where_they_are_cheap() -> None:
    assert promising(1e-3) == [105, 105 + HURRIED_APART, 105 + 2 * HURRIED_APART]
    assert promising(1.5e-3) == [
        105,
        105 + HURRIED_APART,
    ]  # as many as a fifth of what was earned pays
    assert promising(4e-3) == []


def test_a_look_that_was_promised_is_the_first_where_the_budget_had_no_room_for_one() -> None:
    budget = Budget(0.02)
    budget.claim("head", least=10, promised=((105, 3),))
    budget.claim("gradients")
    budget.begin(0)
    budget.paid("gradients", 1.0, 0)
    for _ in range(100):
        budget.stepped(STEP, 0.9 * 0.02 * STEP)
    assert sampled(budget, "head", range(101, 401), 1e-3) == [105, 110, 115]


def of_length(steps: int, promised: tuple[int, int], cost: float = 1e-3) -> list[int]:
    """Return the later steps of a probe that took some looks, in a run whose probes owe a second."""
    budget = Budget(0.02)
    budget.claim("head", least=10, promised=(promised,))
    budget.claim("gradients")
    budget.begin(0, steps)
    for step in (1, 2):
        budget.paid("head", cost, step)
    budget.paid("gradients", 1.0, 2)
    for step in range(1, promised[0]):
        budget.stepped(STEP, 0.9 * 0.02 * STEP)
        budget.due(step)
    return sampled(budget, "head", range(promised[0], promised[0] + 60), cost)


def test_the_fewest_promised_looks_need_not_be_paid_where_they_are_little_of_the_run() -> None:
    assert of_length(1000, (105, 6)) == [105, 105 + HURRIED_APART]
    assert of_length(400, (105, 6), cost=0.01) == []  # 20 ms of a run that earns 80


def test_looks_that_are_promised_for_the_start_are_those_that_are_missing() -> None:
    assert of_length(1000, (10, 4)) == [10, 15]
    assert of_length(1000, (10, 2)) == []


def test_a_run_that_goes_on_keeps_its_promises_as_many_steps_later() -> None:
    budget = Budget(0.02)
    budget.claim("head", promised=((105, 3),))
    budget.begin(1000)
    assert budget.claims["head"].promised == [(1105, 3)]


def test_inputs_that_shift_are_looked_at_within_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    recorder = attach(
        net, optimizer, probes=[Inputs()], spool=tmp_path, strict=True, verdict=False, budget=1.0
    )
    recorder._budget.claims["inputs"].least = 100_000  # type: ignore[attr-defined]  # it would not come by itself
    for step in range(1, 401):
        x = torch.randn(16, 6) + (9.0 if step > 250 else 0.0)
        loss = nn.functional.mse_loss(net(x), x[:, :1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder.step(loss, 16, batch=(x, x[:, :1]))
    recorder.finish()
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "inputs")
    late = series.steps[series.steps > 250]
    assert len(late) >= 3
    assert late[0] < 350


def test_a_parameter_is_told_with_its_group_and_a_batch_norm_with_its_momentum() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=0.02), nn.LayerNorm(4))
    groups = [{"params": net[0].parameters()}, {"params": net[1].parameters(), "lr": 0.5}]
    rows = {row["name"]: row for row in described_parameters(net, [torch.optim.SGD(groups, 0.1)])}
    assert [rows[name].get("group") for name in ("0.weight", "1.bias", "2.weight")] == [
        "0.0", "0.1", None,
    ]  # fmt: skip
    assert (rows["1.weight"]["momentum"], rows["1.weight"]["fresh"]) == (0.02, True)
    assert "momentum" not in rows["2.weight"]
    net(torch.randn(8, 4) + 3)
    assert described_parameters(net)[2]["fresh"] is False


@pytest.mark.parametrize(("evaluating", "share"), [(True, 1.0), (False, 0.0)])
def test_batch_norms_in_eval_mode_are_counted_in_steps_that_train(
    tmp_path: Path, evaluating: bool, share: float
) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    net[1].train(not evaluating)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    recorder = attach(
        net, optimizer, probes=[Head()], spool=tmp_path, strict=True, verdict=False, budget=1.0
    )
    x, y = torch.randn(32, 4), torch.randint(3, (32,))
    for _ in range(6):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder.step(loss, 32, batch=(x, y))
    recorder.finish()
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "head")
    assert series.column("in_eval")[-1] == share
    assert series.column("as_logits")[-1] == pytest.approx(1, abs=1e-5)
