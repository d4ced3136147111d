"""Small fits that the tests of recorder and callback share."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from otoscope.callbacks.probes import Probe
from otoscope.store import Column, Store, connect
from torch import nn
from torch.nn import functional

PACKAGES = ("pytorch_lightning", "lightning.pytorch")
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def package(name: str) -> Any:
    return importlib.import_module(name)


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
    )


def data(rows: int = 96) -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(rows, 12, generator=generator)
    return torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def module(
    name: str, step: Callable[[Any, Any], torch.Tensor] | None = None, lr: float = 0.05
) -> Any:
    """Return a LightningModule of one of the packages; `step(self, batch)` replaces its loss."""
    base = package(name).LightningModule

    class Net(base):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = (
                step(self, batch)
                if step
                else functional.cross_entropy(self.net(batch[0]), batch[1])
            )
            self.log("train_loss", loss, batch_size=len(batch[0]))
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            loss = functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("val_loss", loss, batch_size=len(batch[0]))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr, momentum=0.9)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)
            return [optimizer], [schedule]

    return Net()


def seed(number: int = 3) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def fit(
    name: str,
    where: Path,
    callbacks: list[Any],
    *,
    net: Any = None,
    validate: bool = True,
    ckpt_path: str | None = None,
    loader: Any = None,
    **options: Any,
) -> tuple[Any, Any]:
    """Train for two epochs of six batches, and return (trainer, module)."""
    seed()
    net = module(name) if net is None else net
    loader = torch.utils.data.DataLoader(data(), 16, shuffle=True) if loader is None else loader
    settings = {"max_epochs": 2, "enable_checkpointing": False, "default_root_dir": where}
    trainer = package(name).Trainer(callbacks=callbacks, **{**QUIET, **settings, **options})
    held_out = torch.utils.data.DataLoader(data(32), 16) if validate else None
    trainer.fit(net, loader, held_out, ckpt_path=ckpt_path)
    return trainer, net


def recorded(where: Path, run: str) -> Store:
    return connect(where / run)


def random_states() -> list[Any]:
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # type: ignore[index]


class Failing(Probe):
    """Raises in the hook that it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__(every=1)
        self.family = "failing"
        self.where = where

    def _maybe(self, hook: str) -> None:
        if hook == self.where:
            raise RuntimeError(f"planted in {hook}")

    def attach(self, training: Any) -> list[Column]:
        self._maybe("attach")
        return [Column.of("one")]

    def arm(self, step: int) -> None:
        self._maybe("arm")

    def sample(self, step: int) -> list[float]:
        self._maybe("sample")
        return [1.0]

    def hungry(self) -> bool:
        self._maybe("hungry")
        return False

    def disarm(self) -> None:
        self._maybe("disarm")

    def detach(self) -> None:
        self._maybe("detach")
