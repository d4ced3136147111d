"""Nets of the fourth set that was held out: looked at, and tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import tables


class Shuffling(nn.Module):
    """Half of the channels go around, half through convolutions; then all are dealt out in turn."""

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        half, kind = width // 2, getattr(nn, act)
        self.body = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), kind(),
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), kind(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        around, through = x.chunk(2, 1)
        return torch.stack((around, self.body(through)), 2).flatten(1, 2)


def shuffled(
    channels: int = 3, width: int = 32, outputs: int = 5, act: str = "ReLU", dropout: float = 0.0
) -> nn.Module:
    kind = getattr(nn, act)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), kind(),
        Shuffling(width, act), Shuffling(width, act),
        nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * width), kind(),
        Shuffling(2 * width, act), Shuffling(2 * width, act),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(2 * width, outputs),
    )  # fmt: skip


def pooled(
    channels: int = 1, width: int = 8, hidden: int = 96, outputs: int = 10, side: int = 16,
    act: str = "Tanh",
) -> nn.Module:  # fmt: skip
    """A net as of 1998: wide kernels, means over squares of four pixels, three layers behind them."""
    kind, left = getattr(nn, act), (side // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, 1, 2), kind(), nn.AvgPool2d(2),
        nn.Conv2d(width, 2 * width, 5), kind(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(2 * width * left * left, hidden), kind(),
        nn.Linear(hidden, hidden // 2), kind(), nn.Linear(hidden // 2, outputs),
    )  # fmt: skip


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "BatchNorm2d":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(4, channels) if kind == "GroupNorm" else nn.Identity()


class Before(nn.Module):
    """Two convolutions, each normalized and bent before it, around which the input goes."""

    def __init__(self, before: int, behind: int, stride: int, norm: str, act: str) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.body = nn.Sequential(
            _norm(norm, before), kind(), nn.Conv2d(before, behind, 3, stride, 1),
            _norm(norm, behind), kind(), nn.Conv2d(behind, behind, 3, 1, 1),
        )  # fmt: skip
        same = before == behind and stride == 1
        self.around = nn.Identity() if same else nn.Conv2d(before, behind, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.around(x) + self.body(x)


def preactivated(
    channels: int = 3, width: int = 16, outputs: int = 5, norm: str = "GroupNorm", act: str = "ReLU"
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 1, 1), Before(width, width, 2, norm, act),
        Before(width, 2 * width, 2, norm, act), Before(2 * width, 2 * width, 1, norm, act),
        _norm(norm, 2 * width), getattr(nn, act)(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(2 * width, outputs),
    )  # fmt: skip


class Phrases(nn.Module):
    """Convolutions over phrases of three, five and seven letters, and the largest of each over the text."""

    def __init__(
        self, vocabulary: int = 96, width: int = 24, outputs: int = 6, act: str = "ReLU",
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.looks = nn.ModuleList(nn.Conv1d(width, 2 * width, size) for size in (3, 5, 7))
        self.acts = nn.ModuleList(getattr(nn, act)() for _ in self.looks)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(6 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token(x).transpose(1, 2)
        seen = [
            act(look(x)).amax(2) for look, act in zip(self.looks, self.acts, strict=True)
        ]  # fmt: skip
        return self.head(self.drop(torch.cat(seen, 1)))


class Bagged(nn.Module):
    """The mean over the pairs of letters of a text, each pair a row of a table, and two layers behind it."""

    def __init__(
        self, buckets: int = 2048, width: int = 64, hidden: int = 128, outputs: int = 6, act: str = "ReLU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.pair = nn.Embedding(buckets, width)
        self.hidden, self.act = nn.Linear(width, hidden), getattr(nn, act)()
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        places = (97 * x[:, :-1] + x[:, 1:]) % self.pair.num_embeddings
        return self.head(self.act(self.hidden(self.pair(places).mean(1))))


class Translator(nn.Module):
    """Reads a row of letters, and writes another, letter by letter, while it looks back at what it read.

    A row holds what is read, and then what is to be written but one letter late.
    """

    def __init__(self, letters: int = 12, width: int = 48, length: int = 8) -> None:
        super().__init__()
        self.length = length
        self.token = nn.Embedding(letters + 1, width)
        self.read = nn.GRU(width, width, batch_first=True)
        self.write = nn.GRU(width, width, batch_first=True)
        self.query, self.mixed = nn.Linear(width, width), nn.Linear(2 * width, width)
        self.act, self.head = nn.Tanh(), nn.Linear(width, letters)

    def forward(self, x: Tensor) -> Tensor:
        read, state = self.read(self.token(x[:, : self.length]))
        written = self.write(self.token(x[:, self.length :]), state)[0]
        near = self.query(written) @ read.transpose(1, 2) / math.sqrt(read.shape[2])
        looked = torch.cat((written, near.softmax(2) @ read), 2)
        return self.head(self.act(self.mixed(looked)))


class Gate(nn.Module):
    """One half of a wide layer opens and closes the other, by what stands at all other places."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), nn.LayerNorm(2 * width)
        self.into, self.out = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)
        self.across = nn.Linear(length, length)
        nn.init.normal_(self.across.weight, std=0.02)
        nn.init.ones_(self.across.bias)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = functional.gelu(self.into(self.norm(x))).chunk(2, 2)
        gate = self.across(self.inner(gate).transpose(1, 2)).transpose(1, 2)
        return x + self.out(value * gate)


