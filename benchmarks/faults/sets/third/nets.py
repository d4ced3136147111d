"""Nets of the third set that was held out: looked at, and tuned on since."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import tables


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "BatchNorm2d" else nn.Identity()


class Branching(nn.Module):
    """Convolutions of three sizes and a pooling beside each other, what they make concatenated."""

    def __init__(self, before: int, each: int, norm: str, act: str) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.point = nn.Conv2d(before, each, 1)
        self.near = nn.Sequential(
            nn.Conv2d(before, each, 1), kind(), nn.Conv2d(each, each, 3, 1, 1)
        )
        self.far = nn.Sequential(nn.Conv2d(before, each, 1), kind(), nn.Conv2d(each, each, 5, 1, 2))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(before, each, 1))
        self.norm, self.act = _norm(norm, 4 * each), kind()

    def forward(self, x: Tensor) -> Tensor:
        parts = (self.point(x), self.near(x), self.far(x), self.pooled(x))
        return self.act(self.norm(torch.cat(parts, 1)))


def branches(
    channels: int = 1, width: int = 16, outputs: int = 10, norm: str = "BatchNorm2d", act: str = "ReLU",
    dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """An inception net of two such blocks."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2, 1), _norm(norm, width), getattr(nn, act)(),
        Branching(width, width // 2, norm, act), nn.MaxPool2d(2),
        Branching(2 * width, width, norm, act), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(4 * width, outputs),
    )  # fmt: skip


