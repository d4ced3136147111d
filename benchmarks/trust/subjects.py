"""The held-out nets: none was looked at when a rule or a threshold was tuned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, make_friedman2
from torch import Tensor, nn
from torch.nn import functional

from .. import _data
from .._data import Batch
from .._nets import mlp, sequence_loss


@dataclass(frozen=True)
class Subject:
    """A net, what it is trained on, and the loss; `data` is all that there is (at most 512 rows)."""

    name: str
    net: Callable[[], nn.Module]
    data: Callable[[], Batch]
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
    batch: int = 64

    def value(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.loss(model(batch[0]), batch[1])


class Residual(nn.Module):
    """Blocks of norm, layer, activation, layer around which the input goes, too."""

    def __init__(self, width: int, blocks: int, norm: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(64, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width) if norm else nn.Identity(),
                nn.Linear(width, width),
                nn.GELU(),
                nn.Linear(width, width),
            )
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Letters(nn.Module):
    """One block of causal attention over the letters of a line, with learned places."""

    def __init__(self, width: int = 24, length: int = 16) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(96, width), nn.Embedding(length, width)
        self.before, self.behind = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        self.head = nn.Linear(width, 96)

    def forward(self, x: Tensor) -> Tensor:
        h = self.token(x) + self.place.weight[: x.shape[1]]
        q, k, v = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in self._parts(h))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return self.head(h + self.wide(self.behind(h)))

    def _parts(self, h: Tensor) -> tuple[Tensor, ...]:
        return self.mixed(self.before(h)).chunk(3, dim=-1)


class Remembering(nn.Module):
    """A recurrent net: an LSTM over letters, or a GRU over the rows of a picture."""

    def __init__(self, letters: bool) -> None:
        super().__init__()
        self.token = nn.Embedding(96, 16) if letters else None
        self.body = (
            nn.LSTM(16, 32, batch_first=True) if letters else nn.GRU(8, 24, batch_first=True)
        )
        self.head = nn.Linear(32, 96) if letters else nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        if self.token is not None:
            return self.head(self.body(self.token(x))[0])
        return self.head(self.body(x.view(-1, 8, 8))[0][:, -1])


def convolutions(norm: bool, act: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        act(),
        nn.Conv2d(8, 16, 3, padding=1, stride=2),
        nn.BatchNorm2d(16) if norm else nn.Identity(),
        act(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def some(data: Batch, rows: int = 512) -> Batch:
    order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(1))[:rows]
    return data[0][order], data[1][order]


@cache
def digits() -> Batch:
    return some(_data.digits())


@cache
def cancer() -> Batch:
    return some(_data.table(load_breast_cancer))


@cache
def diabetes() -> Batch:
    return some(_data.table(load_diabetes, regression=True))


@cache
def circuits() -> Batch:
    """The impedance of 512 circuits (Friedman's second problem), of four inputs."""
    x, y = make_friedman2(512, noise=50.0, random_state=3)
    return _data.standard(x, y, regression=True)


@cache
def letters() -> Batch:
    return some(_data.text(16), 256)


def scaled(data: Callable[[], Batch], most: float) -> Callable[[], Batch]:
    """Return data whose columns have unequal scales, from 1/`most` to 1, as raw tables have."""

    def made() -> Batch:
        x, y = data()
        generator = torch.Generator().manual_seed(5)
        powers = torch.rand(x.shape[1], generator=generator)
        return x * most**-powers, y

    return made


LOGISTIC = Subject("logistic-cancer", lambda: nn.Linear(30, 2), cancer)
SOFTMAX = Subject("softmax-digits", lambda: nn.Linear(64, 10), digits)
WIDE = Subject("mlp-1x160-relu", lambda: mlp(64, 10, width=160, depth=1), digits)
TANH = Subject("mlp-2x48-tanh", lambda: mlp(64, 10, width=48, depth=2, act=nn.Tanh), digits)
DEEP = Subject("mlp-6x32-relu", lambda: mlp(64, 10, width=32, depth=6), digits)
LAYERED = Subject(
    "mlp-5x32-gelu-layernorm",
    lambda: mlp(64, 10, width=32, depth=5, act=nn.GELU, norm=nn.LayerNorm),
    digits,
)
BATCHED = Subject("mlp-3x40-batchnorm", lambda: mlp(64, 10, width=40, norm=nn.BatchNorm1d), digits)
SILU = Subject("mlp-4x24-silu", lambda: mlp(30, 2, width=24, depth=4, act=nn.SiLU), cancer)
RESIDUAL = Subject("residual-5", lambda: Residual(32, 5), digits)
CONV = Subject("conv-tanh", lambda: convolutions(False, nn.Tanh), digits)
CONV_NORM = Subject("conv-batchnorm", lambda: convolutions(True, nn.ReLU), digits)
ATTENTION = Subject("attention-letters", Letters, letters, sequence_loss, batch=32)
LSTM = Subject("lstm-letters", lambda: Remembering(True), letters, sequence_loss, batch=32)
GRU = Subject("gru-rows", lambda: Remembering(False), digits)
ELU = Subject(
    "mlp-2x32-elu-mse",
    lambda: mlp(10, 1, width=32, depth=2, act=nn.ELU),
    diabetes,
    functional.mse_loss,
)
SIGMOID = Subject(
    "mlp-1x64-sigmoid-mse",
    lambda: mlp(4, 1, depth=1, act=nn.Sigmoid),
    circuits,
    functional.mse_loss,
)
LINEAR = Subject("linear-mse", lambda: nn.Linear(10, 1), diabetes, functional.mse_loss)

HELD_OUT = (
    LOGISTIC, SOFTMAX, WIDE, TANH, DEEP, LAYERED, BATCHED, SILU, RESIDUAL, CONV, CONV_NORM,
    ATTENTION, LSTM, GRU, ELU, SIGMOID,
)  # fmt: skip


def unequal(subject: Subject, most: float) -> Subject:
    """Return a subject whose inputs have unequal scales."""
    return replace(subject, name=f"{subject.name}-1:{most:g}", data=scaled(subject.data, most))
