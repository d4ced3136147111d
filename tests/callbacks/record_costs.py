"""Records what every step and every sample of a real run cost, for tests that replay the budget.

    python -m tests.callbacks.record_costs tests/callbacks/data/costs.json

A small convnet on handwritten digits, 1,000 steps, all default probes. `steps` holds [seconds without
samples, our fixed seconds] of each step of a run at the default budget; `samples` the seconds of each
probe's samples in a run that lets it sample as often as it likes, in their order.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from otoscope.callbacks import Otoscope
from otoscope.callbacks.budget import Budget
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

STEPS = 1000


class Net(lightning.LightningModule):
    """Two convolutions and two linear layers on 8 x 8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4096, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def training_step(self, batch: Any, index: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


class Recorded(Budget):
    """A budget that writes down what it is told."""

    steps: list[list[float]]
    samples: dict[str, list[float]]
    claimed: dict[str, dict[str, Any]]

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self.steps, self.samples, self.claimed = [], {}, {}
        self._sampled = 0.0

    def claim(self, name: str, **how: Any) -> None:
        self.claimed[name] = how
        super().claim(name, **how)

    def paid(self, name: str, seconds: float, step: int, *, again: bool = False) -> None:
        self.samples.setdefault(name, []).append(round(seconds, 7))
        self._sampled += seconds
        super().paid(name, seconds, step, again=again)

    def stepped(self, seconds: float, fixed: float) -> None:
        rest = max(0.0, seconds - fixed - self._sampled)
        self.steps.append([round(rest, 7), round(fixed, 7)])
        self._sampled = 0.0
        super().stepped(seconds, fixed)


def record() -> dict[str, Any]:
    """Train twice and return the trace."""
    few, many = train(0.02), train(1.0)
    return {"claims": many.claimed, "steps": few.steps, "samples": many.samples}


def train(share: float) -> Recorded:
    """Train once, and return the budget with what it was told."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    with tempfile.TemporaryDirectory() as folder:
        callback = Otoscope(budget=share, spool=folder, verdict=False, strict=True)
        made: list[Recorded] = []
        from otoscope.callbacks import stepping

        class Made(Recorded):
            def __init__(self, share: float) -> None:
                super().__init__(share)
                made.append(self)

        stepping.Budget = Made  # type: ignore[misc]
        lightning.Trainer(
            max_steps=STEPS,
            max_epochs=-1,
            callbacks=[callback],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(Net(), DataLoader(data, 64, shuffle=True))
    budget = made[0]
    for name, claim in budget.claims.items():
        budget.claimed[name]["guess"] = round(claim.guess, 2)
    return budget


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    Path(sys.argv[1]).write_text(json.dumps(record()) + "\n")
