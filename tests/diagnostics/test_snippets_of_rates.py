"""What is pasted names the argument that the rate comes from, and counts from what the run was made with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks.describing import described_optimizer
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.snippets import optimizer_with, warm_up_snippet
from torch.optim import lr_scheduler

from .test_snippets_rollback import STEPS, Two, context, net, trained

NOWHERE = Path("a.ckpt")


def known(schedules: str, now: float, loop: str = "lightning") -> Context:
    return context(net(schedules), now, NOWHERE, loop)


def code(snippet: str) -> dict[str, Any]:
    """Return what a snippet sets."""
    names: dict[str, Any] = {}
    exec(snippet, names)
    return {name: value for name, value in names.items() if name != "__builtins__"}


@pytest.mark.parametrize(
    ("schedules", "asked"),
    [("cycles", "CyclicLR's base_lr and max_lr"), ("one cycle", "OneCycleLR's max_lr")],
)
def test_where_a_schedule_sets_the_rate_its_own_arguments_are_multiplied(
    schedules: str, asked: str
) -> None:
    snippet = optimizer_with(known(schedules, 0.05), 0.015)
    assert code(snippet) == {"times": pytest.approx(0.3)}
    assert asked in snippet


@pytest.mark.parametrize("loop", ["own", "lightning"])
def test_one_cycle_is_known_in_any_loop_and_within_another_schedule(loop: str) -> None:
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.1)
    parts = [lr_scheduler.OneCycleLR(optimizer, 0.1, 6), lr_scheduler.ConstantLR(optimizer, 1.0, 2)]
    lr_scheduler.SequentialLR(optimizer, parts, [6])
    told = known("none", 0.05, loop)
    meta = replace(told.meta, optimizers=[described_optimizer(optimizer)])
    snippet = optimizer_with(replace(told, meta=meta), 0.015)
    assert code(snippet) == {"times": pytest.approx(0.3)}
    assert "OneCycleLR's max_lr" in snippet


def test_a_loop_whose_schedule_is_not_known_is_told_that_one_may_have_a_rate_of_its_own() -> None:
    told = known("cycles", 0.05, "own")
    del told.meta.config["schedules"]
    snippet = optimizer_with(told, 0.015)
    assert "max_lr times 0.3 then" in snippet


@pytest.mark.parametrize(("schedules", "name"), [("one cycle", "max_lr"), ("cosine", "lr")])
def test_another_optimizer_gets_its_rate_where_it_comes_from(schedules: str, name: str) -> None:
    snippet = optimizer_with(known(schedules, 0.05), 0.003, name="AdamW")
    names: dict[str, Any] = {"torch": torch}
    exec(snippet, names)
    assert names["optimizer_class"] is torch.optim.AdamW
    assert names[name] == 0.003


@pytest.mark.parametrize("schedules", ["none", "cosine", "restarts"])
def test_a_rate_as_made_stays_where_something_raised_it_later(schedules: str) -> None:
    snippet = optimizer_with(known(schedules, 1.0), 0.1)
    assert code(snippet) == {}
    assert "lr stays 0.1, as it was made: leave out what raised it to 1" in snippet


@pytest.mark.parametrize("schedules", ["none", "cosine", "restarts"])
def test_a_rate_under_one_that_was_raised_by_hand_is_told_as_it_is(schedules: str) -> None:
    snippet = optimizer_with(known(schedules, 1.0), 0.03)
    assert code(snippet) == {"lr": 0.03}
    assert "in place of 0.1; in each other group by the same factor" in snippet
    assert "leave out what raised it to 1" in snippet


def test_a_rate_that_its_own_schedule_raised_is_told_by_the_factor() -> None:
    """A warm-up over ranks: from the rate of one to that of all."""
    told = known("cosine", 0.8)
    told.meta.config["schedules"] = ["LambdaLR"]
    snippet = optimizer_with(told, 0.24)
    assert code(snippet) == {"lr": pytest.approx(0.03)}
    assert "leave out" not in snippet
    assert code(optimizer_with(told, 0.1)) == {}  # as it was made


def test_settings_alone_say_nothing_of_a_rate_that_was_raised() -> None:
    snippet = optimizer_with(known("none", 1.0), 1.0, betas=[0.9, 0.95])
    assert code(snippet) == {"betas": (0.9, 0.95)}
    assert "lr" not in snippet


def test_hugging_faces_rate_that_was_raised_by_hand_is_told_as_it_is() -> None:
    told = known("cosine", 1.0, "transformers")
    told.meta.config["schedules"] = ["LinearLR"]
    snippet = optimizer_with(told, 0.03)
    assert "learning_rate=0.03)" in snippet
    assert "leave out what raised the rate to 1" in snippet


def test_a_warm_up_of_two_optimizers_is_as_long_as_of_one() -> None:
    told = context(Two(), 0.1, NOWHERE)
    told.meta.config["optimization"] = "manual"
    snippet = warm_up_snippet(told, 8, 0.1)
    seen: list[list[float]] = []

    class Warm(Two):
        def training_step(self, batch: torch.Tensor, index: int) -> None:
            seen.append([])
            optimizers: Any = self.optimizers()
            for optimizer in optimizers:
                optimizer.zero_grad()
                self.manual_backward(self.loss(batch))
                noting = optimizer.optimizer.register_step_pre_hook(
                    lambda it, *told: seen[-1].append(it.param_groups[0]["lr"])
                )
                exec(snippet, {"self": self, "optimizer": optimizer})
                noting.remove()

    trained(Warm(), 2 * STEPS)
    wanted = [min(1.0, (step + 1) / 8) for step in range(STEPS)]
    assert seen == [pytest.approx([0.1 * share, 0.5 * share]) for share in wanted]
