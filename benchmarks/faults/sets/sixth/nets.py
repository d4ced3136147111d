"""Nets of the sixth set that was held out: looked at, and tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import tables


class Window(nn.Module):
    """Attention within squares of four by four places, and a wide layer, each normalized before.

    Every other such block sees squares that are moved by two; what leaves at one side comes in at the other.
    """

    def __init__(self, width: int, heads: int, by: int, act: str) -> None:
        super().__init__()
        self.heads, self.by = heads, by
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.near = nn.Parameter(torch.zeros(heads, 16, 16))
        self.wide, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.act = getattr(nn, act)()

    def forward(self, x: Tensor) -> Tensor:
        many, high, wide, width = x.shape
        seen = self.norms[0](x).roll((-self.by, -self.by), (1, 2))
        seen = seen.reshape(many, high // 4, 4, wide // 4, 4, width).transpose(2, 3)
        parts = self.mixed(seen.reshape(-1, 16, width)).unflatten(2, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        near = query @ key.transpose(2, 3) / math.sqrt(query.shape[3]) + self.near
        looked = self.out((near.softmax(3) @ value).transpose(1, 2).flatten(2))
        looked = looked.view(many, high // 4, wide // 4, 4, 4, width).transpose(2, 3)
        x = x + looked.reshape(many, high, wide, width).roll((self.by, self.by), (1, 2))
        return x + self.narrow(self.act(self.wide(self.norms[1](x))))


class Windows(nn.Module):
    """Such blocks over pieces of a picture, then fewer and wider pieces, and the mean over them."""

    def __init__(
        self, channels: int = 4, width: int = 32, outputs: int = 6, heads: int = 4, act: str = "GELU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.pieces = nn.Conv2d(channels, width, 2, 2)
        self.fine = nn.Sequential(*(Window(width, heads, by, act) for by in (0, 2)))
        self.before, self.merge = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width)
        self.coarse = Window(2 * width, heads, 0, act)
        self.norm, self.head = nn.LayerNorm(2 * width), nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fine(self.pieces(x).permute(0, 2, 3, 1))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)
        x = self.coarse(self.merge(self.before(x)))
        return self.head(self.norm(x).mean((1, 2)))


class Straightened(nn.Module):
    """A small net says how to move, turn and enlarge a picture, and another says what it then shows."""

    def __init__(
        self, width: int = 20, hidden: int = 80, outputs: int = 10, act: str = "ReLU"
    ) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.look = nn.Sequential(
            nn.Conv2d(1, width, 5, 2), kind(), nn.Conv2d(width, width, 3, 2), kind(), nn.Flatten(),
            nn.Linear(9 * width, 32), kind(),
        )  # fmt: skip
        self.turn = nn.Linear(32, 6)
        nn.init.zeros_(self.turn.weight)
        self.turn.bias.data = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, 1, 1), kind(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, 1, 1), kind(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(18 * width, hidden), kind(),
        )  # fmt: skip
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        turn = self.turn(self.look(x)).view(-1, 2, 3)
        grid = functional.affine_grid(turn, [len(x), 1, 12, 12], align_corners=False)
        return self.head(self.body(functional.grid_sample(x, grid, align_corners=False)))


class Turned(nn.Conv2d):
    """A convolution that looks in four directions at once; of what it sees, `seen` directions are told apart."""

    def __init__(self, before: int, behind: int, size: int, seen: int = 4) -> None:
        super().__init__(seen * before, behind, size, padding=size // 2)
        self.seen = seen

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.unflatten(1, (-1, self.seen))
        each = [weight.rot90(turn, (3, 4)).roll(turn, 2) for turn in range(4)]
        weight = torch.stack(each, 1).flatten(0, 1).flatten(1, 2)
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        return functional.conv2d(input, weight, bias, padding=self.padding)


def turnproof(
    channels: int = 1, width: int = 8, outputs: int = 5, norm: str = "GroupNorm", act: str = "ReLU"
) -> nn.Module:  # fmt: skip
    """A net of such convolutions, to which a turned picture is the same."""

    def behind(channels: int) -> list[nn.Module]:
        normed = nn.GroupNorm(4, channels) if norm == "GroupNorm" else nn.Identity()
        apart = nn.Unflatten(1, (channels, 4))
        return [apart, normed, nn.Flatten(1, 2), getattr(nn, act)(), nn.MaxPool2d(2)]

    return nn.Sequential(
        Turned(channels, width, 5, 1), *behind(width),
        Turned(width, 2 * width, 3), *behind(2 * width),
        Turned(2 * width, 2 * width, 3), *behind(2 * width)[:-1],
        nn.Unflatten(1, (2 * width, 4)), nn.MaxPool3d((4, 1, 1)), nn.AdaptiveAvgPool3d(1),
        nn.Flatten(), nn.Linear(2 * width, outputs),
    )  # fmt: skip


class Automaton(nn.Module):
    """Every cell of a grid changes by what is about it, all by one rule, some times."""

    def __init__(
        self, channels: int = 2, width: int = 16, hidden: int = 48, times: int = 7, act: str = "ReLU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.times = times
        self.first = nn.Conv2d(channels, width, 1)
        self.look, self.act = nn.Conv2d(width + channels, hidden, 3, 1, 1), getattr(nn, act)()
        self.change = nn.Conv2d(hidden, width, 1)
        nn.init.zeros_(self.change.weight)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        state = self.first(x)
        for _ in range(self.times):
            state = state + self.change(self.act(self.look(torch.cat((state, x), 1))))
        return self.head(state).flatten(1)


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "GroupNorm":
        return nn.GroupNorm(4, channels)
    return nn.BatchNorm2d(channels) if kind == "BatchNorm2d" else nn.Identity()


class Atrous(nn.Module):
    """Says of every pixel what it is part of, by convolutions of three reaches and the mean over the picture."""

    def __init__(self, width: int = 16, norm: str = "BatchNorm2d", act: str = "ReLU") -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, 1, 1), _norm(norm, width), kind(),
            nn.Conv2d(width, width, 3, 1, 1), _norm(norm, width), kind(),
        )  # fmt: skip
        self.reach = nn.ModuleList(nn.Conv2d(width, width, 3, 1, far, far) for far in (1, 2, 4))
        self.whole = nn.Conv2d(width, width, 1)
        self.mixed = nn.Sequential(
            _norm(norm, 4 * width), kind(), nn.Conv2d(4 * width, width, 1), _norm(norm, width), kind()
        )  # fmt: skip
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        whole = self.whole(x.mean((2, 3), keepdim=True)).expand_as(x)
        seen = [*(look(x) for look in self.reach), whole]
        return self.head(self.mixed(torch.cat(seen, 1))).flatten(1)


class Bands(nn.Module):
    """Filters of a sound of which nothing is learned but where each band begins and how wide it is."""

    def __init__(self, many: int, size: int) -> None:
        super().__init__()
        edges = torch.linspace(0.01, 0.45, many + 1)
        self.low, self.wide = nn.Parameter(edges[:-1].clone()), nn.Parameter(edges.diff())
        self.place: Tensor
        self.window: Tensor
        self.register_buffer("place", torch.arange(size) - size // 2)
        self.register_buffer("window", torch.hamming_window(size, periodic=False))

    def forward(self, x: Tensor) -> Tensor:
        low, wide = self.low.abs()[:, None], self.wide.abs()[:, None] + 1e-3
        high = low + wide
        band = high * (2 * high * self.place).sinc() - low * (2 * low * self.place).sinc()
        filters = (band / wide * self.window)[:, None]
        return functional.conv1d(x, filters, padding=len(self.place) // 2).abs()


def sincs(
    many: int = 20, width: int = 24, outputs: int = 6, norm: str = "BatchNorm1d", act: str = "LeakyReLU"
) -> nn.Module:  # fmt: skip
    """Such filters, and convolutions over what passes them."""

    def behind(channels: int) -> list[nn.Module]:
        normed = nn.BatchNorm1d(channels) if norm == "BatchNorm1d" else nn.Identity()
        return [normed, getattr(nn, act)()]

    return nn.Sequential(
        Bands(many, 33), nn.AvgPool1d(4), *behind(many),
        nn.Conv1d(many, width, 5), nn.MaxPool1d(2), *behind(width),
        nn.Conv1d(width, width, 5), *behind(width), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(width, outputs),
    )  # fmt: skip


def electrodes(
    places: int = 8, width: int = 8, outputs: int = 4, dropout: float = 0.25, act: str = "ELU"
) -> nn.Module:
    """Filters in time, for each of them filters over the places, then in time again; 64 values long."""
    kind, wide = getattr(nn, act), 2 * width
    return nn.Sequential(
        nn.Unflatten(1, (1, places)), nn.Conv2d(1, width, (1, 15), 1, (0, 7), bias=False),
        nn.BatchNorm2d(width), nn.Conv2d(width, wide, (places, 1), groups=width, bias=False),
        nn.BatchNorm2d(wide), kind(), nn.AvgPool2d((1, 4)), nn.Dropout(dropout),
        nn.Conv2d(wide, wide, (1, 7), 1, (0, 3), groups=wide, bias=False),
        nn.Conv2d(wide, wide, 1, bias=False), nn.BatchNorm2d(wide), kind(), nn.AvgPool2d((1, 4)),
        nn.Dropout(dropout), nn.Flatten(), nn.Linear(4 * wide, outputs),
    )  # fmt: skip


class Quasi(nn.Module):
    """Gates that see two letters and no state; the state is a running mean that they open and close."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seen = nn.Conv1d(width, 3 * width, 2)
        self.act, self.gate = nn.Tanh(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        seen = self.seen(functional.pad(x.transpose(1, 2), (1, 0))).transpose(1, 2)
        new, keep, out = seen.chunk(3, 2)
        new, keep = self.act(new), self.gate(keep)
        fresh, state, told = (1 - keep) * new, torch.zeros_like(new[:, 0]), []
        for place, kept in enumerate(keep.unbind(1)):
            state = kept * state + fresh[:, place]
            told.append(state)
        return self.gate(out) * torch.stack(told, 1)


class Quasis(nn.Module):
    """A language model of such layers."""

    def __init__(self, vocabulary: int = 128, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.layers = nn.Sequential(*(Quasi(width) for _ in range(depth)))
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.token(x)))


