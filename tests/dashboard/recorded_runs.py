"""Real short trainings on digits, recorded with every probe at a fixed cadence."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import Otoscope, probes
from otoscope.store import Store, connect
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

STEPS = 240
EVERY = 20


def probe(name: str, **options: Any) -> Any:
    """Return a probe by its class's name."""
    return getattr(importlib.import_module("otoscope.callbacks.probes"), name)(**options)


def record(
    directory: Path, kind: str = "adam", *, steps: int = STEPS, every: int = EVERY, **options: Any
) -> tuple[Store, str]:
    """Train on digits and return the store of the recording with the run's id."""
    import pytorch_lightning as lightning

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.manual_seed(0)
    pixels, target = load_digits(return_X_y=True)
    x = torch.tensor(pixels / 16.0, dtype=torch.float32)
    rows = torch.utils.data.TensorDataset(x, torch.tensor(target))

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
            )

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            if kind == "adam":
                return torch.optim.Adam(self.parameters(), 1e-3)
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    chosen = options.pop("probes", None) or [
        probes.Gradients(every=5),
        probes.Activations(every=5),
        probe("Curvature", every=every, k=3),
        probe("Landscape", every=every),
        probe("Density", every=2 * every, first=50),
        probe("Noise", every=5),
        probe("Inputs"),
        probe("Initialization"),
    ]
    watcher = Otoscope(
        run=f"digits {kind}", probes=chosen, spool=directory, verdict=False, strict=True, **options
    )
    loader = torch.utils.data.DataLoader(rows, batch_size=64, shuffle=True)
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[watcher],
    )
    trainer.fit(Net(), loader)
    assert watcher.run_id is not None
    return connect(str(directory / watcher.run_id)), watcher.run_id
