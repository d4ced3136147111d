"""A linear regression whose gradient noise is known, and the probe's answers cut into windows."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from otoscope.callbacks import Noise, Otoscope
from otoscope.store import Series, connect, noise_series
from torch.utils.data import DataLoader, TensorDataset

DIMENSIONS, GRADIENT_SQ, TRACE = 20, 1.643, 54.5
SCALE = TRACE / GRADIENT_SQ
WINDOW, WINDOWS = 10, 100
"""Samples of a window, and how many of them one fit gives: each is a draw of its own."""


class Regression(pl.LightningModule):
    """Least squares at fixed weights: y is noise, so that the weights are the error.

    With standard normal inputs the gradient's mean is the error and the trace of its covariance
    (d + 1)|error|² + d s².
    """

    def __init__(self) -> None:
        super().__init__()
        error = math.sqrt(GRADIENT_SQ / DIMENSIONS)
        self.weights = torch.nn.Parameter(torch.full((DIMENSIONS,), error))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return (batch[0] @ self.weights - batch[1]).square().mean() / 2

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


def rows(count: int, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    spread = math.sqrt((TRACE - (DIMENSIONS + 1) * GRADIENT_SQ) / DIMENSIONS)
    x = torch.randn(count, DIMENSIONS, generator=generator)
    return TensorDataset(x, spread * torch.randn(count, generator=generator))


def fit(
    where: Path,
    data: TensorDataset,
    batch: int,
    *,
    net: Any = None,
    probe: Any = None,
    epochs: int = 1,
    shuffle: bool = False,
    task: str = "supervised",
    **options: Any,
) -> tuple[Series, Any]:
    """Fit with the noise probe alone at every step; returns what was recorded, and the callback."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    probes = [Noise(every=1) if probe is None else probe]
    settings = {"budget": 1.0, "strict": True, "verdict": False, "task": task}
    callback = Otoscope(probes=probes, spool=where / "spool", **settings)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*options.pop("callbacks", ()), callback],
        default_root_dir=where,
        **options,
    )
    trainer.fit(net or Regression(), DataLoader(data, batch, shuffle=shuffle))
    if trainer.global_rank or callback.run_id is None:
        nothing = np.empty(0)
        return Series(nothing, nothing, nothing, nothing, nothing, []), callback
    return connect(where / "spool" / callback.run_id).read(callback.run_id, "noise"), callback


def estimates(series: Series) -> np.ndarray:
    """Return [windows, 5]: what the samples of each window alone say."""
    table = np.column_stack([series.column(n) for n in ("small_sq", "big_sq", "small", "big")])
    table = table[~np.isnan(table).any(axis=1)]
    found = []
    for begin in range(0, len(table) - WINDOW + 1, WINDOW):
        series_ = noise_series(*table[begin : begin + WINDOW].T, decay=1.0)
        found.append([column[-1] for column in series_])
    return np.array(found)


def assert_right(found: np.ndarray, within: float = 0.03) -> np.ndarray:
    """Hold the windows' estimates against the known answer, and return them: no bias."""
    gradient_sq, trace = found.T[3:]
    assert np.mean(gradient_sq) == pytest.approx(GRADIENT_SQ, rel=within)
    assert np.mean(trace) == pytest.approx(TRACE, rel=within)
    assert np.mean(trace) / np.mean(gradient_sq) == pytest.approx(SCALE, rel=2 * within)
    return found


def assert_covers(found: np.ndarray) -> None:
    """The 95 % interval covers the known answer in 90 to 98 of a hundred windows."""
    assert len(found) >= WINDOWS
    covered = (found[:, 1] <= SCALE) & (found[:, 2] >= SCALE)
    assert 0.90 <= np.mean(covered) <= 0.98
