"""Runs of the laboratory that several tests look at, each trained once."""

from __future__ import annotations

import pytest
import torch
from otoscope.diagnostics.fold import Fold

from .lab import Lab, mlp

torch.set_num_threads(1)
Fold.strict = True


@pytest.fixture(scope="session")
def healthy() -> Lab:
    torch.manual_seed(0)
    model = mlp()
    lab = Lab(model, torch.optim.SGD(model.parameters(), 0.1), steps=300)
    lab.record()
    return lab


@pytest.fixture(scope="session")
def faulty() -> Lab:
    torch.manual_seed(0)
    model = mlp()
    lab = Lab(model, torch.optim.SGD(model.parameters(), 1.0), steps=300)
    lab.record()
    return lab
