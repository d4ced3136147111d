"""What is pasted leaves the groups and the schedule that a run has, and reaches the rate it proposes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from otoscope.callbacks import Otoscope
from otoscope.diagnostics.facts import Facts
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.snippets import (
    optimizer_by_layer,
    optimizer_with,
    resume_snippet,
    warm_up_snippet,
)
from otoscope.diagnostics.thresholds import load
from otoscope.store import connect
from torch.optim import lr_scheduler

from .test_snippets import trainer_of

STEPS, AT = 12, 6
RATE = 0.1

Schedule = Callable[[Any], Any]
SCHEDULES: dict[str, Schedule] = {
    "warm-up": lambda it: lr_scheduler.LambdaLR(it, lambda step: min(1.0, (step + 1) / 8)),
    "cosine": lambda it: lr_scheduler.CosineAnnealingLR(it, STEPS),
    "one cycle": lambda it: lr_scheduler.OneCycleLR(it, [RATE, RATE / 10], STEPS),
    "both": lambda it: lr_scheduler.SequentialLR(
        it, [lr_scheduler.LinearLR(it, 0.1, 1.0, 4), lr_scheduler.CosineAnnealingLR(it, 8)], [4]
    ),
}


class Net(lightning.LightningModule):
    """Two layers whose weights decay and whose biases learn ten times slower, under a schedule."""

    schedule: Schedule = staticmethod(SCHEDULES["warm-up"])
    lr, weight_decay, betas = RATE, 0.1, (0.9, 0.999)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
        self.rates: list[list[float]] = []

    def groups(self) -> list[dict[str, Any]]:
        weights = [p for p in self.parameters() if p.ndim > 1]
        biases = [p for p in self.parameters() if p.ndim == 1]
        slower = {"params": biases, "lr": self.lr / 10, "weight_decay": 0.0}
        return [{"params": weights, "weight_decay": self.weight_decay}, slower]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.groups(), lr=self.lr, betas=self.betas)
        # noted within the step, where a warm-up of ours holds
        optimizer.register_step_pre_hook(
            lambda it, *told: self.rates.append([group["lr"] for group in it.param_groups])
        )
        schedule = {"scheduler": type(self).schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return self.last(self.first(batch).relu()).square().mean()


BATCHES = torch.utils.data.DataLoader(torch.ones(4 * STEPS, 2), batch_size=4)  # type: ignore[arg-type]


def net(schedule: str = "warm-up", **own: Any) -> Net:
    torch.manual_seed(0)
    return type("Mended", (Net,), {"schedule": staticmethod(SCHEDULES[schedule]), **own})()


def fitted(model: Net, path: Path | None = None, steps: int = STEPS) -> list[list[float]]:
    """Return the rates of both groups in every step of a fit; `path`: where to leave a checkpoint."""
    run = trainer_of(steps)
    run.fit(model, BATCHES)
    if path is not None:
        run.save_checkpoint(path)
    return model.rates


@pytest.fixture(scope="module", params=SCHEDULES)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a schedule's name, what a recorded run of it tells at step `AT`, and all its rates."""
    where = tmp_path_factory.mktemp("run")
    watching = Otoscope(spool=where, verdict=False, strict=True)
    model = net(request.param)
    trainer_of(STEPS, watching).fit(model, BATCHES)
    run = str(watching.run_id)
    meta = connect(where / run).meta(run)
    numbers = load("lr_too_high", {})
    facts = Facts(lr_last=float(f"{model.rates[AT - 1][0]:.6g}"))
    context = Context(meta=meta, facts=facts, thresholds=numbers, rates=numbers)
    return request.param, context, model.rates


def scaled(rates: list[list[float]], times: float) -> list[Any]:
    return [pytest.approx([times * rate for rate in row], rel=5e-3) for row in rates]


def test_another_rate_is_that_of_the_step_at_hand_and_the_schedule_stays(told: Any) -> None:
    schedule, context, rates = told
    snippet = optimizer_with(context, 0.3 * rates[AT - 1][0])
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert "in configure_optimizers" in snippet
    assert "2 groups" in snippet and "LR" in snippet
    if schedule == "one cycle":
        assert names["times"] == pytest.approx(0.3, rel=5e-3)
        assert "max_lr" in snippet
    else:
        assert set(names) - {"__builtins__"} == {"lr"}
        assert fitted(net(schedule, lr=names["lr"])) == scaled(rates, 0.3)