class Modern(nn.Module):
    """A convolution of each channel apart, then a wide layer at every pixel, scaled, around which the input goes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.apart = nn.Conv2d(width, width, 5, 1, 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm(self.apart(x).permute(0, 2, 3, 1))
        seen = self.scale * self.narrow(functional.gelu(self.wide(seen)))
        return x + seen.permute(0, 3, 1, 2)


def modern(channels: int = 3, width: int = 32, depth: int = 2, outputs: int = 6) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, width, 2, 2), *(Modern(width) for _ in range(depth)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(width), nn.Linear(width, outputs),
    )  # fmt: skip


class Grouped(nn.Module):
    """A bottleneck whose middle convolution sees its channels in groups."""

    def __init__(self, before: int, behind: int, stride: int, groups: int, act: str) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.body = nn.Sequential(
            nn.Conv2d(before, behind, 1, bias=False), nn.BatchNorm2d(behind), kind(),
            nn.Conv2d(behind, behind, 3, stride, 1, groups=groups, bias=False),
            nn.BatchNorm2d(behind), kind(),
            nn.Conv2d(behind, behind, 1, bias=False), nn.BatchNorm2d(behind),
        )  # fmt: skip
        self.around = nn.Sequential(
            nn.Conv2d(before, behind, 1, stride, bias=False), nn.BatchNorm2d(behind)
        )
        self.act = kind()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.around(x))


def grouped(
    channels: int = 3, width: int = 16, outputs: int = 6, groups: int = 4, act: str = "ReLU"
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), getattr(nn, act)(),
        Grouped(width, 2 * width, 2, groups, act), Grouped(2 * width, 4 * width, 2, groups, act),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, outputs),
    )  # fmt: skip


class Turning(nn.Module):
    """Causal attention whose places turn queries and keys, and a wide layer, each normalized before."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        half = width // heads // 2
        self.angle: Tensor
        self.register_buffer(
            "angle", torch.arange(length)[:, None] * 1000.0 ** (-torch.arange(half) / half)
        )

    def turned(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        cos, sin = self.angle.cos(), self.angle.sin()
        return torch.cat((first * cos - second * sin, first * sin + second * cos), -1)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.mixed(self.norms[0](x)).unflatten(2, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(
            self.turned(query), self.turned(key), value, is_causal=True
        )
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.wide(self.norms[1](x))


class Speaker(nn.Module):
    """A language model whose table of letters is its last layer, too."""

    def __init__(
        self, vocabulary: int = 96, width: int = 48, depth: int = 2, heads: int = 4, length: int = 40
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token.weight, std=0.1)
        self.blocks = nn.Sequential(*(Turning(width, heads, length) for _ in range(depth)))
        self.norm = nn.RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.norm(self.blocks(self.token(x))), self.token.weight)


class Graph(nn.Module):
    """Graph convolutions over a table of links and kinds, and the mean over the atoms."""

    def __init__(
        self, kinds: int = 4, width: int = 64, depth: int = 3, outputs: int = 1, act: str = "ReLU"
    ) -> None:
        super().__init__()
        self.first = nn.Linear(kinds, width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.near = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.acts = nn.ModuleList(getattr(nn, act)() for _ in range(depth))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        links, kinds = x[:, :, : x.shape[1]], x[:, :, x.shape[1] :]
        x = self.first(kinds)
        for own, near, act in zip(self.own, self.near, self.acts, strict=True):
            x = act(own(x) + near(links @ x))
        return self.head(x.mean(1))


class Peaks(nn.Module):
    """Two convolutions over a line, each normalized in groups before, around which the input goes."""

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(4, width), getattr(nn, act)(), nn.Conv1d(width, width, 5, 1, 2),
            nn.GroupNorm(4, width), getattr(nn, act)(), nn.Conv1d(width, width, 5, 1, 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def spectral(
    width: int = 24, depth: int = 2, length: int = 128, outputs: int = 6, act: str = "SiLU"
) -> nn.Module:  # fmt: skip
    return nn.Sequential(
        nn.Conv1d(1, width, 9, 2, 4), *(Peaks(width, act) for _ in range(depth)), nn.MaxPool1d(4),
        nn.Flatten(), nn.Linear(width * length // 8, outputs),
    )  # fmt: skip


class Linearly(nn.Module):
    """Attention by features of queries and keys, whose cost grows as the row does, and a wide layer."""

    def __init__(self, width: int, heads: int, post: bool) -> None:
        super().__init__()
        self.heads, self.post = heads, post
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def attended(self, x: Tensor) -> Tensor:
        split = (layer(x).unflatten(2, (self.heads, -1)) for layer in (self.query, self.key))
        query, key = (functional.elu(part) + 1 for part in split)
        value = self.value(x).unflatten(2, (self.heads, -1))
        known = torch.einsum("nthd,nthe->nhde", key, value)
        weight = torch.einsum("nthd,nhd->nth", query, key.sum(1))[..., None]
        return self.out((torch.einsum("nthd,nhde->nthe", query, known) / weight).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            x = self.norms[0](x + self.attended(x))
            return self.norms[1](x + self.wide(x))
        x = x + self.attended(self.norms[0](x))
        return x + self.wide(self.norms[1](x))


class Kernels(nn.Module):
    """A transformer of such attention, which says something of every letter of a row."""

    def __init__(
        self, vocabulary: int = 10, width: int = 48, depth: int = 2, heads: int = 4, outputs: int = 8,
        post: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(Linearly(width, heads, post) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.token(x))))


class Decaying(nn.Module):
    """A gated sum over the past of each channel, which fades at a rate of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.rate = nn.Parameter(torch.linspace(-1.0, 4.0, width))

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.into(self.norm(x)).chunk(2, -1)
        step = torch.arange(x.shape[1])
        ago = (step[:, None] - step)[..., None]
        fading = self.rate.sigmoid() ** ago.clamp_min(0) * (ago >= 0)
        kept = torch.einsum("tsc,nsc->ntc", fading, value) * (1 - self.rate.sigmoid())
        return x + self.out(kept * functional.silu(gate))


class Decays(nn.Module):
    """A state space of such sums over a line of numbers, and the mean over its steps."""

    def __init__(self, width: int = 32, depth: int = 2, outputs: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(1, width)
        self.layers = nn.Sequential(*(Decaying(width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.first(x.transpose(1, 2)))
        return self.head(self.norm(x).mean(1))


NETS: dict[str, Callable[..., nn.Module]] = {
    "branches": branches,
    "modern": modern,
    "grouped": grouped,
    "speaker": Speaker,
    "graph": Graph,
    "spectral": spectral,
    "kernels": Kernels,
    "decays": Decays,
    **tables.NETS,
}
