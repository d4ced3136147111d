"""Otoscope in a distributed run: the callback as ever, here on two processes of this machine.

python examples/ddp.py
python examples/ddp.py --slow 0.02     # rank 1 sleeps in each step; the page names it

Every rank records its own pace and memory, rank 0 what all ranks hold alike. They agree on the run
without a collective; `torchrun`, SLURM and `strategy="ddp_spawn"` work the same way.
"""

from __future__ import annotations

import argparse
import time

import pytorch_lightning as pl
import torch
from otoscope.callbacks import Otoscope
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(pl.LightningModule):
    """A small net for 8 × 8 images of handwritten digits."""

    def __init__(self, slow: float) -> None:
        super().__init__()
        self.slow = slow
        self.net = nn.Sequential(
            nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
        )

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        if self.slow and self.global_rank == 1:
            time.sleep(self.slow)
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main(steps: int, slow: float, seed: int) -> None:
    """Train, and let rank 0 print the run's id."""
    pl.seed_everything(seed, verbose=False)
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).flatten(1) / 16  # type: ignore[attr-defined]
    labels = torch.tensor(data.target)  # type: ignore[attr-defined]
    otoscope = Otoscope("digits on two ranks")
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_steps=steps,
        callbacks=[otoscope],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(slow), DataLoader(TensorDataset(images, labels), 32, shuffle=True))
    if trainer.is_global_zero:
        print("run", otoscope.run_id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on handwritten digits, on two ranks.")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--slow", type=float, default=0.0, help="seconds that rank 1 sleeps a step")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.steps, arguments.slow, arguments.seed)
