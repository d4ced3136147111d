"""Runs of the laboratory that several tests look at, each trained once; a daemon with a clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from otoscope.diagnostics import Daemon
from otoscope.diagnostics.fold import Fold
from otoscope.store import MemoryHome

from .clock import Clock
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


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(clock: Clock) -> MemoryHome:
    return MemoryHome(clock)


@pytest.fixture
def daemon(home: MemoryHome, clock: Clock, tmp_path: Path) -> Daemon:
    return Daemon(home, clock=clock, heartbeat=tmp_path / "beat")
