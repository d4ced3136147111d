"""What findings give to be pasted is pasted into a script of Lightning, unedited, which then trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from otoscope.store import Event, Recommendation
from torch.utils.data import DataLoader, TensorDataset

from . import told
from .machines import finding
from .made import ADAM, falling, flat, train
from .made import Made as Written
from .test_rules_classes import SCALE, inputs
from .test_rules_data import FALLING, TURNING, validated
from .test_rules_drawn import unguessed
from .test_rules_machines import waiting
from .test_rules_seen_once import DARK, FIRST, SHARES, head, silent
from .test_rules_steps_made import gains, layer_steps, noisy, scaler
from .test_snippets_of_rules import GROWING, HELD, STILL

STEPS = 3
QUIET: dict[str, Any] = {
    "max_steps": STEPS,
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Unit(torch.nn.Linear):
    """A layer with its activation in it."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.relu = torch.nn.ReLU()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.relu(super().forward(input))


class Net(lightning.LightningModule):
    """A module as a user writes it, of the layers that findings of made numbers name."""

    def __init__(self) -> None:
        super().__init__()
        parts = [("a", Unit()), ("1", torch.nn.BatchNorm1d(8)), ("b", Unit()), ("c", Unit())]
        for name, part in (*parts, ("d", torch.nn.Linear(8, 3))):
            self.add_module(name, part)
        self.loss = torch.nn.CrossEntropyLoss()
        self.seen: list[float] = []
        self.rates: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in list(self.children())[:5]:
            x = part(x)
        return x

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.seen.append(float(batch[0].mean()))
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return self.loss(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", self.loss(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def pasted(advice: Recommendation) -> tuple[Net, lightning.Trainer, dict[str, Any]]:
    """Paste a snippet into a script: its functions into the module, all else below it; then train."""
    torch.manual_seed(0)
    dataset = TensorDataset(90 + 40 * torch.randn(48, 8), torch.arange(48) % 3)
    model = Net()
    names: dict[str, Any] = {
        "torch": torch,
        "DataLoader": DataLoader,
        "Trainer": lambda **given: lightning.Trainer(**{**QUIET, **given}),
        "dataset": dataset,
        "model": model,
        "self": model,
    }
    known = set(names)
    exec(advice.snippet, names)
    made = {name: it for name, it in names.items() if name not in known}
    hooks = {name: it for name, it in made.items() if type(it).__name__ == "function"}
    names["dataset"] = dataset
    model.__class__ = type("Mended", (Net,), hooks)
    trainer = made.get("trainer") or names["Trainer"](enable_checkpointing=False)
    loader = None if "train_dataloader" in hooks else made.get("loader", DataLoader(dataset, 16))
    trainer.fit(model, loader, DataLoader(dataset, 16))
    assert trainer.global_step == STEPS
    return model, trainer, made


def advice_of(made: Written | told.Made | dict[str, Any]) -> Recommendation:
    """Return what the one finding of made numbers recommends."""
    if isinstance(made, told.Made):
        return made.advice
    if isinstance(made, dict):
        return Recommendation(**made["recommendation"])
    (found,) = made.judge()
    assert found.recommendation is not None
    return found.recommendation


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Trainer that is pasted keeps its checkpoints in the folder that it is started in."""
    monkeypatch.chdir(tmp_path)


def group(trainer: lightning.Trainer) -> dict[str, Any]:
    return trainer.optimizers[0].param_groups[0]


def deviation(model: Net, layer: str) -> float:
    return float(model.get_parameter(f"{layer}.weight").std())


Check = Callable[[Recommendation, Net, lightning.Trainer, dict[str, Any]], bool]


def leap() -> Written:
    losses = falling(200)
    losses[5:20] = 6.0
    made = Written("missing_warmup", optimizers=[ADAM], max_steps=80)
    made.add("train", train(losses))
    made.add("gradients", {}, [1, 10], layer_steps(0.07, 2))
    return made


def bursts() -> Written:
    losses, norms = falling(400, noise=0.0), np.ones(400)
    for at in range(200, 400, 25):
        losses[at : at + 16], norms[at : at + 2] = 4.0, 40.0
    made = Written("exploding_gradients")
    made.add("train", train(losses, grad_sq=norms**2))
    return made


def wide() -> told.Made:
    scale = {**SCALE, "mean": 90.0, "std": 40.0, "max": 255.0}
    return told.Made("input_problem", inputs(dict.fromkeys((1, 2, 3, 4), scale)))


def stuck() -> Written:
    return noisy("batch_too_large", falling(700), 1.0, 10.0, 1024)


def drawn_wide() -> told.Made:
    start = unguessed()
    return told.Made(
        "bad_initialization",
        start["families"],
        loss=lambda s: 90.0 if s < 10 else 10.0,
        parameters=start["parameters"],
    )


def unlike() -> told.Made:
    modes: dict[str, Mapping[int, float]] = {
        "train_loss": dict.fromkeys((300, 400, 500), 1.0),
        "eval_loss": dict.fromkeys((300, 400, 500), 2.5),
    }
    norm = [{"name": "1.weight", "layer": "1", "kind": "norm", "ndim": 1, "numel": 8}]
    return told.Made("wrong_head", {"modes": modes}, steps=550, parameters=norm)


def dark() -> told.Made:
    return told.Made("dead_units", silent(DARK, {"a": 0.0, "b": -4.0}, 1.0))


def uneven() -> told.Made:
    run = head((3, 4), **FIRST, **SHARES)
    return told.Made("wrong_head", run, steps=400, loss=lambda s: 0.27 + 0.8 * 0.9**s)


def turning() -> told.Made:
    saved = Event("checkpoint", attempt=1, step=80, body={"path": None, "finite": True})
    return told.Made("overfitting", validated(TURNING), events=[saved], **FALLING)


def growing() -> told.Made:
    return told.Made("activation_drift", {"activations": GROWING}, steps=600)


def left_out() -> told.Made:
    return told.Made("frozen_layer", {"gradients": STILL}, parameters=HELD)


CASES: dict[str, tuple[Callable[[], Any], str, Check]] = {
    "precision": (
        lambda: scaler(np.full(300, 8.0)),
        "precision",
        lambda advice, model, trainer, made: trainer.precision == advice.proposed,
    ),
    "clip": (
        bursts,
        "gradient_clip_val",
        lambda advice, model, trainer, made: trainer.gradient_clip_val == advice.proposed,
    ),
    "batch": (
        stuck,
        "batch_size",
        lambda advice, model, trainer, made: made["loader"].batch_size == advice.proposed,
    ),
    "schedule": (
        leap,
        "warmup_steps",
        lambda advice, model, trainer, made: (
            model.rates == pytest.approx([0.1 * (i + 1) / advice.proposed for i in range(STEPS)])
        ),
    ),
    "input scaling": (
        wide,
        "input_normalization",
        lambda advice, model, trainer, made: max(map(abs, model.seen)) < 1,
    ),
    "workers": (
        lambda: finding(waiting(0.5, workers=0, cores=1), "input_bound"),
        "num_workers",
        lambda advice, model, trainer, made: (
            getattr(trainer.train_dataloader, "num_workers", 0) == 1
        ),
    ),
    "initialization": (
        drawn_wide,
        "weight_init",
        lambda advice, model, trainer, made: all(
            deviation(model, layer) == pytest.approx(told["std"], rel=0.4)
            for layer, told in advice.proposed.items()
        ),
    ),
    "norm": (
        unlike,
        "norm",
        lambda advice, model, trainer, made: (
            type(model.get_submodule("1")).__name__ == advice.proposed["1"]
        ),
    ),
    "activation": (
        dark,
        "activation",
        lambda advice, model, trainer, made: isinstance(model.b.relu, torch.nn.LeakyReLU),
    ),
    "class weights": (
        uneven,
        "class_weights",
        lambda advice, model, trainer, made: (
            getattr(model.loss.weight, "tolist", list)() == pytest.approx(advice.proposed)
        ),
    ),
    "stop": (
        turning,
        "stop",
        lambda advice, model, trainer, made: trainer.early_stopping_callback is not None,
    ),
    "optimizer": (
        lambda: gains([50.0] * 5, np.linspace(1.02, 1.0, 420)),
        "optimizer",
        lambda advice, model, trainer, made: (
            type(trainer.optimizers[0]).__name__ == advice.proposed["name"]
            and group(trainer)["lr"] == advice.proposed["lr"]
        ),
    ),
    "weight decay": (
        growing,
        "weight_decay",
        lambda advice, model, trainer, made: group(trainer)["weight_decay"] == advice.proposed,
    ),
    "parameters": (
        left_out,
        "params",
        lambda advice, model, trainer, made: (
            len(group(trainer)["params"]) == len(list(model.parameters()))
        ),
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_what_a_finding_gives_to_be_pasted_trains_as_it_says(kind: str) -> None:
    make, parameter, holds = CASES[kind]
    advice = advice_of(make())
    assert advice.parameter == parameter
    assert holds(advice, *pasted(advice)), advice.snippet


def test_smaller_and_shuffled_batches_are_made_by_what_is_pasted() -> None:
    """The flat loss of a batch under the noise: the batch comes with a rate, in one snippet."""
    advice = advice_of(noisy("batch_too_small", flat(450), 0.001, 10.0, 8))
    beside = [Recommendation(**told) for told in advice.alternatives if "snippet" in told]
    larger = next(item for item in (advice, *beside) if item.parameter == "batch_size")
    _, trainer, made = pasted(larger)
    assert made["loader"].batch_size == larger.proposed
    assert group(trainer)["lr"] == pytest.approx(larger.also[0]["proposed"])
