"""Nets of the fifth set that was held out: looked at, and tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import tables


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "BatchNorm2d" else nn.Identity()


class Fire(nn.Module):
    """A narrow layer at every pixel, and behind it two wide ones beside each other."""

    def __init__(self, before: int, narrow: int, wide: int, norm: str, act: str) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.narrow, self.first = nn.Conv2d(before, narrow, 1), kind()
        self.near, self.far = nn.Conv2d(narrow, wide, 1), nn.Conv2d(narrow, wide, 3, 1, 1)
        self.norm, self.act = _norm(norm, 2 * wide), kind()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.narrow(x))
        return self.act(self.norm(torch.cat((self.near(x), self.far(x)), 1)))


def fires(
    channels: int = 3, width: int = 12, outputs: int = 6, norm: str = "none", act: str = "ReLU",
    dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """Such layers without any dense one: the last convolution's means are the logits."""
    return nn.Sequential(
        nn.Conv2d(channels, 2 * width, 3, 1, 1), _norm(norm, 2 * width), getattr(nn, act)(),
        nn.MaxPool2d(2), Fire(2 * width, width, 2 * width, norm, act),
        Fire(4 * width, width, 2 * width, norm, act), nn.MaxPool2d(2),
        Fire(4 * width, 2 * width, 4 * width, norm, act), nn.Dropout(dropout),
        nn.Conv2d(8 * width, outputs, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class Inverted(nn.Module):
    """Wide, then each channel apart, then narrow with nothing bent, around which the input goes."""

    def __init__(self, before: int, behind: int, stride: int, times: int, act: str) -> None:
        super().__init__()
        wide, kind = times * before, getattr(nn, act)
        self.body = nn.Sequential(
            nn.Conv2d(before, wide, 1, bias=False), nn.BatchNorm2d(wide), kind(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), kind(),
            nn.Conv2d(wide, behind, 1, bias=False), nn.BatchNorm2d(behind),
        )  # fmt: skip
        self.same = before == behind and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def mobile(
    channels: int = 1, width: int = 12, outputs: int = 8, times: int = 4, act: str = "ReLU6"
) -> nn.Module:
    kind = getattr(nn, act)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), kind(),
        Inverted(width, width, 1, times, act), Inverted(width, 2 * width, 2, times, act),
        Inverted(2 * width, 2 * width, 1, times, act),
        nn.Conv2d(2 * width, 6 * width, 1, bias=False), nn.BatchNorm2d(6 * width), kind(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6 * width, outputs),
    )  # fmt: skip


def _short(x: Tensor) -> Tensor:
    """Return vectors of the same direction that are shorter than one."""
    square = (x**2).sum(-1, keepdim=True)
    return x * square.add(1e-8).sqrt() / (1 + square)


