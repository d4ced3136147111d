"""What the tests of shapes share: a net that remembers what it saw, and a fit done with and without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import Activations, Gradients, Otoscope
from otoscope.store import Series, Store
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from tests.callbacks.fits import PACKAGES, fit, package, recorded

NAME = PACKAGES[0]


@dataclass
class Memory:
    """Weights and batch of every micro-batch, as the training saw them."""

    micro: list[tuple[dict[str, torch.Tensor], Any]] = field(default_factory=list)

    def add(self, model: nn.Module, batch: Any) -> None:
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.micro.append((weights, batch))

    def again(
        self, model: nn.Module, loss_of: Callable[[Any], torch.Tensor]
    ) -> list[tuple[float, dict[str, torch.Tensor]]]:
        """Return loss and gradients of every micro-batch, computed apart from the training.

        `loss_of(batch)` runs the model's forward pass.
        """
        rows = []
        for weights, batch in self.micro:
            leaves = {name: p.clone().requires_grad_() for name, p in weights.items()}
            loss = functional_call(_Loss(model, loss_of), _prefixed(leaves), (batch,))
            grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            found = {n: g for n, g in zip(leaves, grads, strict=True) if g is not None}
            rows.append((float(loss.detach()), found))
        return rows


class _Loss(nn.Module):
    def __init__(self, model: nn.Module, loss_of: Callable[[Any], torch.Tensor]) -> None:
        super().__init__()
        self.model = model
        self.loss_of = loss_of

    def forward(self, batch: Any) -> torch.Tensor:
        return self.loss_of(batch)


def _prefixed(leaves: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"model.{name}": leaf for name, leaf in leaves.items()}


def square(grads: Any) -> float:
    """Return the squared norm over gradients, in float64."""
    values = grads.values() if isinstance(grads, dict) else grads
    return sum(float(grad.double().square().sum()) for grad in values)


def smooth() -> nn.Sequential:
    """A net without randomness of its own."""
    return nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))


def remembering(
    optimizer: Callable[[Any], Any] = lambda net: torch.optim.SGD(net.parameters(), 0.1),
    *,
    net: Callable[[], nn.Module] = smooth,
    step: Callable[[Any, Any], Any] | None = None,
    name: str = NAME,
) -> Any:
    """Return a LightningModule that remembers; `step(self, batch)` makes it a manual one."""
    base: Any = package(name).LightningModule

    class Shape(base):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()
            self.memory = Memory()
            self.automatic_optimization = step is None

        def loss_of(self, batch: Any) -> torch.Tensor:
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def training_step(self, batch: Any, index: int) -> Any:
            self.memory.add(self, batch)
            return self.loss_of(batch) if step is None else step(self, batch)

        def configure_optimizers(self) -> Any:
            return optimizer(self)

    torch.manual_seed(11)
    return Shape()


@dataclass
class Told:
    """What a watched fit recorded, and the net that it trained."""

    store: Store
    run: str
    net: Any
    trainer: Any

    def read(self, family: str = "train") -> Series:
        return self.store.read(self.run, family)

    def column(self, name: str, family: str = "train") -> list[float]:
        return self.read(family).column(name).tolist()


def both(where: Path, make: Callable[[], Any], *, name: str = NAME, **options: Any) -> Told:
    """Train without Otoscope and with it; the weights must end in the same bits."""
    options = {"validate": False, "max_epochs": 1, **options}
    callbacks, plugins = options.pop("callbacks", list), options.pop("plugins", lambda: None)
    _, bare = fit(name, where, callbacks(), net=make(), plugins=plugins(), **options)
    callback = Otoscope(
        spool=where,
        strict=True,
        verdict=False,
        budget=1.0,
        probes=[Gradients(every=1), Activations(every=1)],
    )
    trainer, watched = fit(
        name, where, [callback, *callbacks()], net=make(), plugins=plugins(), **options
    )
    for key, value in bare.state_dict().items():
        assert torch.equal(value, watched.state_dict()[key]), key
    assert callback.run_id is not None
    return Told(recorded(where, callback.run_id), callback.run_id, watched, trainer)
