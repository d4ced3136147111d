"""A probe of one's own: outlier features, recorded beside what Otoscope measures by itself.

python examples/own_probe.py
python examples/own_probe.py --outlier            # one unit speaks forty times louder
otoscope diagnose .otoscope/<run> --rules examples/rules/outlier_features.py
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from otoscope.callbacks import Probe, Training, attach
from otoscope.store import Column
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Outliers(Probe):
    """Largest output of each linear layer over their root mean square (Dettmers et al. 2022)."""

    def __init__(self, every: int | None = None) -> None:
        super().__init__(every=every)
        self.family = "outliers"

    def attach(self, training: Training) -> list[Column]:
        modules = training.model.named_modules()
        self.layers = {path: module for path, module in modules if isinstance(module, nn.Linear)}
        return [Column.of("outlier_ratio", layer=path) for path in self.layers]

    def arm(self, step: int) -> None:
        self.ratios: dict[nn.Module, Tensor] = {}
        for module in self.layers.values():
            self.watch(module, self.look)

    def look(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        x = output.float()
        self.ratios[module] = x.abs().amax() / x.square().mean().sqrt()

    def sample(self, step: int) -> Tensor:
        seen = next(iter(self.ratios.values()), torch.zeros(()))
        unseen = torch.full_like(seen, math.nan)
        return torch.stack([self.ratios.get(m, unseen) for m in self.layers.values()])


def digits(seed: int) -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader over 8 × 8 images of handwritten digits."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).flatten(1) / 16  # type: ignore[attr-defined]
    labels = torch.tensor(data.target)  # type: ignore[attr-defined]
    shuffle = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(images, labels), 64, shuffle=True, generator=shuffle)


def net(outlier: bool) -> nn.Sequential:
    """Return a small net; with `outlier` one that computes the same, with one unit 40 times as large."""
    model = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    if outlier:
        middle, last = model.get_submodule("2"), model.get_submodule("4")
        assert isinstance(middle, nn.Linear) and isinstance(last, nn.Linear)
        with torch.no_grad():
            middle.weight[0] *= 40
            middle.bias[0] *= 40
            last.weight[:, 0] /= 40
    return model


def main(steps: int, outlier: bool, every: int | None, seed: int) -> str:
    """Train and return the run's id."""
    torch.manual_seed(seed)
    loader, model = digits(seed), net(outlier)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    recorder = attach(model, optimizer, probes=["default", Outliers(every)], run="outliers")
    step = 0
    while step < steps:
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss, len(images), batch=(images, labels))
            step += 1
            if step == steps:
                break
    recorder.finish()
    return recorder.run_id


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on handwritten digits, with a probe more.")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--outlier", action="store_true", help="begin with one unit far too loud")
    parser.add_argument("--every", type=int, help="steps between samples [default: by the budget]")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("run", main(given.steps, given.outlier, given.every, given.seed))
