"""Nets of the bench that no other benchmark trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def named(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Return a maker of MLPs that takes activation and normalization by torch's names."""

    def mlp(
        inputs: int, outputs: int, width: int = 64, depth: int = 3, act: str = "ReLU",
        norm: str | None = None, dropout: float = 0.0,
    ) -> nn.Module:  # fmt: skip
        norms: Any = None if norm is None else getattr(nn, norm)
        return make(inputs, outputs, width, depth, getattr(nn, act), norms, dropout)

    return mlp


class Plain(nn.Module):
    """A recurrent net without gates over the letters of a line, or over the rows of a picture."""

    def __init__(
        self, vocabulary: int = 0, width: int = 64, layers: int = 1, outputs: int = 10, act: str = "tanh"
    ) -> None:  # fmt: skip
        super().__init__()
        self.letters = vocabulary > 0
        if self.letters:
            self.token = nn.Embedding(vocabulary, width)
        self.rnn = nn.RNN(
            width if self.letters else 8, width, layers, nonlinearity=act, batch_first=True
        )
        self.head = nn.Linear(width, vocabulary or outputs)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.rnn(self.token(x) if self.letters else x.view(len(x), -1, 8))[0]
        return self.head(seen if self.letters else seen[:, -1])


class SequenceClassifier(nn.Module):
    """A transformer over the rows of a picture, which says what the picture shows."""

    def __init__(
        self, width: int = 32, blocks: int = 2, outputs: int = 10, norm_first: bool = True
    ) -> None:
        super().__init__()
        self.row = nn.Linear(8, width)
        self.place = nn.Parameter(0.02 * torch.randn(8, width))
        block = nn.TransformerEncoderLayer(
            width,
            4,
            4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=norm_first,
        )
        self.blocks = nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.row(x.view(-1, 8, 8)) + self.place).mean(1))


def autoencoder(inputs: int = 64, width: int = 48, code: int = 12, act: str = "ReLU") -> nn.Module:
    kind = getattr(nn, act)
    return nn.Sequential(
        nn.Linear(inputs, width), kind(), nn.Linear(width, code), kind(),
        nn.Linear(code, width), kind(), nn.Linear(width, inputs),
    )  # fmt: skip


def normed_convnet(channels: int = 12, norm: str = "BatchNorm2d", outputs: int = 10) -> nn.Module:
    """Three strided convolutions, each normalized, and the mean over the picture."""
    parts: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    before = 1
    for stride in (1, 2, 2):
        parts.append(nn.Conv2d(before, channels, 3, stride, 1))
        parts.append(nn.GroupNorm(4, channels) if norm == "GroupNorm" else nn.BatchNorm2d(channels))
        parts.append(nn.ReLU())
        before = channels
    return nn.Sequential(
        *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs)
    )


class Highway(nn.Module):
    """Layers that add to what came in, each normalized before."""

    def __init__(
        self, inputs: int, outputs: int, width: int = 48, depth: int = 4, act: str = "GELU"
    ) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.parts = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), getattr(nn, act)(),
                nn.Linear(2 * width, width),
            )
            for _ in range(depth)
        )  # fmt: skip
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for part in self.parts:
            x = x + part(x)
        return self.head(x)


class Mixer(nn.Module):
    """Mixes the rows of a picture, then their pixels, in turn."""

    def __init__(self, width: int = 24, depth: int = 2, outputs: int = 10) -> None:
        super().__init__()
        self.row = nn.Linear(8, width)
        self.across = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8)) for _ in range(depth)
        )
        self.within = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.row(x.view(-1, 8, 8))
        for across, within in zip(self.across, self.within, strict=True):
            x = x + across(x.transpose(1, 2)).transpose(1, 2)
            x = x + within(x)
        return self.head(x.mean(1))


def logistic(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, outputs))
