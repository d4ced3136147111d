"""A plain loop that trains with and without Otoscope, and a model whose activations are calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import Activations, Gradients, attach
from otoscope.store import Series
from torch import nn
from torch.nn import functional

from tests.callbacks.fits import recorded

Step = Callable[[Any, torch.Tensor], torch.Tensor]


class Loop:
    """A plain loop over random batches, with what the model gave of its inner values."""

    def __init__(
        self, where: Path, make: Callable[[], Any], shape: tuple[int, ...] = (12,)
    ) -> None:
        self.where, self.make, self.shape = where, make, shape
        self.batches: list[torch.Tensor] = []

    def train(self, watch: bool, steps: int, call: Step, every: int, lr: float) -> Any:
        torch.manual_seed(5)
        self.model = self.make()
        optimizer = torch.optim.SGD(self.model.parameters(), lr)
        generator = torch.Generator().manual_seed(9)
        self.batches = []
        recorder = None
        if watch:
            recorder = attach(
                self.model,
                optimizer,
                probes=[Activations(every=every), Gradients(every=every)],
                spool=self.where,
                strict=True,
                verdict=False,
            )
        for _ in range(steps):
            batch = torch.randn(24, *self.shape, generator=generator)
            self.batches.append(batch)
            optimizer.zero_grad()
            loss = call(self.model, batch)
            loss.backward()
            optimizer.step()
            if recorder is not None:
                recorder.step(loss, 24)
        if recorder is not None:
            recorder.finish()
        return recorder

    def run(
        self,
        steps: int = 3,
        call: Step = lambda model, batch: model(batch).square().mean(),
        every: int = 1,
        lr: float = 0.1,
    ) -> Series:
        """Train without and with; the weights must end in the same bits."""
        self.train(False, steps, call, every, lr)
        bare = self.model.state_dict()
        recorder = self.train(True, steps, call, every, lr)
        for key, value in bare.items():
            assert torch.equal(value, self.model.state_dict()[key]), key
        return recorded(self.where, recorder.run_id).read(recorder.run_id, "activations")


def names(series: Series, quantity: str) -> list[str]:
    return [
        name.removeprefix(f"{quantity}/")
        for name in series.columns
        if name.startswith(f"{quantity}/")
    ]


class Called(nn.Module):
    """Every activation here is a call: two of one kind on one line, one in a loop, one in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 20), nn.Linear(20, 12)
        self.seen: dict[str, list[torch.Tensor]] = {}

    def note(self, name: str, value: torch.Tensor) -> torch.Tensor:
        self.seen.setdefault(name, []).append(value.detach().clone())
        return value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = functional.relu(self.note("relu()", self.first(x)))
        y = self.note("clamped", self.second(h))
        y = self.note("tanh()", y.clamp(min=0) + 2 * x).tanh()
        for _ in range(2):
            y = self.note("sigmoid()", 3 * y).sigmoid()
        return functional.relu_(self.note("relu()#2", y - 0.5))
