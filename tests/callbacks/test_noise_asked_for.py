"""Noise measured where it is asked for: single examples, and the tail index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from otoscope.callbacks import Noise, TailIndex
from otoscope.store import connect
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from . import fits
from .regressions import Regression, fit, rows
from .test_noise import Normalized, why_off


class Tokens(Regression):
    """Embeddings, layer norm over positions, linear layers, and one layer that cannot be taken apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        del self.weights
        self.net = nn.Sequential(
            nn.Embedding(9, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
        )
        self.bias = nn.Parameter(torch.zeros(3))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return functional.cross_entropy(self.net(batch[0]).mean(1) + self.bias, batch[1])


def test_single_examples_are_taken_apart_where_it_is_asked_for(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    data = TensorDataset(
        torch.randint(9, (24, 5), generator=generator), torch.randint(3, (24,), generator=generator)
    )
    net, probe = Tokens(), Noise(every=1, per_example=True)
    series, _ = fit(tmp_path, data, 12, net=net, probe=probe)
    for step, (x, y) in enumerate(zip(*(t.split(12) for t in data.tensors), strict=True)):
        each = []
        for i in range(12):
            loss = net.training_step((x[i : i + 1], y[i : i + 1]), 0)
            found = torch.autograd.grad(loss, list(net.net.parameters()))
            each.append(torch.cat([g.flatten() for g in found]).double())
        table = torch.stack(each)
        expected = [table.square().sum(1).mean(), table.mean(0).square().sum(), 1, 12]
        np.testing.assert_allclose(series.values[step, :4], expected, rtol=1e-5)


def test_a_model_without_such_layers_says_so(tmp_path: Path) -> None:
    _, callback = fit(tmp_path, rows(64), 32, probe=Noise(every=1, per_example=True))
    events = connect(tmp_path / "spool" / callback.run_id).events(callback.run_id)
    assert "need Linear, LayerNorm or Embedding" in why_off(events)[0]


def test_the_tail_index_is_recorded_where_it_is_asked_for(tmp_path: Path) -> None:
    net = Normalized()
    _, callback = fit(tmp_path, fits.data(320), 32, net=net, probe=TailIndex(every=2))
    store = connect(tmp_path / "spool" / callback.run_id)
    found = store.read(callback.run_id, "tail_index").column("tail_index")
    assert len(found) >= 1
    assert ((found > 0.3) & (found < 3)).all()


def test_the_tail_index_takes_sparse_gradients_too(tmp_path: Path) -> None:
    net = Tokens()
    net.net[0] = nn.Embedding(9, 8, sparse=True)
    data = TensorDataset(torch.randint(9, (64, 5)), torch.randint(3, (64,)))
    _, callback = fit(tmp_path, data, 4, net=net, probe=TailIndex(every=2))
    store = connect(tmp_path / "spool" / callback.run_id)
    assert why_off(store.events(callback.run_id)) == []
    assert len(store.read(callback.run_id, "tail_index")) >= 1
