"""What is to be pasted is code that runs, for the kind of loop that the run has."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from otoscope.diagnostics.facts import Facts
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.snippets import (
    activation_snippet,
    batch_snippet,
    clip_snippet,
    optimizer_snippet,
    optimizer_with,
    precision_snippet,
    resume_snippet,
    stop_snippet,
    warm_up_snippet,
)
from otoscope.diagnostics.thresholds import load
from otoscope.store import Meta

OPTIMIZERS = [
    {"name": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"name": "AdamW", "lr": 1e-3, "betas": [0.9, 0.95], "weight_decay": 0.1},
]


def context(loop: str, optimizer: dict) -> Context:
    numbers = load("lr_too_high", {})
    meta = Meta(optimizers=[optimizer], config={"loop": loop})
    return Context(meta=meta, facts=Facts(), thresholds=numbers, start=0, states={}, rates=numbers)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loop", ["own", "lightning"])
def test_the_optimizer_is_made_with_the_new_rate_and_what_it_had(
    loop: str, optimizer: dict
) -> None:
    model = torch.nn.Linear(2, 2)
    names: dict = {"torch": torch, "model": model}
    exec(optimizer_snippet(context(loop, optimizer), 0.025), names)
    made = names["optimizer"] if loop == "own" else names["configure_optimizers"](model)
    group = made.param_groups[0]
    assert type(made).__name__ == optimizer["name"]
    for key, value in {**optimizer, "lr": 0.025}.items():
        if key != "name":
            assert group[key] == (tuple(value) if isinstance(value, list) else value)


def test_a_loop_of_ones_own_clips_and_resumes_without_a_trainer() -> None:
    own, lightning = (context(loop, OPTIMIZERS[0]) for loop in ("own", "lightning"))
    assert "clip_grad_norm_(model.parameters(), 0.83)" in clip_snippet(own, 0.83)
    assert clip_snippet(lightning, 0.83) == "trainer = Trainer(gradient_clip_val=0.83)"
    assert 'torch.load("a.ckpt")' in resume_snippet(own, "a.ckpt")
    assert resume_snippet(lightning, "a.ckpt") == 'trainer.fit(model, ckpt_path="a.ckpt")'
    for text in (clip_snippet(own, 0.83), resume_snippet(own, "a.ckpt")):
        ast.parse(text)


class Net(lightning.LightningModule):
    """A line, trained by Adam at 0.1."""

    def __init__(self, manual: bool = False) -> None:
        super().__init__()
        self.line, self.automatic_optimization = torch.nn.Linear(2, 1), not manual

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor | None:
        return self.line(batch).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def trainer_of(steps: int, *callbacks: Any) -> lightning.Trainer:
    """Return a Trainer of so many steps."""
    return lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


BATCHES = torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"lr": 0.03}, {"betas": [0.9, 0.95]}, {}])
def test_a_run_that_goes_back_goes_on_with_the_settings_proposed_and_not_the_checkpoints(
    settings: dict, tmp_path: Path
) -> None:
    path = tmp_path / "a.ckpt"
    first = trainer_of(4)
    first.fit(Net(), BATCHES)
    first.save_checkpoint(path)
    snippet = resume_snippet(context("lightning", OPTIMIZERS[1]), str(path), settings)
    hook, _, call = snippet.rpartition("trainer.fit")
    names: dict = {}
    exec(hook, names)
    hooks = {name: it for name, it in names.items() if name.startswith("on_")}
    trainer, model = trainer_of(6), type("Mended", (Net,), hooks)()
    exec(f"def fit(model, data): trainer.fit{call.replace('model', 'model, data')}", names)
    names["trainer"] = trainer
    names["fit"](model, BATCHES)
    group = trainer.optimizers[0].param_groups[0]
    assert trainer.global_step == 6
    for name, value in {"lr": 0.1, "betas": (0.9, 0.999), **settings}.items():
        assert group[name] == (tuple(value) if isinstance(value, list) else value)


def test_a_run_that_learns_by_heart_is_stopped_and_keeps_its_best_weights() -> None:
    names: dict = {}
    exec("from lightning.pytorch import Trainer", names)
    exec(stop_snippet(context("lightning", OPTIMIZERS[0]), "val_loss"), names)
    watching = {type(it).__name__: getattr(it, "monitor", "") for it in names["trainer"].callbacks}
    assert watching["EarlyStopping"] == watching["ModelCheckpoint"] == "val_loss"
    told: list[Any] = []
    trainer = SimpleNamespace(add_callback=told.append)
    exec("from transformers import TrainingArguments", names)
    snippet = stop_snippet(context("transformers", OPTIMIZERS[0]), "eval_loss")
    exec(snippet, {**names, "trainer": trainer})
    assert type(told[0]).__name__ == "EarlyStoppingCallback"


def test_a_loop_that_goes_back_sets_the_rate_behind_the_checkpoints_own(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.save(optimizer.state_dict(), tmp_path / "a.pt")
    names: dict = {"torch": torch, "optimizer": optimizer}
    snippet = resume_snippet(context("own", OPTIMIZERS[0]), str(tmp_path / "a.pt"), {"lr": 0.03})
    load, then = snippet.split("\n", 1)
    exec(load, names)
    optimizer.load_state_dict(names["checkpoint"])
    exec(then, names)
    assert optimizer.param_groups[0]["lr"] == 0.03


def test_hugging_faces_trainer_that_goes_back_sets_the_rate_behind_the_checkpoints_own() -> None:
    snippet = resume_snippet(context("transformers", OPTIMIZERS[0]), "out/3", {"lr": 0.03})
    told: list[Any] = []
    trainer = SimpleNamespace(add_callback=told.append, train=lambda **more: told.append(more))
    exec(snippet, {"trainer": trainer})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    state, more = SimpleNamespace(global_step=3), {"lr_scheduler": schedule, "model": None}
    told[0].on_train_begin(None, state, None, optimizer=optimizer, **more)
    assert optimizer.param_groups[0]["lr"] == 0.03
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.03
    assert told[1] == {"resume_from_checkpoint": "out/3"}


def test_a_module_that_steps_its_own_optimizers_clips_and_warms_up_itself() -> None:
    told = context("lightning", OPTIMIZERS[0])
    told.meta.config["optimization"] = "manual"
    clip = compile(clip_snippet(told, 1e-3), "clip", "exec")
    *setting, each_step = warm_up_snippet(told, 4, 0.4).split("\n")
    names: dict = {"torch": torch}
    exec("\n".join(setting), names)
    norms = []

    class Manual(Net):
        def training_step(self, batch: torch.Tensor, index: int) -> None:
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.line(batch).square().mean())
            exec(clip, {"torch": torch, "self": self, "optimizer": optimizer})
            norms.append(math.hypot(*(float(p.grad.norm()) for p in self.parameters())))  # type: ignore[union-attr]
            optimizer.step()
            exec(each_step, {"self": self})

        configure_optimizers = names["configure_optimizers"]

    trainer, model = trainer_of(4), Manual(manual=True)
    trainer.fit(model, BATCHES)
    assert norms == pytest.approx([1e-3] * 4, rel=1e-2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.4)


@pytest.mark.parametrize("loop", ["own", "lightning", "transformers"])
def test_another_decay_of_the_weights_is_set_and_not_merely_said(loop: str) -> None:
    from transformers import TrainingArguments

    model = torch.nn.Linear(2, 2)
    names: dict = {"torch": torch, "model": model, "TrainingArguments": TrainingArguments}
    exec(optimizer_with(context(loop, OPTIMIZERS[0]), 0.1, weight_decay=0.03), names)
    if loop == "transformers":
        assert names["arguments"].weight_decay == 0.03
        return
    made = names["optimizer"] if loop == "own" else names["configure_optimizers"](model)
    assert made.defaults["weight_decay"] == 0.03


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_hugging_faces_trainer_knows_the_optimizer_that_it_is_given(name: str) -> None:
    from transformers import TrainingArguments

    names: dict = {"TrainingArguments": TrainingArguments}
    exec(optimizer_with(context("transformers", OPTIMIZERS[0]), 0.1, name=name), names)
    assert names["arguments"].optim == "adamw_torch"


def test_what_hugging_faces_trainer_takes_is_arguments_of_its_own() -> None:
    from transformers import TrainingArguments

    run = context("transformers", OPTIMIZERS[0])
    names: dict = {"TrainingArguments": TrainingArguments}
    exec(optimizer_snippet(run, 0.025), names)
    assert names["arguments"].learning_rate == 0.025
    exec(clip_snippet(run, 0.5), names)
    assert names["arguments"].max_grad_norm == 0.5
    (call,) = ast.parse(resume_snippet(run, "out/checkpoint-3")).body
    assert ast.unparse(call) == "trainer.train(resume_from_checkpoint='out/checkpoint-3')"


def test_an_activation_goes_where_a_name_with_quotes_says() -> None:
    model = torch.nn.ModuleDict({"it\"s 'x'": torch.nn.ReLU()})
    (name,) = model
    exec(activation_snippet(name, "GELU()", "gelu(x)"), {"torch": torch, "model": model})
    assert isinstance(model[name], torch.nn.GELU)


@pytest.mark.parametrize("layer", ["1", "relu()", "relu()#2"])
def test_another_activation_runs_where_it_is_put(layer: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    names: dict = {"torch": torch, "model": model, "x": torch.tensor([-1.0, 2.0])}
    exec(activation_snippet(layer, "LeakyReLU(0.01)", "leaky_relu(x, 0.01)"), names)
    found = model[1](names["x"]) if layer == "1" else names["x"]
    torch.testing.assert_close(found, torch.tensor([-0.01, 2.0]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loop", ["own", "lightning"])
def test_a_warm_up_rises_to_the_whole_rate_and_stays_there(loop: str, optimizer: dict) -> None:
    model = torch.nn.Linear(2, 2)
    made = torch.optim.SGD(model.parameters(), lr=0.4)
    names: dict = {"torch": torch, "model": model, "optimizer": made}
    setting, _, each_step = warm_up_snippet(context(loop, optimizer), 4, 0.4).partition("\n# after")
    exec(setting, names)
    if loop == "own":
        assert each_step.endswith("scheduler.step()")
        scheduler = names["scheduler"]
    else:
        told = names["configure_optimizers"](model)
        assert told["lr_scheduler"]["interval"] == "step"
        scheduler = told["lr_scheduler"]["scheduler"]
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(6):
        scheduler.optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    top = rates[-1]
    assert rates[:4] == pytest.approx([top / 4, top / 2, 3 * top / 4, top])
    assert top == pytest.approx(0.4)


def test_betas_and_another_optimizer_are_written_as_torch_takes_them() -> None:
    adam, sgd = OPTIMIZERS[1], OPTIMIZERS[0]
    names: dict = {"torch": torch, "model": torch.nn.Linear(2, 2)}
    exec(optimizer_with(context("own", adam), 0.01, betas=[0.9, 0.95]), names)
    assert names["optimizer"].defaults["betas"] == (0.9, 0.95)
    exec(optimizer_with(context("own", sgd), 0.002, name="AdamW"), names)
    assert isinstance(names["optimizer"], torch.optim.AdamW)
    assert names["optimizer"].defaults["weight_decay"] == 0.01


@pytest.mark.parametrize("loop", ["own", "lightning", "transformers"])
def test_batch_precision_and_warm_up_are_said_in_the_words_of_each_loop(loop: str) -> None:
    told = context(loop, OPTIMIZERS[1])
    snippets = [batch_snippet(told, 8, 4, 128), warm_up_snippet(told, 100, 0.01)]
    snippets += [precision_snippet(told, "bf16-mixed")]
    for snippet in snippets:
        ast.parse(snippet if not snippet.startswith("with ") else snippet + "\n    pass")
    word = {"own": "DataLoader", "lightning": "Trainer(", "transformers": "TrainingArguments("}
    assert word[loop] in snippets[0]