def test_other_settings_say_nothing_of_the_rate_that_stays(told: Any) -> None:
    _, context, rates = told
    names: dict[str, Any] = {}
    now = rates[AT - 1][0]
    exec(optimizer_with(context, now, betas=[0.9, 0.95], weight_decay=0.3), names)
    assert set(names) - {"__builtins__"} == {"betas", "weight_decay"}
    model = net("warm-up", betas=names["betas"], weight_decay=names["weight_decay"])
    made = model.configure_optimizers()["optimizer"]
    assert [group["weight_decay"] for group in made.param_groups] == [0.3, 0.0]
    assert made.param_groups[0]["betas"] == (0.9, 0.95)


def test_a_run_that_goes_back_takes_its_groups_and_its_schedule_along(
    told: Any, tmp_path: Path
) -> None:
    schedule, context, rates = told
    path = tmp_path / "a.ckpt"
    fitted(net(schedule), path, AT)
    snippet = resume_snippet(context, str(path), {"lr": 0.3 * rates[AT - 1][0]})
    hook, _, call = snippet.rpartition("trainer.fit")
    names: dict[str, Any] = {}
    exec(hook, names)
    model, run = net(schedule, on_train_start=names["on_train_start"]), trainer_of(STEPS)
    exec(f"trainer.fit{call.replace('model', 'model, data')}", {
        "trainer": run, "model": model, "data": BATCHES,
    })  # fmt: skip
    assert run.global_step == STEPS
    assert model.rates == scaled(rates[AT:], 0.3)


def test_a_warm_up_shortens_the_first_steps_and_leaves_all_that_comes(told: Any) -> None:
    schedule, context, rates = told
    names: dict[str, Any] = {}
    exec(warm_up_snippet(context, 4, RATE), names)
    found = fitted(net(schedule, optimizer_step=names["optimizer_step"]))
    assert found[:4] == [row for i in range(4) for row in scaled(rates[i : i + 1], (i + 1) / 4)]
    assert found[4:] == scaled(rates[4:], 1.0)


def test_factors_of_layers_come_over_the_rates_of_their_groups(told: Any) -> None:
    schedule, context, rates = told
    snippet = optimizer_by_layer(context, math.nan, {"first": 3.0})

    class Split(Net):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.groups(), lr=self.lr)
            names: dict[str, Any] = {"self": self, "optimizer": optimizer}
            exec(snippet, names)
            optimizer = names["optimizer"]
            made = optimizer.register_step_pre_hook
            made(lambda it, *told: self.rates.append([group["lr"] for group in it.param_groups]))
            if schedule == "one cycle":
                _, _, asked = snippet.partition("make it ")
                names["rate"] = [RATE, RATE / 10]
                tops = eval(asked.partition(", from")[0].replace("rate *", "rate[of] *"), names)
                follows = lr_scheduler.OneCycleLR(optimizer, tops, STEPS)
            else:
                follows = SCHEDULES[schedule](optimizer)
            scheduler = {"scheduler": follows, "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": scheduler}

    model = Split()
    for row, (weights, biases) in zip(fitted(model), rates, strict=True):
        wanted = sorted([weights, biases, 3 * weights, 3 * biases])
        assert sorted(row) == pytest.approx(wanted, rel=5e-3)
    groups = model.trainer.optimizers[0].param_groups
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.0, 0.1, 0.1]


def test_a_list_for_each_group_grows_with_the_groups_as_the_comment_says(told: Any) -> None:
    _, context, _ = told
    model, optimizer = net(), None
    optimizer = torch.optim.AdamW(model.groups(), lr=RATE)
    names: dict[str, Any] = {"self": model, "optimizer": optimizer, "values": [1.0, 0.5]}
    snippet = optimizer_by_layer(context, math.nan, {"first": 3.0})
    exec(snippet, names)
    values = eval(snippet.rpartition("group: ")[2], names)
    shares = [lambda step, value=value: value for value in values]
    lr_scheduler.LambdaLR(names["optimizer"], shares)
    rates = sorted(group["lr"] for group in names["optimizer"].param_groups)
    assert rates == pytest.approx([0.005, 0.015, 0.1, 0.3])