class Gating(nn.Module):
    """Such gates over the letters of a row, and the mean over its places."""

    def __init__(
        self, letters: int = 12, length: int = 24, width: int = 40, depth: int = 2, outputs: int = 6
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(letters, width)
        self.blocks = nn.Sequential(*(Gate(width, length) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.token(x))).mean(1))


class Repeated(nn.Module):
    """One block of attention, normalized behind, that a row and a sign before it go through some times."""

    def __init__(
        self, letters: int = 12, length: int = 24, width: int = 40, heads: int = 4, times: int = 3,
        outputs: int = 6,
    ) -> None:  # fmt: skip
        super().__init__()
        self.times = times
        self.token = nn.Embedding(letters, width)
        self.place = nn.Parameter(0.1 * torch.randn(1, length + 1, width))
        self.sign = nn.Parameter(0.1 * torch.randn(1, 1, width))
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.wide, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.act = nn.GELU()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.sign.expand(len(x), -1, -1), self.token(x)), 1) + self.place
        for _ in range(self.times):
            x = self.norms[0](x + self.look(x, x, x, need_weights=False)[0])
            x = self.norms[1](x + self.narrow(self.act(self.wide(x))))
        return self.head(x[:, 0])


class Tuned(nn.Module):
    """The slow waves of a line, each mixed over the channels by its own weights, and every point by itself."""

    def __init__(self, width: int, waves: int) -> None:
        super().__init__()
        self.waves = waves
        self.real = nn.Parameter(torch.randn(waves, width, width) / width)
        self.imaginary = nn.Parameter(torch.randn(waves, width, width) / width)
        self.near = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        slow = torch.fft.rfft(x)[..., : self.waves]
        mixed = torch.einsum("ncw,wcd->ndw", slow, torch.complex(self.real, self.imaginary))
        return self.near(x) + torch.fft.irfft(mixed, n=x.shape[2])


class Operator(nn.Module):
    """From one function on a line to another, through its slow waves."""

    def __init__(self, width: int = 20, depth: int = 3, waves: int = 12) -> None:
        super().__init__()
        self.lift = nn.Conv1d(1, width, 1)
        self.layers = nn.ModuleList(Tuned(width, waves) for _ in range(depth))
        self.acts = nn.ModuleList(nn.GELU() for _ in range(depth))
        self.out = nn.Sequential(
            nn.Conv1d(width, 2 * width, 1), nn.GELU(), nn.Conv1d(2 * width, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(x))
        return self.out(x)


class Forecaster(nn.Module):
    """Blocks that each explain what those before left unexplained of the past, and add to a forecast."""

    def __init__(
        self, past: int = 48, ahead: int = 12, width: int = 128, blocks: int = 3, act: str = "ReLU"
    ) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.bodies = nn.ModuleList(
            nn.Sequential(
                nn.Linear(past, width), kind(), nn.Linear(width, width), kind(),
                nn.Linear(width, width), kind(),
            )
            for _ in range(blocks)
        )  # fmt: skip
        self.back = nn.ModuleList(nn.Linear(width, past) for _ in range(blocks))
        self.ahead = nn.ModuleList(nn.Linear(width, ahead) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        told = []
        for body, back, ahead in zip(self.bodies, self.back, self.ahead, strict=True):
            seen = body(x)
            x = x - back(seen)
            told.append(ahead(seen))
        return torch.stack(told).sum(0)


NETS: dict[str, Callable[..., nn.Module]] = {
    "shuffled": shuffled,
    "pooled": pooled,
    "preactivated": preactivated,
    "phrases": Phrases,
    "bagged": Bagged,
    "translator": Translator,
    "gating": Gating,
    "repeated": Repeated,
    "operator": Operator,
    "forecaster": Forecaster,
    **tables.NETS,
}
