"""Otoscope in a plain PyTorch loop: attach, step, validate, finish.

python examples/plain_loop.py
python examples/plain_loop.py --lr 5     # too high; see what Otoscope says
"""

from __future__ import annotations

import argparse

import torch
from otoscope.callbacks import attach
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

Batch = list[Tensor]


def digits(seed: int) -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    """Return loaders over 8 × 8 images of handwritten digits: training and validation."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).flatten(1) / 16  # type: ignore[attr-defined]
    labels = torch.tensor(data.target)  # type: ignore[attr-defined]
    shuffle = torch.Generator().manual_seed(seed)
    train, validation = random_split(TensorDataset(images, labels), [0.8, 0.2], shuffle)
    return (
        DataLoader(train, batch_size=64, shuffle=True, generator=shuffle),
        DataLoader(validation, batch_size=256),
    )


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of one batch; Otoscope uses it to measure the curvature."""
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


@torch.no_grad()
def validation_loss(model: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> float:
    """Return the mean loss over the loader."""
    model.eval()
    total = sum(float(loss_fn(model, list(batch))) * len(batch[0]) for batch in loader)
    model.train()
    return total / len(loader.dataset)  # type: ignore[arg-type]


def main(steps: int, lr: float, seed: int) -> str:
    """Train a small net and return the run's id."""
    torch.manual_seed(seed)
    train, validation = digits(seed)
    model = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)

    recorder = attach(model, optimizer, loss_fn=loss_fn, run="plain loop")
    step = 0
    while step < steps:
        for batch in train:
            loss = loss_fn(model, list(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss, len(batch[0]), batch=list(batch))
            step += 1
            if step == steps:
                break
        recorder.validate({"loss": validation_loss(model, validation)})
    recorder.finish()
    return recorder.run_id


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on handwritten digits.")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("run", main(arguments.steps, arguments.lr, arguments.seed))
