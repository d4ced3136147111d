"""Otoscope in a Lightning Trainer: one callback.

python examples/lightning_digits.py
python examples/lightning_digits.py --lr 5     # too high; see what Otoscope says
"""

from __future__ import annotations

import argparse

import pytorch_lightning as pl
import torch
from otoscope.callbacks import Otoscope
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Digits(pl.LightningModule):
    """A small convnet for 8 × 8 images of handwritten digits."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 16, 10),
        )

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        images, labels = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(images), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def loaders() -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    """Return loaders over the digits: training and validation."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16  # type: ignore[attr-defined]
    labels = torch.tensor(data.target)  # type: ignore[attr-defined]
    train, validation = random_split(TensorDataset(images, labels), [0.8, 0.2])
    return DataLoader(train, batch_size=64, shuffle=True), DataLoader(validation, batch_size=256)


def main(steps: int, lr: float, seed: int) -> str:
    """Train and return the run's id."""
    pl.seed_everything(seed, verbose=False)
    train, validation = loaders()
    otoscope = Otoscope(run="lightning digits")
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        callbacks=[otoscope],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(lr), train, validation)
    assert otoscope.run_id is not None
    return otoscope.run_id


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on handwritten digits.")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("run", main(arguments.steps, arguments.lr, arguments.seed))
