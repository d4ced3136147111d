"""Nets of the seventh set that was held out: looked at, and tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import tables


class Stepped(nn.Conv2d):
    """A convolution whose weights are one of seven steps apart for each channel; gradients pass by the steps."""

    def forward(self, input: Tensor) -> Tensor:
        size = self.weight.detach().abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-8) / 3
        rounded = (self.weight.detach() / size).round() * size
        weight = self.weight + (rounded - self.weight).detach()
        return functional.conv2d(input, weight, self.bias, self.stride, self.padding)


def coarse(
    channels: int = 1, width: int = 16, outputs: int = 6, norm: str = "BatchNorm2d", act: str = "ReLU",
    dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """Such convolutions between a first and a last layer of weights that are not rounded."""

    def behind(channels: int) -> list[nn.Module]:
        normed = {"BatchNorm2d": nn.BatchNorm2d(channels), "GroupNorm": nn.GroupNorm(4, channels)}
        return [normed.get(norm, nn.Identity()), getattr(nn, act)()]

    return nn.Sequential(
        nn.Conv2d(channels, width, 5, 2, 2), *behind(width),
        Stepped(width, 2 * width, 3, 1, 1), *behind(2 * width), nn.MaxPool2d(2),
        Stepped(2 * width, 2 * width, 3, 1, 1), *behind(2 * width),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(2 * width, outputs),
    )  # fmt: skip


class Refined(nn.Module):
    """Two convolutions around which the picture goes."""

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, 1, 1) for _ in range(2))
        self.act = getattr(nn, act)()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.act(self.first(x)))


def sharpening(width: int = 24, depth: int = 2, act: str = "ReLU") -> nn.Module:
    """A picture of twice the side: channels of the small one are dealt out as pixels of the large one."""
    return nn.Sequential(
        nn.Conv2d(1, width, 5, 1, 2), getattr(nn, act)(),
        *(Refined(width, act) for _ in range(depth)),
        nn.Conv2d(width, 4, 3, 1, 1), nn.PixelShuffle(2), nn.Flatten(),
    )  # fmt: skip


class Before(nn.Conv2d):
    """A convolution that sees the pixels above and to the left of each, and where `own` the pixel too."""

    def __init__(self, before: int, behind: int, size: int, own: bool) -> None:
        super().__init__(before, behind, size, padding=size // 2)
        seen = torch.ones(size, size)
        seen[size // 2, size // 2 + own :] = 0
        seen[size // 2 + 1 :] = 0
        self.seen: Tensor
        self.register_buffer("seen", seen)

    def forward(self, input: Tensor) -> Tensor:
        return functional.conv2d(input, self.weight * self.seen, self.bias, 1, self.padding)


class Raster(nn.Module):
    """Says of each pixel which grey it is by those before it, by convolutions that open and close each other."""

    def __init__(
        self, greys: int = 4, width: int = 24, depth: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.greys = greys
        self.first = Before(greys, width, 5, own=False)
        self.layers = nn.ModuleList(Before(width, 2 * width, 3, own=True) for _ in range(depth))
        self.back = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(depth))
        self.tanh, self.gate = nn.Tanh(), nn.Sigmoid()
        self.drop, self.head = nn.Dropout(dropout), nn.Conv2d(width, greys, 1)

    def forward(self, x: Tensor) -> Tensor:
        side = math.isqrt(x.shape[1])
        x = functional.one_hot(x, self.greys).float().transpose(1, 2).unflatten(2, (side, side))
        x = self.first(x)
        for layer, back in zip(self.layers, self.back, strict=True):
            what, much = layer(x).chunk(2, 1)
            x = x + back(self.drop(self.tanh(what) * self.gate(much)))
        return self.head(x.relu()).flatten(2).transpose(1, 2)


class Edges(nn.Module):
    """Looks from every point at its nearest ones, and keeps the largest of what it sees."""

    def __init__(self, before: int, behind: int, near: int, act: str) -> None:
        super().__init__()
        self.near = near
        self.look, self.act = nn.Linear(2 * before, behind), getattr(nn, act)()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            which = torch.cdist(x, x).topk(self.near, dim=2, largest=False)[1]
        others = x[torch.arange(len(x))[:, None, None], which]
        own = x[:, :, None].expand_as(others)
        return self.act(self.look(torch.cat((own, others - own), 3))).amax(2)


class Nearest(nn.Module):
    """Such layers over a cloud; who is near is asked anew of what each layer made."""

    def __init__(
        self, width: int = 32, outputs: int = 6, near: int = 8, act: str = "LeakyReLU", dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.first = Edges(3, width, near, act)
        self.second = Edges(width, width + width // 2, near, act)
        self.wide = nn.Linear(2 * width + width // 2, 4 * width)
        self.act, self.drop = getattr(nn, act)(), nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        seen = self.act(self.wide(torch.cat((first, self.second(first)), 2)))
        return self.head(self.drop(seen.amax(1)))


class Drifting(nn.Module):
    """A recurrent net whose state is a picture and whose gates are convolutions; the next picture of a film."""

    def __init__(self, width: int = 12, size: int = 3) -> None:
        super().__init__()
        self.width = width
        self.gates = nn.Conv2d(1 + width, 2 * width, size, padding=size // 2)
        self.fresh = nn.Conv2d(1 + width, width, size, padding=size // 2)
        self.tanh, self.gate = nn.Tanh(), nn.Sigmoid()
        self.head = nn.Conv2d(width + 1, 1, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.width, *x.shape[2:])
        for now in x.split(1, 1):
            keep, ask = self.gate(self.gates(torch.cat((now, state), 1))).chunk(2, 1)
            new = self.tanh(self.fresh(torch.cat((now, ask * state), 1)))
            state = state + keep * (new - state)
        return self.head(torch.cat((state, x[:, -1:]), 1)).flatten(1)


class Convolved(nn.Module):
    """Half a wide layer, attention, convolutions along time, half a wide layer; around each the input goes."""

    def __init__(self, width: int, heads: int, size: int, act: str) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.before, self.behind = (
            nn.Sequential(nn.Linear(width, 2 * width), getattr(nn, act)(), nn.Linear(2 * width, width))
            for _ in range(2)
        )  # fmt: skip
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.into = nn.Conv1d(width, 2 * width, 1)
        self.along = nn.Conv1d(width, width, size, padding=size // 2, groups=width)
        self.moments, self.act = nn.BatchNorm1d(width), getattr(nn, act)()
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.before(self.norms[0](x)) / 2
        seen = self.norms[1](x)
        x = x + self.look(seen, seen, seen, need_weights=False)[0]
        opened = functional.glu(self.into(self.norms[2](x).transpose(1, 2)), 1)
        x = x + self.out(self.act(self.moments(self.along(opened)))).transpose(1, 2)
        return self.norms[4](x + self.behind(self.norms[3](x)) / 2)


class Conformer(nn.Module):
    """Such blocks over a sound of a few bands; of every third step, which letter it is, or none."""

    def __init__(
        self, bands: int = 4, width: int = 40, outputs: int = 9, depth: int = 1, act: str = "SiLU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(bands, width, 7, 3, 3), getattr(nn, act)())
        self.place = nn.Parameter(0.1 * torch.randn(24, width))
        self.blocks = nn.Sequential(*(Convolved(width, 4, 7, act) for _ in range(depth)))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).transpose(1, 2) + self.place))


class Tagger(nn.Module):
    """Reads a line from both ends; how likely each tag is behind each other one, at every word."""

    def __init__(
        self, words: int = 600, width: int = 32, hidden: int = 32, tags: int = 8, dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.word = nn.Embedding(words, width)
        self.read = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(2 * hidden, tags)
        self.behind = nn.Parameter(torch.zeros(tags, tags))

    def forward(self, x: Tensor) -> Tensor:
        told = self.head(self.drop(self.read(self.word(x))[0]))[:, :, None]
        return torch.cat(
            (told[:, :1].expand(-1, -1, told.shape[3], -1), told[:, 1:] + self.behind), 1
        )


class Nested(nn.Module):
    """Reads pictures, and joins them two by two as signs between them say, by gates that keep either side."""

    def __init__(
        self, leaves: int = 4, signs: int = 4, width: int = 64, outputs: int = 10, act: str = "ReLU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.leaves, self.width = leaves, width
        self.read = nn.Sequential(
            nn.Linear(64, 2 * width), getattr(nn, act)(), nn.Linear(2 * width, 2 * width)
        )
        self.join = nn.Linear(2 * width + signs, 5 * width)
        nn.init.zeros_(self.join.bias)
        self.tanh, self.gate = nn.Tanh(), nn.Sigmoid()
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        cut = 64 * self.leaves
        hidden, memory = self.read(x[:, :cut].unflatten(1, (-1, 64))).chunk(2, 2)
        signs, first = x[:, cut:].unflatten(1, (self.leaves - 1, -1)), 0
        while hidden.shape[1] > 1:
            many = hidden.shape[1] // 2
            both = torch.cat(
                (hidden.unflatten(1, (many, 2)).flatten(2), signs[:, first : first + many]), 2
            )
            left, right, into, out, new = self.join(both).chunk(5, 2)
            sides = memory.unflatten(1, (many, 2))
            memory = self.gate(left) * sides[:, :, 0] + self.gate(right) * sides[:, :, 1]
            memory = memory + self.gate(into) * self.tanh(new)
            hidden, first = self.gate(out) * self.tanh(memory), first + many
        return self.head(hidden[:, 0])


class Retained(nn.Module):
    """Looks back at what was, without weighing it against the rest; each head forgets at a pace of its own."""

    def __init__(self, width: int, heads: int, length: int, act: str) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mixed, self.open = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.even, self.out = nn.GroupNorm(heads, width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.act = getattr(nn, act)()
        far = torch.arange(length)[:, None] - torch.arange(length)
        pace = 1 - 2.0 ** -torch.arange(1.0, heads + 1)[:, None, None]
        self.fade: Tensor
        self.register_buffer("fade", torch.where(far >= 0, pace ** far.clamp_min(0), 0.0))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norms[0](x)
        parts = self.mixed(seen).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts
        near = query @ key.transpose(2, 3) / math.sqrt(query.shape[3]) * self.fade
        told = (near @ value).transpose(1, 2).flatten(2)
        told = self.even(told.flatten(0, 1)).view_as(told)
        x = x + self.out(self.act(self.open(seen)) * told)
        return x + self.narrow(self.act(self.wide(self.norms[1](x))))


class Fading(nn.Module):
    """A language model of such blocks."""

    def __init__(
        self, vocabulary: int = 39, width: int = 56, depth: int = 2, heads: int = 4, length: int = 30,
        act: str = "SiLU",
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token.weight, std=0.3)
        self.blocks = nn.Sequential(*(Retained(width, heads, length, act) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.token(x))))


class Spelled(nn.Module):
    """Reads the letters of each word, then the words; what counts of either it chooses by itself."""

    def __init__(
        self, letters: int = 28, width: int = 32, outputs: int = 6, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.letter = nn.Embedding(letters, 16)
        self.spell = nn.GRU(16, width, batch_first=True)
        self.read = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.asks = nn.ModuleList(nn.Linear(wide, wide) for wide in (width, 2 * width))
        self.counts = nn.ModuleList(nn.Linear(wide, 1, bias=False) for wide in (width, 2 * width))
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        words = self._chosen(0, self.spell(self.letter(x.flatten(0, 1)))[0])
        told = self._chosen(1, self.read(words.unflatten(0, (len(x), -1)))[0])
        return self.head(self.drop(told))

    def _chosen(self, number: int, x: Tensor) -> Tensor:
        much = self.counts[number](self.asks[number](x).tanh()).softmax(1)
        return (much * x).sum(1)


NETS: dict[str, Callable[..., nn.Module]] = {
    "coarse": coarse,
    "sharpening": sharpening,
    "raster": Raster,
    "nearest": Nearest,
    "drifting": Drifting,
    "conformer": Conformer,
    "tagger": Tagger,
    "nested": Nested,
    "fading": Fading,
    "spelled": Spelled,
    **tables.NETS,
}
