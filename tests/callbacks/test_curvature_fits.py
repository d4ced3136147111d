"""Curvature within real Lightning fits: what it records, and that the run goes on as if it were not there."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from otoscope.callbacks import Curvature, Otoscope
from otoscope.store import Store, connect
from torch import Tensor, nn
from torchmetrics import Accuracy


class Careless(pl.LightningModule):
    """Every state that a training step may have: metrics, lists, counters, draws, logs."""

    def __init__(self, manual: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
        )
        self.accuracy = Accuracy(task="multiclass", num_classes=3)
        self.outputs: list[float] = []
        self.logged: list[float] = []
        self.automatic_optimization = not manual

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self.net(x + 0.01 * random.random() + 0.01 * np.random.rand())
        loss = nn.functional.cross_entropy(logits, y)
        self.accuracy(logits, y)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.outputs.append(loss.item())
        if not self.automatic_optimization:
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def on_train_epoch_end(self) -> None:
        self.logged += [sum(self.outputs), float(len(self.outputs))]
        self.outputs.clear()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def fit(where: Path, *, watched: bool, manual: bool = False) -> tuple[dict[str, Any], Store | None]:
    pl.seed_everything(5, verbose=False)
    module = Careless(manual)
    x = torch.randn(64, 6)
    data = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())
    otoscope = Otoscope(spool=where, strict=True, verdict=False, probes=[Curvature(every=5, k=2)])
    trainer = pl.Trainer(
        max_epochs=12,
        accelerator="cpu",
        callbacks=[otoscope] if watched else [],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=None if manual else 0.5,
    )
    trainer.fit(module, torch.utils.data.DataLoader(data, 8, shuffle=True))
    state: dict[str, Any] = {k: v.tolist() for k, v in module.state_dict().items()}
    state |= {f"metric {k}": float(v) for k, v in trainer.callback_metrics.items()}
    state |= {"logged": module.logged, "python": random.getstate()}
    state |= {"numpy": np.random.get_state()[1].tolist()}  # type: ignore[union-attr, index]
    state |= {"torch": torch.get_rng_state().tolist(), "training": module.training}
    state |= {
        f"grad {k}": p.grad.tolist() for k, p in module.named_parameters() if p.grad is not None
    }
    return state, connect(str(where / str(otoscope.run_id))) if watched else None


def test_a_run_with_metrics_lists_and_draws_is_bit_identical_under_the_probe(tmp_path):
    bare, _ = fit(tmp_path, watched=False)
    watched, store = fit(tmp_path, watched=True)

    assert store is not None
    series = store.read(store.runs()[0].id, "curvature")
    assert len(series) >= 12
    assert np.isfinite(series.column("lambda_1")).all()
    assert bare.keys() == watched.keys()
    assert [key for key in bare if bare[key] != watched[key]] == []


def test_what_is_recorded_for_adam_holds_together(tmp_path):
    _, store = fit(tmp_path, watched=True)
    assert store is not None
    series = store.read(store.runs()[0].id, "curvature")
    top, second = series.column("lambda_1"), series.column("lambda_2")
    assert (top >= second).all()
    assert (top >= series.column("lambda_min")).all()
    edge = series.column("preconditioned_lambda") * 0.01 * 0.1 / (2 * 1.9)
    np.testing.assert_allclose(series.column("edge_ratio"), edge, rtol=1e-5)
    assert (series.column("pool_samples") == 32).all()
    assert (series.column("seconds") > 0).all()
    for name in ("newton_gain", "preconditioned_newton_gain"):
        gain = series.column(name)
        assert ((gain >= 1 - 1e-5) & (gain <= 101)).all()


def test_under_manual_optimization_the_probe_is_off_with_the_reason(tmp_path):
    _, store = fit(tmp_path, watched=True, manual=True)
    assert store is not None
    run = store.runs()[0].id
    (event,) = [event for event in store.events(run) if event.kind == "probe_off"]
    assert "manual optimization" in event.body["why"]
    assert math.isclose(store.run(run).step, 96)