def test_factors_of_layers_leave_parameters_outside_of_the_model_alone(told: Any) -> None:
    _, context, _ = told
    own = replace(context, meta=replace(context.meta, config={"loop": "own"}))
    model, scale = torch.nn.Sequential(torch.nn.Linear(2, 3)), torch.nn.Parameter(torch.ones(1))
    groups = [{"params": model.parameters()}, {"params": [scale], "lr": 0.01}]
    names: dict[str, Any] = {"model": model, "optimizer": torch.optim.SGD(groups, lr=0.1)}
    exec(optimizer_by_layer(own, math.nan, {"0": 3.0}), names)
    rates = [(len(it["params"]), it["lr"]) for it in names["optimizer"].param_groups]
    assert rates == [(2, pytest.approx(0.3)), (1, 0.01)]


def test_no_groups_are_made_for_an_optimizer_that_takes_one_alone(told: Any) -> None:
    _, context, _ = told
    meta = replace(context.meta, optimizers=[{"name": "LBFGS", "lr": 1.0, "groups": 1}])
    snippet = optimizer_by_layer(replace(context, meta=meta), 1.0, {"first": 3.0})
    assert snippet.startswith("# LBFGS takes one group alone")
    assert "\n" not in snippet


def test_a_loop_of_ones_own_keeps_its_groups_and_its_schedule(told: Any, tmp_path: Path) -> None:
    schedule, context, rates = told
    own = replace(context, meta=replace(context.meta, config={"loop": "own"}))
    made = net(schedule).configure_optimizers()
    optimizer, follows = made["optimizer"], made["lr_scheduler"]["scheduler"]
    names: dict[str, Any] = {"torch": torch, "optimizer": optimizer}
    snippet = warm_up_snippet(own, 4, RATE)
    found = []
    for step in range(6):
        before = [group["lr"] for group in optimizer.param_groups]
        exec(snippet, {**names, "step": step})
        assert [group["lr"] for group in optimizer.param_groups] == before
        found.append(before)
        follows.step()
    assert found == scaled(rates[:6], 1.0)
    assert "where the optimizer is made" in optimizer_with(own, 0.01)
    torch.save(optimizer.state_dict(), tmp_path / "a.pt")
    load, then = resume_snippet(own, str(tmp_path / "a.pt"), {"lr": 0.3 * rates[AT - 1][0]}).split(
        "\n", 1
    )
    exec(load, names)
    now = [group["lr"] for group in optimizer.param_groups]
    exec(then, names)
    assert [[group["lr"] for group in optimizer.param_groups]] == scaled([now], 0.3)


def test_hugging_faces_arguments_name_the_rate_that_its_schedule_counts_from(told: Any) -> None:
    from transformers import TrainingArguments

    _, context, rates = told
    theirs = replace(context, meta=replace(context.meta, config={"loop": "transformers"}))
    names: dict[str, Any] = {"TrainingArguments": TrainingArguments}
    exec(optimizer_with(theirs, 0.3 * rates[AT - 1][0]), names)
    base = context.optimizer["base_lr"]
    assert names["arguments"].learning_rate == pytest.approx(0.3 * base, rel=5e-3)


def test_a_run_of_one_group_without_a_schedule_gets_its_whole_optimizer(tmp_path: Path) -> None:
    class Bare(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=RATE, weight_decay=0.1)

    watching = Otoscope(spool=tmp_path, verdict=False, strict=True)
    trainer_of(2, watching).fit(Bare(), BATCHES)
    run = str(watching.run_id)
    meta = connect(tmp_path / run).meta(run)
    assert (meta.optimizers[0]["groups"], meta.optimizers[0]["base_lr"]) == (1, None)
    assert "schedules" not in meta.config
    numbers = load("lr_too_high", {})
    context = Context(meta=meta, facts=Facts(), thresholds=numbers, rates=numbers)
    names: dict[str, Any] = {"torch": torch}
    exec(optimizer_with(context, 0.03), names)
    made = type("Mended", (Bare,), names)().configure_optimizers()
    assert (made.defaults["lr"], made.defaults["weight_decay"]) == (0.03, 0.1)
