"""Kinds of models, batches and training steps that a probe meets: each a small LightningModule."""

from __future__ import annotations

import random
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchmetrics import Accuracy

KINDS: dict[str, type[Kind]] = {}

Pair = namedtuple("Pair", ["x", "y"])


@dataclass
class Sample:
    """A batch as a dataclass."""

    x: Tensor
    y: Tensor
    note: str = "kept"


class Kind(pl.LightningModule):
    """Six features, three classes; subclasses say what is special."""

    precision: Any = "32-true"

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        KINDS[cls.__name__.lower()] = cls

    def __init__(self) -> None:
        super().__init__()
        self.net: Any = self.build()
        self.accuracy = Accuracy(task="multiclass", num_classes=3)
        self.seen: list[float] = []

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def inputs(self, x: Tensor) -> Tensor:
        return x

    def wrap(self, x: Tensor, y: Tensor) -> Any:
        return x, y

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        shift = random.random() + np.random.rand() + torch.rand(1).item()
        loss = self.loss(batch) * (1 + 0.01 * shift)
        self.accuracy(torch.eye(3), torch.tensor([0, 1, batch_idx % 3]))
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True, batch_size=8)
        self.log("loss", loss, on_step=True, on_epoch=True, batch_size=8)
        self.seen.append(loss.item())
        return loss

    def train_dataloader(self) -> Any:
        generator = torch.Generator().manual_seed(4)
        x = torch.randn(48, 6, generator=generator)
        y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
        rows = list(zip(self.inputs(x), y, strict=True))

        def collate(items: list[Any]) -> Any:
            return self.wrap(*(torch.stack(part) for part in zip(*items, strict=True)))

        return torch.utils.data.DataLoader(rows, 8, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Plain(Kind):
    """Nothing special."""


class Convolution(Kind):
    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 6)),
            nn.Conv1d(1, 4, 3),
            nn.BatchNorm1d(4),
            nn.ReLU(),
            nn.Dropout1d(0.3),
            nn.Flatten(),
            nn.Linear(16, 3),
        )


class Attention(Kind):
    def build(self) -> nn.Module:
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        return nn.Sequential(
            nn.Unflatten(1, (6, 1)), nn.Linear(1, 8), layer, nn.Flatten(), nn.Linear(48, 3)
        )


class Recurrent(Kind):
    def build(self) -> nn.Module:
        net = nn.Module()
        net.table = nn.Embedding(5, 4, padding_idx=0)
        net.lstm = nn.LSTM(4, 5, num_layers=2, dropout=0.3, batch_first=True)
        net.head = nn.Linear(5, 3)
        return net

    def inputs(self, x: Tensor) -> Tensor:
        return (x.abs() * 2).long().clamp_max(4)

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net.head(self.net.lstm(self.net.table(x))[0][:, -1]), y)


class Tied(Recurrent):
    """One matrix is embedding and head; its gradient is sparse nowhere."""

    def build(self) -> nn.Module:
        net = nn.Module()
        net.table = nn.Embedding(5, 4)
        net.head = nn.Linear(4, 5, bias=False)
        net.head.weight = net.table.weight
        return net

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net.head(self.net.table(x).mean(1)), y)


class Sparse(Tied):
    def build(self) -> nn.Module:
        net = nn.Module()
        net.table = nn.Embedding(5, 4, sparse=True)
        net.head = nn.Linear(4, 5)
        return net

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Bag(Sparse):
    """EmbeddingBag has no second derivative."""

    def build(self) -> nn.Module:
        net = nn.Module()
        net.table = nn.EmbeddingBag(5, 4)
        net.head = nn.Linear(4, 5)
        return net

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net.head(self.net.table(x)), y)


class Transcribing(Kind):
    """Nor has the CTC loss."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Unflatten(1, (6, 1)), nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 4))

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        spoken = self.net(x).log_softmax(-1).transpose(0, 1)
        lengths = torch.full((len(x),), 6), torch.ones(len(x), dtype=torch.long)
        return F.ctc_loss(spoken, (y + 1)[:, None], *lengths)


class Partly(Kind):
    """Frozen and unused parameters."""

    def build(self) -> nn.Module:
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        net[0].weight.requires_grad_(False)
        net.register_parameter("spare", nn.Parameter(torch.ones(4)))
        return net


class Compiled(Kind):
    def build(self) -> nn.Module:
        return torch.compile(super().build(), backend="aot_eager")  # type: ignore[return-value]


class Scripted(Kind):
    """TorchScript: its parameters sit in containers of their own."""

    def build(self) -> nn.Module:
        first, *rest = super().build()  # type: ignore[misc]
        return nn.Sequential(torch.jit.script(first), *rest)


class Normed(Kind):
    """The older spectral norm: every forward pass moves a buffer, and the weight with it."""

    def build(self) -> nn.Module:
        first, *rest = super().build()  # type: ignore[misc]
        return nn.Sequential(nn.utils.spectral_norm(first), *rest)


class Halved(Convolution):
    precision = "bf16-mixed"


class OwnAutocast(Kind):
    """An autocast of its own within the step."""

    def loss(self, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.net(batch[0])
        return F.cross_entropy(logits.float(), batch[1])


class Reentrant(Kind):
    reentrant = True

    def loss(self, batch: Any) -> Tensor:
        x = batch[0].requires_grad_()
        hidden: Any = checkpoint(self.net[:2], x, use_reentrant=self.reentrant)
        return F.cross_entropy(self.net[2](hidden), batch[1])


class Checkpointed(Reentrant):
    reentrant = False


class Mapped(Kind):
    def wrap(self, x: Tensor, y: Tensor) -> Any:
        return {"x": x, "y": y, "name": "batch"}

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.net(batch["x"]), batch["y"])


class Named(Kind):
    def wrap(self, x: Tensor, y: Tensor) -> Any:
        return Pair(x, y)

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.net(batch.x), batch.y)


class Classy(Named):
    def wrap(self, x: Tensor, y: Tensor) -> Any:
        return Sample(x, y)


class Spoiling(Mapped):
    """A step that pops from its batch, and writes into it."""

    def loss(self, batch: Any) -> Tensor:
        x = batch.pop("x").mul_(1.0)
        return F.cross_entropy(self.net(x), batch.pop("y"))


class Telling(Kind):
    """A step that returns a mapping."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx), "more": 1}


class Manual(Kind):
    """Two optimizers, stepped by hand, and a loss offered to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()

    def curvature_loss(self, batch: Any) -> Tensor:
        return self.loss(batch)

    def configure_optimizers(self) -> Any:
        first, second = self.net[0].parameters(), self.net[2].parameters()
        return [torch.optim.SGD(first, 0.1, momentum=0.9), torch.optim.Adam(second, 0.01)]