class Capsules(nn.Module):
    """Vectors that agree about vectors behind them; how long these are says how likely a class is."""

    def __init__(
        self, channels: int = 1, width: int = 24, kinds: int = 4, outputs: int = 8, side: int = 16,
        act: str = "ReLU",
    ) -> None:  # fmt: skip
        super().__init__()
        self.first, self.act = nn.Conv2d(channels, width, 5, 2), getattr(nn, act)()
        self.parts = nn.Conv2d(width, 8 * kinds, 3, 2)
        left = ((side - 5) // 2 + 1 - 3) // 2 + 1
        self.told = nn.Parameter(0.1 * torch.randn(kinds * left * left, outputs, 8, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = self.parts(self.act(self.first(x))).unflatten(1, (-1, 8))
        x = _short(x.flatten(3).transpose(2, 3).flatten(1, 2))
        said = torch.einsum("bpi,poij->bopj", x, self.told)
        trust, heard = torch.zeros_like(said[..., 0]), said.mean(2)
        for _ in range(3):
            heard = _short((trust.softmax(1)[..., None] * said).sum(2))
            trust = trust + (said * heard[:, :, None]).sum(3)
        return (heard**2).sum(2).add(1e-8).sqrt()


class Looking(nn.Module):
    """A gated causal convolution over every so many steps; it tells something, and hands the rest on."""

    def __init__(self, width: int, far: int, act: str) -> None:
        super().__init__()
        self.far = far
        self.both = nn.Conv1d(width, 2 * width, 2, dilation=far)
        self.act, self.gate = getattr(nn, act)(), nn.Sigmoid()
        self.out, self.told = nn.Conv1d(width, width, 1), nn.Conv1d(width, 2 * width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, gate = self.both(functional.pad(x, (self.far, 0))).chunk(2, 1)
        seen = self.act(value) * self.gate(gate)
        return x + self.out(seen), self.told(seen)


class Listening(nn.Module):
    """Such layers over a signal, each looking twice as far back; what all of them tell is added up."""

    def __init__(
        self, width: int = 16, depth: int = 5, outputs: int = 5, act: str = "Tanh", pooled: bool = True
    ) -> None:  # fmt: skip
        super().__init__()
        self.pooled = pooled
        self.first = nn.Conv1d(1, width, 1)
        self.layers = nn.ModuleList(Looking(width, 2**number, act) for number in range(depth))
        self.bent, self.mixed = nn.ReLU(), nn.Conv1d(2 * width, 2 * width, 1)
        self.act, self.head = nn.ReLU(), nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x, all_told = self.first(x), []
        for layer in self.layers:
            x, told = layer(x)
            all_told.append(told)
        x = self.act(self.mixed(self.bent(torch.stack(all_told).sum(0))))
        return self.head(x.mean(2) if self.pooled else x[:, :, -1])


class Letters(nn.Module):
    """A language model of 2003: the last letters beside each other, one wide layer, and a way around it."""

    def __init__(
        self, vocabulary: int = 96, width: int = 16, back: int = 8, hidden: int = 128, act: str = "Tanh"
    ) -> None:  # fmt: skip
        super().__init__()
        self.back = back
        self.token = nn.Embedding(vocabulary, width)
        self.hidden, self.act = nn.Linear(back * width, hidden), getattr(nn, act)()
        self.head = nn.Linear(hidden, vocabulary)
        self.around = nn.Linear(back * width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(self.token(x), (0, 0, self.back - 1, 0))
        x = x.unfold(1, self.back, 1).flatten(2)
        return self.head(self.act(self.hidden(x))) + self.around(x)


class Abreast(nn.Module):
    """Attention and a wide layer beside each other, of which all heads share keys and values.

    How far back a letter lies is taken off what it is looked at with, each head at its own slope.
    """

    def __init__(self, width: int, heads: int, length: int, act: str) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.shared = nn.Linear(width, 2 * (width // heads))
        self.out = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act = getattr(nn, act)()
        place = torch.arange(length)
        back = (place[:, None] - place).float()
        slope = 2.0 ** -torch.arange(1, heads + 1)
        self.far: Tensor
        hidden = torch.where(back < 0, -math.inf, 0.0)
        self.register_buffer("far", hidden - back.clamp_min(0) * slope[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm(x)
        query = self.query(seen).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = self.shared(seen)[:, None].chunk(2, 3)
        near = query @ key.transpose(2, 3) / math.sqrt(query.shape[3]) + self.far
        looked = (near.softmax(3) @ value).transpose(1, 2).flatten(2)
        return x + self.out(looked) + self.narrow(self.act(self.wide(seen)))


class Talking(nn.Module):
    """A language model of such blocks."""

    def __init__(
        self, vocabulary: int = 96, width: int = 40, depth: int = 2, heads: int = 4, length: int = 40,
        act: str = "GELU",
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token.weight, std=0.1)
        self.blocks = nn.Sequential(*(Abreast(width, heads, length, act) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.token(x))))


class Peeping(nn.Module):
    """A recurrent net whose gates see its memory, and which says something of every letter."""

    def __init__(self, vocabulary: int = 96, width: int = 40, outputs: int = 5) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.seen, self.before = (
            nn.Linear(width, 4 * width),
            nn.Linear(width, 4 * width, bias=False),
        )
        self.peep = nn.Parameter(0.1 * torch.randn(3, width))
        self.act, self.head = nn.Tanh(), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.seen(self.token(x))
        state = memory = seen.new_zeros(len(x), self.peep.shape[1])
        told = []
        for letter in seen.unbind(1):
            into, keep, new, out = (letter + self.before(state)).chunk(4, 1)
            into = (into + self.peep[0] * memory).sigmoid()
            keep = (keep + self.peep[1] * memory + 1).sigmoid()
            memory = keep * memory + into * new.tanh()
            state = (out + self.peep[2] * memory).sigmoid() * self.act(memory)
            told.append(state)
        return self.head(torch.stack(told, 1))


class Hops(nn.Module):
    """Looks some times at what it was told, for what it was asked: who is where at last?"""

    def __init__(
        self, words: int = 14, told: int = 12, width: int = 32, hops: int = 3, outputs: int = 8
    ) -> None:
        super().__init__()
        self.asked, self.keys = nn.Embedding(words, width), nn.Embedding(words, width)
        self.values = nn.Embedding(words, width)
        self.when = nn.Parameter(0.1 * torch.randn(2, told, width))
        self.turns = nn.ModuleList(nn.Linear(width, width) for _ in range(hops))
        self.head = nn.Linear(width, outputs)
        for table in (self.asked, self.keys, self.values):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        state, told = self.asked(x[:, -1]), x[:, :-1].unflatten(1, (-1, 2))
        keys = self.keys(told).sum(2) + self.when[0]
        values = self.values(told).sum(2) + self.when[1]
        for turn in self.turns:
            near = (keys @ state[:, :, None])[:, :, 0].softmax(1)
            state = turn(state) + (near[:, None] @ values)[:, 0]
        return self.head(state)


NETS: dict[str, Callable[..., nn.Module]] = {
    "fires": fires,
    "mobile": mobile,
    "capsules": Capsules,
    "listening": Listening,
    "letters": Letters,
    "talking": Talking,
    "peeping": Peeping,
    "hops": Hops,
    **tables.NETS,
}
