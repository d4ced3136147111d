"""Training by a Lightning Trainer, whose loader is slow: a plain loop does not tell of its loader."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from otoscope.callbacks import Otoscope
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from .._data import Batch
from .._trainer import QUIET
from .training import Loop


class _Slow(IterableDataset):
    """The batches of a loop, each so many seconds late."""

    def __init__(self, loop: Loop, seconds: float) -> None:
        self.loop, self.seconds = loop, seconds

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loop.stream:
            time.sleep(self.seconds)
            yield batch


class _Module(pl.LightningModule):
    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.loop, self.net = loop, loop.net
        self.losses: list[float] = []

    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss = self.loop.on(self.net, batch)
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.loop.optimizer


def train_in_lightning(
    body: Mapping[str, Any], seed: int, folder: Path, name: str, **how: Any
) -> dict[str, Any]:
    """Train a body whose `machine` says how slow the loader is; returns what `train` returns."""
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    loop = Loop(body, seed)
    first, module = loop.scored(), _Module(loop)
    otoscope = Otoscope(name, spool=folder, task=body["task"], verdict=False, strict=True, **how)
    begun = time.perf_counter()
    trainer = pl.Trainer(
        max_steps=loop.last,
        **QUIET,
        callbacks=[otoscope],
        gradient_clip_val=loop.clip,
    )
    loader = DataLoader(_Slow(loop, float(body["machine"]["loader_seconds"])), batch_size=None)
    trainer.fit(module, loader)
    last = loop.scored()
    return {
        "run": str(otoscope.run_id),
        "first": first["val_loss"],
        "last": last["val_loss"],
        "accuracy": last.get("val_accuracy"),
        "losses": module.losses[::10],
        "seconds": time.perf_counter() - begun,
    }
