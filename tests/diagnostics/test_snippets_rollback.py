"""What is pasted to go back scales all that a run's rates come from, once, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from otoscope.callbacks.describing import described_optimizer
from otoscope.diagnostics.facts import Facts
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.snippets import resume_snippet
from otoscope.diagnostics.thresholds import load
from otoscope.store import Meta
from torch.optim import lr_scheduler

from .test_snippets import trainer_of

STEPS, AT = 12, 6
BATCHES = torch.utils.data.DataLoader(torch.ones(160, 2), batch_size=4)  # type: ignore[arg-type]

Schedules = Callable[[Any], list[Any]]
SCHEDULES: dict[str, Schedules] = {
    "warm-up and plateau": lambda it: [
        lr_scheduler.LinearLR(it, 0.1, 1.0, 4),
        lr_scheduler.ReduceLROnPlateau(it, factor=0.5, patience=1, threshold=10.0, min_lr=0.03),
    ],
    "one after another, within one after another": lambda it: [
        lr_scheduler.SequentialLR(
            it,
            [
                lr_scheduler.SequentialLR(
                    it,
                    [lr_scheduler.LinearLR(it, 0.1, 1.0, 2), lr_scheduler.ConstantLR(it, 1.0, 2)],
                    [2],
                ),
                lr_scheduler.CosineAnnealingLR(it, 8),
            ],
            [4],
        )
    ],
    "chained": lambda it: [
        lr_scheduler.ChainedScheduler(
            [lr_scheduler.LinearLR(it, 0.1, 1.0, 4), lr_scheduler.ExponentialLR(it, 0.9)]
        )
    ],
    "plateau": lambda it: [
        lr_scheduler.ReduceLROnPlateau(it, factor=0.5, patience=1, threshold=10.0, min_lr=0.001)
    ],
    "cycles": lambda it: [
        lr_scheduler.CyclicLR(it, 0.01, 0.1, step_size_up=4, cycle_momentum=False)
    ],
    "restarts": lambda it: [lr_scheduler.CosineAnnealingWarmRestarts(it, 5, eta_min=0.005)],
    "cosine": lambda it: [lr_scheduler.CosineAnnealingLR(it, STEPS, eta_min=0.005)],
    "one cycle": lambda it: [lr_scheduler.OneCycleLR(it, 0.1, STEPS)],
    "none": lambda it: [],
}


class Net(lightning.LightningModule):
    """Two layers in two groups, the second ten times slower, under a list of schedules."""

    schedules: Schedules = staticmethod(SCHEDULES["none"])

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
        self.rates: list[list[float]] = []

    def configure_optimizers(self) -> Any:
        slower = {"params": self.last.parameters(), "lr": 0.01}
        groups = [{"params": self.first.parameters()}, slower]
        optimizer = torch.optim.AdamW(groups, lr=0.1)
        each = [{"interval": "step", "monitor": "loss"}]
        made = [{"scheduler": it, **each[0]} for it in type(self).schedules(optimizer)]
        return [optimizer], made

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(batch).relu()).square().mean()

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor | None:
        self.rates.append(
            [group["lr"] for it in self.trainer.optimizers for group in it.param_groups]
        )
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss


class Two(Net):
    """Two optimizers, both stepped by hand under a schedule of each."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        first = torch.optim.Adam(self.first.parameters(), lr=0.1)
        last = torch.optim.Adam(self.last.parameters(), lr=0.5)
        slow = [lr_scheduler.LambdaLR(it, lambda step: 1 / (1 + step)) for it in (first, last)]
        return [first, last], slow

    def training_step(self, batch: torch.Tensor, index: int) -> None:
        super().training_step(batch, index)
        optimizers, schedules = self.optimizers(), self.lr_schedulers()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):  # type: ignore[arg-type]
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()
            schedule.step()  # type: ignore[union-attr]


def net(schedules: str, **own: Any) -> Net:
    return type("Made", (Net,), {"schedules": staticmethod(SCHEDULES[schedules]), **own})()


def context(model: Net, now: float, path: Path, loop: str = "lightning", at: int = AT) -> Context:
    """Return what is known of a run of a model at a rate, with a checkpoint of a step."""
    told: Any = model.configure_optimizers()
    if model.rates:  # it has trained, at what the first of its pasted hooks has set
        told = model.trainer.optimizers, told[1]
    names = [type(it["scheduler"] if isinstance(it, dict) else it).__name__ for it in told[1]]
    config = {"loop": loop} | ({"schedules": names} if names else {})
    meta = Meta(optimizers=[described_optimizer(it) for it in told[0]], config=config)
    kept = [{"step": at, "path": str(path), "finite": True}]
    numbers = load("lr_too_high", {})
    facts = Facts(lr_last=now, checkpoints=kept)
    return Context(meta=meta, facts=facts, thresholds=numbers, rates=numbers)


