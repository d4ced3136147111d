"""A small training by hand, with its last batches at hand and its dense Hessian for reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from otoscope.callbacks.probes.curvature import Curvature
from otoscope.callbacks.probes.probe import Training
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.dropout, self.last = nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(torch.tanh(self.norm(self.first(x)))))


class Fit:
    """A small real training, with its last four batches at hand."""

    def __init__(
        self,
        optimizer: Callable[[Any], torch.optim.Optimizer] = lambda p: torch.optim.SGD(p, lr=0.1),
        size: int = 32,
        steps: int = 30,
    ):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = Net().double()
            self.optimizer = optimizer(self.model.parameters())
            self.batches: list[Batch] = []
            for _ in range(steps):
                batch = (torch.randn(size, 6).double(), torch.randint(0, 3, (size,)))
                self.optimizer.zero_grad()
                cross_entropy(self.model, batch).backward()
                self.optimizer.step()
                self.batches = [*self.batches, batch][-4:]

    def training(self, loss_fn: Callable[..., Tensor] | None = cross_entropy, **more) -> Training:
        return Training(
            self.model, [self.optimizer], loss_fn=loss_fn, batches=lambda: self.batches, **more
        )

    def sample(self, probe: Curvature, training: Training | None = None) -> dict[str, float]:
        columns = probe.attach(training or self.training())
        return dict(zip([c.name for c in columns], probe.sample(20), strict=True))

    def dense(self, batches: list[Batch]) -> tuple[Tensor, Tensor]:
        """Gradient and Hessian of the pool's mean loss by central differences, dropout off."""
        self.model.dropout.eval()
        parameters = list(self.model.parameters())

        def gradient() -> Tensor:
            loss = torch.stack([cross_entropy(self.model, b) for b in batches]).mean()
            return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])

        columns = []
        for p in parameters:
            flat = p.detach().view(-1)
            for i in range(p.numel()):
                value = flat[i].item()
                flat[i] = value + 1e-5
                above = gradient()
                flat[i] = value - 1e-5
                columns.append((above - gradient()) / 2e-5)
                flat[i] = value
        matrix, here = torch.stack(columns), gradient()
        self.model.dropout.train()
        return here, (matrix + matrix.T) / 2
