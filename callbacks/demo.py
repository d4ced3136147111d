"""One training of the demo: `python -m otoscope.callbacks.demo --role faulty --fault lr_too_high`.

Prints a JSON line every few steps, and the result as the last line: {"done": true, "run",
"val_loss", …}. Where Otoscope writes to stands in $OTOSCOPE_URL, as in any other training.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from ..store import ConfigError, OtoscopeError
from ..store.schemas import plain
from .applying import apply
from .digits import CLASSES, FAULTS, Batches, DigitsNet, Fault, Settings, load_digits
from .lightning import Otoscope
from .probes import (
    Activations,
    Curvature,
    Gradients,
    Head,
    Initialization,
    Inputs,
    Landscape,
    Noise,
    Probe,
    Symmetry,
    System,
)

ROLES = ("healthy", "faulty", "advised")
STEPS = 600
LINE_EVERY = 10


def probes() -> list[Probe]:
    """Return the probes, at a cadence of their own: so short a run earns few samples by budget.

    The same steps are sampled whatever else the machine does, so the same seed is judged the same.
    """
    return [
        Gradients(every=1),
        Activations(every=2),
        Curvature(first=1, every=100, samples=32),
        Noise(every=10),
        Landscape(every=50),
        Initialization(),
        Inputs(every=20),
        Head(every=20),
        Symmetry(),
        System(),
    ]


class DigitsModule(pl.LightningModule):
    """The net with its loss and optimizer, as a user would write it."""

    def __init__(self, settings: Settings, fault: Fault):
        super().__init__()
        self.settings = settings
        self.net = DigitsNet(fault, settings)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        loss = cross_entropy(self.net(images), labels)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self.net(images)
        self.log("val_loss", cross_entropy(logits, labels))
        self.log("val_accuracy", (logits.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> Any:
        settings, weights = self.settings, self.parameters()
        shared: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
        optimizer: torch.optim.Optimizer
        match settings.optimizer.lower():
            case "sgd":
                optimizer = torch.optim.SGD(weights, momentum=settings.momentum, **shared)
            case "adam":
                optimizer = torch.optim.Adam(weights, betas=settings.betas, **shared)
            case "adamw":
                optimizer = torch.optim.AdamW(weights, betas=settings.betas, **shared)
            case other:
                raise ConfigError(f"optimizer must be SGD, Adam or AdamW, got {other!r}")
        if not settings.warmup_steps:
            return optimizer
        warmup = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / settings.warmup_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warmup, "interval": "step"}}


class Lines(pl.Callback):
    """Prints how far the training is, as JSON lines."""

    def __init__(self, otoscope: Otoscope, steps: int):
        self.otoscope, self.steps = otoscope, steps

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % LINE_EVERY == 0:
            loss = float(trainer.callback_metrics.get("loss", float("nan")))
            line = {"run": self.otoscope.run_id, "step": trainer.global_step, "steps": self.steps}
            say({**line, "loss": loss})


def say(body: dict[str, Any]) -> None:
    """Print one JSON line at once."""
    print(json.dumps(plain(body)), flush=True)


def train(
    settings: Settings,
    fault: Fault,
    seed: int,
    *,
    steps: int = STEPS,
    otoscope: Otoscope | None = None,
    lines: bool = False,
) -> dict[str, Any]:
    """Train once and return {"run", "steps", "seconds", "val_loss", "val_accuracy", "classes"}.

    The same arguments give the same losses, bit for bit, on one machine.
    """
    began = time.perf_counter()
    torch.set_num_threads(1)
    pl.seed_everything(seed, verbose=False)
    digits = load_digits()
    module = DigitsModule(settings, fault)
    if settings.rollback is not None:
        steps = max(1, steps - settings.rollback["step"])
        state = torch.load(settings.rollback["path"], weights_only=True)["state_dict"]
        module.load_state_dict(state)
    callbacks: list[Any] = [] if otoscope is None else [otoscope]
    if otoscope is not None and lines:
        callbacks.append(Lines(otoscope, steps))
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        check_val_every_n_epoch=5,
        num_sanity_val_steps=0,
        gradient_clip_val=settings.gradient_clip_val,
        accumulate_grad_batches=settings.accumulate_grad_batches,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    held_out = DataLoader(
        TensorDataset(digits.held_out_images, digits.held_out_labels), batch_size=1024
    )
    batches = Batches(digits, settings.batch_size, seed, fault)
    trainer.fit(module, batches, held_out)
    trainer.validate(module, held_out, verbose=False)
    metrics = trainer.callback_metrics
    return {
        "run": None if otoscope is None else otoscope.run_id,
        "steps": trainer.global_step,
        "seconds": round(time.perf_counter() - began, 3),
        "val_loss": float(metrics["val_loss"]),
        "val_accuracy": float(metrics["val_accuracy"]),
        "classes": CLASSES,
    }


def prepared(role: str, fault_name: str, advice: dict[str, Any] | None) -> tuple[Settings, Fault]:
    """Return the settings and the fault of a role; advice goes on top of the faulty settings."""
    fault = FAULTS[fault_name]
    if role == "healthy":
        return fault.healthy, fault.twin
    if role == "faulty":
        return fault.settings, fault
    if advice is None:
        raise ConfigError("the role advised needs --advice: a recommendation as JSON, or @FILE")
    return apply(fault.settings, advice, prefix="net."), fault


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says; 2 for a value that cannot be used."""
    options = _parser().parse_args(arguments)
    with _quiet():
        try:
            advice = None if options.advice is None else _advice(options.advice)
            settings, fault = prepared(options.role, options.fault, advice)
            otoscope = Otoscope(
                options.run_name or f"digits {options.role}",
                budget=options.budget,
                probes=probes(),
                tags=["demo", options.role, options.fault],
                verdict=options.progress != "json",
            )
            lines = options.progress == "json"
            result = train(
                settings, fault, options.seed, steps=options.steps, otoscope=otoscope, lines=lines
            )
        except OtoscopeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    told = {"role": options.role, "fault": options.fault, "seed": options.seed}
    result = {"done": True, **told, **result, "settings": asdict(settings), "applied": advice}
    say(result)
    if options.result is not None:
        Path(options.result).write_text(json.dumps(plain(result), indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m otoscope.callbacks.demo",
        description="One training of the demo: a small convnet on handwritten digits.",
        epilog="example: python -m otoscope.callbacks.demo --role faulty --fault dead_units --seed 1",
    )
    parser.add_argument("--role", choices=ROLES, default="healthy")
    parser.add_argument("--fault", choices=tuple(FAULTS), default="lr_too_high")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    # its probes have a cadence of their own, which costs up to two fifths of so short a training
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument(
        "--advice", "--apply", metavar="JSON", help="a recommendation, or @FILE with one"
    )
    parser.add_argument("--run-name", help="the run's name on the page")
    parser.add_argument("--result", metavar="FILE", help="write the result there, too")
    parser.add_argument("--progress", choices=("json", "none"), default="json")
    return parser


def _advice(text: str) -> dict[str, Any]:
    try:
        body = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--advice is no recommendation as JSON: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError(f"--advice must be a JSON object, got {type(body).__name__}")
    return body


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice on loggers and worker processes is of no use to a demo."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pytorch_lightning.*")
        yield


if __name__ == "__main__":
    sys.exit(main())