def trained(model: Net, steps: int, kept: Path | None = None, start: Path | None = None) -> Any:
    """Return the rates of all steps of a fit, and leave a checkpoint of its end."""
    torch.manual_seed(0)
    run = trainer_of(steps)
    run.fit(model, BATCHES, ckpt_path=None if start is None else str(start))
    if kept is not None:
        run.save_checkpoint(kept)
    return model.rates


def hook(snippet: str) -> dict[str, Any]:
    """Return what a snippet defines, less its last line, the call that goes on."""
    names: dict[str, Any] = {}
    exec(snippet.rpartition("\n")[0], names)
    return {name: it for name, it in names.items() if name.startswith("on_")}


@pytest.mark.parametrize("schedules", SCHEDULES)
def test_every_rate_to_come_is_scaled_whatever_schedules_it_comes_from(
    schedules: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.ckpt"
    whole = trained(net(schedules), STEPS)
    trained(net(schedules), AT, path)
    known = context(net(schedules), whole[AT][0], path)
    snippet = resume_snippet(known, str(path), {"lr": 0.3 * whole[AT][0]})
    rates = trained(net(schedules, **hook(snippet)), STEPS, start=path)
    # the loss falls otherwise at other rates: these schedules do not look at by how much
    assert rates == [pytest.approx([0.3 * rate for rate in row]) for row in whole[AT:]]
    assert len(snippet.splitlines()) <= 22


@pytest.mark.parametrize("schedules", ["cosine", "none"])
def test_a_later_start_and_one_from_the_beginning_leave_the_rates_alone(
    schedules: str, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{i}.ckpt" for i in range(3)]
    whole = trained(net(schedules), STEPS)
    trained(net(schedules), AT, paths[0])
    known = context(net(schedules), whole[AT][0], paths[0])
    hooks = hook(resume_snippet(known, str(paths[0]), {"lr": 0.3 * whole[AT][0]}))
    assert trained(net(schedules, **hooks), 2) == whole[:2]
    for i, steps in enumerate((AT + 2, AT + 4)):
        rates = trained(net(schedules, **hooks), steps, paths[i + 1], paths[i])
        first = AT + 2 * i
        wanted = [[0.3 * rate for rate in row] for row in whole[first : first + 2]]
        assert rates == [pytest.approx(row) for row in wanted]


@pytest.mark.parametrize("schedules", SCHEDULES)
def test_a_second_rollback_lowers_the_rate_further_whatever_its_checkpoint_holds(
    schedules: str, tmp_path: Path
) -> None:
    before, behind = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    whole = trained(net(schedules), STEPS)
    trained(net(schedules), AT, before)
    known = context(net(schedules), whole[AT][0], before)
    hooks = hook(resume_snippet(known, str(before), {"lr": 0.3 * whole[AT][0]}))
    first = net(schedules, **hooks)
    rates = trained(first, AT + 2, behind, before)
    for path, at in ((before, AT), (behind, AT + 2)):
        known = context(first, 0.3 * whole[at][0], path, at=at)
        hooks = hook(resume_snippet(known, str(path), {"lr": 0.09 * whole[at][0]}))
        again = trained(net(schedules, **hooks), STEPS, start=path)
        assert again == [pytest.approx([0.09 * rate for rate in row]) for row in whole[at:]]
    assert rates == [pytest.approx([0.3 * rate for rate in row]) for row in whole[AT : AT + 2]]


def test_settings_beside_the_rate_are_set_under_a_schedule_too(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    whole = trained(net("cosine"), AT, path)
    known = context(net("cosine"), whole[-1][0], path)
    settings = {"lr": 0.3 * whole[-1][0], "betas": [0.8, 0.9]}
    model = net("cosine", **hook(resume_snippet(known, str(path), settings)))
    run = trainer_of(STEPS)
    run.fit(model, BATCHES, ckpt_path=str(path))
    assert [group["betas"] for group in run.optimizers[0].param_groups] == [(0.8, 0.9)] * 2
    assert model.rates[0][0] < 0.5 * whole[-1][0]


def test_the_schedules_of_other_optimizers_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    whole = trained(Two(), 2 * STEPS)
    trained(Two(), 2 * AT, path)
    known = context(Two(), whole[AT][0], path)
    hooks = hook(resume_snippet(known, str(path), {"lr": 0.3 * whole[AT][0]}))
    rates = trained(type("Mended", (Two,), hooks)(), 2 * STEPS, start=path)
    assert rates == [pytest.approx([0.3 * first, last]) for first, last in whole[AT:]]


def test_a_rate_that_was_raised_by_hand_goes_to_what_is_proposed_and_not_below(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.ckpt"
    trained(net("none"), AT, path)
    known = context(net("none"), 1.0, path)
    hooks = hook(resume_snippet(known, str(path), {"lr": 0.07}))
    rates = trained(net("none", **hooks), STEPS, start=path)
    assert rates == [pytest.approx([0.07, 0.007])] * (STEPS - AT)


def test_where_the_rate_as_made_is_proposed_a_rollback_says_what_to_leave_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.ckpt"
    snippet = resume_snippet(context(net("cosine"), 1.0, path), str(path), {"lr": 0.1})
    first, call = snippet.splitlines()
    assert first == "# and leave out what raised the rate to 1"
    assert call.startswith("trainer.fit(")


def test_behind_a_rollback_the_rate_as_made_is_set_too_for_the_checkpoint_may_hold_another(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.ckpt"
    whole = trained(net("cosine"), AT, path) + trained(net("cosine"), STEPS)[AT:]
    known = context(net("cosine"), 1.0, path)  # raised by hand, since
    known.meta.attempt, known.meta.optimizers[0]["base_lr"] = 2, 0.03
    hooks = hook(resume_snippet(known, str(path), {"lr": 0.03}))
    rates = trained(net("cosine", **hooks), STEPS, start=path)
    assert rates == [pytest.approx([0.3 * rate for rate in row]) for row in whole[AT:]]


def test_hugging_faces_trainer_goes_back_with_its_groups_and_its_schedule_scaled_once(
    tmp_path: Path,
) -> None:
    import transformers

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)

        def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
            return {"loss": self.last(self.first(x)).square().mean(), "logits": x}

    def trainer(steps: int, seen: list[list[float]]) -> Any:
        class Seeing(transformers.TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                seen.append([group["lr"] for group in more["optimizer"].param_groups])

        told = {"max_steps": STEPS, "save_steps": 2, "use_cpu": True, "report_to": []}
        arguments = transformers.TrainingArguments(
            str(tmp_path), learning_rate=0.1, disable_tqdm=True, **told
        )
        model, rows = Model(), [{"x": torch.ones(2), "labels": torch.zeros(1)}] * 200
        slower = {"params": model.last.parameters(), "lr": 0.01}
        made = torch.optim.SGD([{"params": model.first.parameters()}, slower], lr=0.1)
        both = (made, None)
        made = transformers.Trainer(model, arguments, train_dataset=rows, optimizers=both)
        made.add_callback(Seeing())
        if steps < STEPS:

            class Cut(transformers.TrainerCallback):
                def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                    control.should_training_stop = state.global_step >= steps

            made.add_callback(Cut())
        return made

    whole, again, later = [], [], []
    trainer(STEPS, whole).train()
    path = tmp_path / "checkpoint-6"
    known = context(net("cosine"), whole[8][0], path, loop="transformers")
    snippet = resume_snippet(known, str(path), {"lr": 0.3 * whole[8][0]})
    exec(snippet, {"trainer": trainer(8, again)})
    callback, _, _ = snippet.rpartition("\n")
    names: dict[str, Any] = {"trainer": trainer(STEPS, later)}
    exec(callback, names)
    names["trainer"].train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    wanted = [pytest.approx([0.3 * rate for rate in row]) for row in whole[6:]]
    assert again + later == wanted


def test_a_loop_of_ones_own_scales_groups_and_schedules_by_one_function(tmp_path: Path) -> None:
    model = net("cosine")
    known = context(model, 0.05, tmp_path / "a.pt", loop="own")
    (optimizer,), (told,) = model.configure_optimizers()
    names: dict[str, Any] = {"torch": torch, "optimizer": optimizer, "scheduler": told["scheduler"]}
    _, then = resume_snippet(known, str(tmp_path / "a.pt"), {"lr": 0.015}).split("\n", 1)
    exec(then, names)
    exec(then.rpartition("optimizer: ")[2], names)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.03, 0.003])
    assert names["scheduler"].base_lrs == pytest.approx([0.03, 0.003])
    assert names["scheduler"].eta_min == pytest.approx(0.0015)