class Synthesized(nn.Module):
    """Attention by how far places are from each other, whatever stands there, and a wide layer."""

    def __init__(self, width: int, heads: int, length: int, act: str) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.far = nn.Parameter(torch.randn(heads, 2 * length - 1))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act = getattr(nn, act)()
        place = torch.arange(length)
        self.apart: Tensor
        self.register_buffer("apart", place[:, None] - place + length - 1)

    def forward(self, x: Tensor) -> Tensor:
        value = self.value(self.norms[0](x)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        looked = self.far[:, self.apart].softmax(2) @ value
        x = x + self.out(looked.transpose(1, 2).flatten(2))
        return x + self.narrow(self.act(self.wide(self.norms[1](x))))


class Filling(nn.Module):
    """Says which letters were at the blanks of a line, as many in each, by such blocks."""

    def __init__(
        self, vocabulary: int = 97, width: int = 48, depth: int = 2, heads: int = 6, length: int = 36,
        act: str = "GELU",
    ) -> None:  # fmt: skip
        super().__init__()
        self.blank = vocabulary - 1
        self.token = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token.weight, std=0.3)
        blocks = (Synthesized(width, heads, length, act) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm(self.blocks(self.token(x)))
        return self.head(seen[x == self.blank]).unflatten(0, (len(x), -1))


class Rewriting(nn.Module):
    """A transformer that reads a row, and one that looks at what it read while it writes another.

    A row holds `read` letters, and then what is to be written, but one letter late.
    """

    def __init__(
        self, vocabulary: int = 48, width: int = 48, read: int = 27, write: int = 10, depth: int = 1,
        before: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.read = read
        self.token = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token.weight, std=0.3)
        self.place = nn.Parameter(0.1 * torch.randn(read + write, width))
        how = {"dropout": 0.0, "batch_first": True, "norm_first": before}
        reader = nn.TransformerEncoderLayer(width, 4, 2 * width, **how)
        self.reader = nn.TransformerEncoder(reader, depth, enable_nested_tensor=False)
        writer = nn.TransformerDecoderLayer(width, 4, 2 * width, **how)
        self.writer = nn.TransformerDecoder(writer, depth, nn.LayerNorm(width))
        self.head = nn.Linear(width, vocabulary)
        self.later: Tensor
        self.register_buffer("later", torch.ones(write, write, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.token(x) + self.place
        seen = self.reader(x[:, : self.read])
        return self.head(self.writer(x[:, self.read :], seen, tgt_mask=self.later))


NETS: dict[str, Callable[..., nn.Module]] = {
    "windows": Windows,
    "straightened": Straightened,
    "turnproof": turnproof,
    "automaton": Automaton,
    "atrous": Atrous,
    "sincs": sincs,
    "electrodes": electrodes,
    "quasis": Quasis,
    "filling": Filling,
    "rewriting": Rewriting,
    **tables.NETS,
}
