"""What is to be pasted is code that runs, for the kind of loop that the run has."""

from __future__ import annotations

import ast

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
