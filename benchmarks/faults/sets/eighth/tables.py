"""Nets over tables, sets, graphs and places of the eighth set that was held out, and their losses; tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def _chain(sizes: tuple[int, ...], act: str) -> nn.Sequential:
    """Return linear layers of these sizes, bent between, and nothing behind the last."""
    layers: list[nn.Module] = []
    for before, behind in pairwise(sizes):
        layers += [nn.Linear(before, behind), getattr(nn, act)()]
    return nn.Sequential(*layers[:-1])


class Around(nn.Module):
    """What some words have in common, and how well another goes between them."""

    def __init__(
        self, words: int = 600, width: int = 48, hidden: int = 96, act: str = "ReLU", dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.word, self.middle = nn.Embedding(words, width), nn.Embedding(words, width)
        for table in (self.word, self.middle):
            nn.init.normal_(table.weight, std=0.3)
        self.drop = nn.Dropout(dropout)
        self.body = _chain((2 * width, hidden, width), act)
        self.often = nn.Embedding(words, 1)
        nn.init.zeros_(self.often.weight)

    def forward(self, x: Tensor) -> Tensor:
        around, middle = self.word(x[:, :-1]), self.middle(x[:, -1])
        told = torch.cat((around.mean(1), around[:, 2:4].mean(1)), 1)
        told = self.body(self.drop(told))
        return (told * middle).sum(1, keepdim=True) + self.often(x[:, -1])


class Arms(nn.Module):
    """One body for all who are treated or are not, and behind it an arm for each of both."""

    def __init__(
        self, known: int = 15, width: int = 160, depth: int = 3, act: str = "ReLU", dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(width if number else known, width) for number in range(depth)
        )
        self.acts = nn.ModuleList(getattr(nn, act)() for _ in range(depth))
        self.drop = nn.Dropout(dropout)
        self.arms = nn.ModuleList(_chain((width, width // 2, 1), act) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        treated, x = x[:, -1:] > 0, x[:, :-1]
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = self.drop(act(layer(x)))
        return torch.where(treated, self.arms[1](x), self.arms[0](x))


class Bonded(nn.Module):
    """Atoms hear of each other through filters that depend on how far they are apart; their energy."""

    def __init__(
        self, kinds: int = 2, width: int = 32, depth: int = 2, bells: int = 12, act: str = "SiLU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.kind = nn.Linear(kinds, width)
        self.filters = nn.ModuleList(_chain((bells, width, width), act) for _ in range(depth))
        self.tell = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.hear = nn.ModuleList(_chain((width, width, width), act) for _ in range(depth))
        self.head = _chain((width, width, 1), act)
        self.middles: Tensor
        self.register_buffer("middles", torch.linspace(0.4, 3.5, bells))

    def forward(self, x: Tensor) -> Tensor:
        place, state = x[..., :3], self.kind(x[..., 3:])
        far = ((place[:, :, None] - place[:, None]).square().sum(3) + 1e-6).sqrt()
        bells = (-8 * (far[..., None] - self.middles) ** 2).exp()
        others = 1 - torch.eye(x.shape[1])[..., None]
        for filters, tell, hear in zip(self.filters, self.tell, self.hear, strict=True):
            heard = (filters(bells) * others * tell(state)[:, None]).sum(2)
            state = state + hear(heard)
        return self.head(state).mean(1)


class Settled(nn.Module):
    """A state that one layer moves until it rests: what it then is, is told."""

    def __init__(
        self, inputs: int = 10, width: int = 128, outputs: int = 2, times: int = 8, act: str = "Tanh"
    ) -> None:  # fmt: skip
        super().__init__()
        self.times = times
        self.into, self.again = nn.Linear(inputs, width), nn.Linear(width, width, bias=False)
        nn.init.normal_(self.again.weight, std=0.5 / math.sqrt(width))
        self.act, self.head = getattr(nn, act)(), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        into = self.into(x)
        state = self.act(into)
        for _ in range(self.times):
            state = self.act(into + self.again(state))
        return self.head(state)


class Graded(nn.Module):
    """One score, and bars that rise: how likely it is that a work is better than each grade but the best."""

    def __init__(
        self, inputs: int = 14, grades: int = 5, width: int = 128, depth: int = 3, act: str = "ReLU",
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.body = _chain((inputs, *[width] * depth, 1), act)
        self.drop = nn.Dropout(dropout)
        self.lowest = nn.Parameter(torch.tensor(-1.5))
        self.rises = nn.Parameter(torch.zeros(grades - 2))

    def forward(self, x: Tensor) -> Tensor:
        rises = torch.cat((torch.zeros(1), functional.softplus(self.rises).cumsum(0)))
        return self.body(self.drop(x)) - (self.lowest + rises)


class Latents(nn.Module):
    """A few learned rows look at all steps of a record and at each other, some times; the mean of what they hold."""

    def __init__(
        self, channels: int = 3, width: int = 40, rows: int = 8, depth: int = 2, length: int = 32,
        outputs: int = 2, before: bool = True, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.steps = nn.Linear(3 * channels, width)
        self.place = nn.Parameter(0.5 * torch.randn(length, width))
        self.rows = nn.Parameter(0.5 * torch.randn(rows, width))
        self.blocks = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, 4, 2 * width, dropout, "gelu", batch_first=True, norm_first=before
            )
            for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        pieces = x.unflatten(2, (-1, 3)).transpose(1, 2).flatten(2)
        seen = self.steps(pieces) + self.place
        told = self.rows.expand(len(x), -1, -1)
        for block in self.blocks:
            told = block(told, seen)
        return self.head(self.norm(told).mean(1))


def dealt(
    inputs: int, outputs: int, width: int = 256, parts: int = 8, depth: int = 3, act: str = "ReLU",
    norm: str = "none", dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """Wide layers that each see one part of the units before them, dealt out anew between: two for a full one."""
    layers: list[nn.Module] = [
        nn.Linear(inputs, width),
        getattr(nn, act)(),
        nn.Unflatten(1, (-1, 1)),
    ]
    for _ in range(depth):
        one, two = (nn.Conv1d(width, width, 1, groups=parts) for _ in range(2))
        for part, gain in ((one, 1.0), (two, 2.0 if "LU" in act else 1.0)):
            nn.init.normal_(part.weight, std=math.sqrt(gain * parts / width))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        layers += [one, nn.ChannelShuffle(parts), two]
        layers += [nn.BatchNorm1d(width)] if norm == "BatchNorm1d" else []
        layers.append(getattr(nn, act)())
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, outputs))


class Keyed(nn.Module):
    """Layers that look up what they add: learned keys are asked for, learned values answer."""

    def __init__(
        self, inputs: int, outputs: int, width: int = 96, keys: int = 160, depth: int = 2, dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.keys = nn.ModuleList(nn.Linear(width, keys) for _ in range(depth))
        values = [nn.Linear(keys, width, bias=False) for _ in range(depth)]
        for value in values:
            nn.init.normal_(value.weight)
        self.values = nn.ModuleList(values)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for norm, key, value in zip(self.norms, self.keys, self.values, strict=True):
            x = x + value(key(norm(x)).softmax(1))
        return self.head(self.drop(x))


class Pointing(nn.Module):
    """Reads some places, and points at them one after the other: what it pointed at is what it reads next."""

    def __init__(self, inputs: int = 2, width: int = 48) -> None:
        super().__init__()
        self.place = nn.Linear(inputs, width)
        self.read = nn.GRU(width, width, batch_first=True)
        self.write = nn.GRUCell(width, width)
        self.key, self.ask = nn.Linear(width, width), nn.Linear(width, width)
        self.count = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        places = self.place(x)
        read, last = self.read(places)
        keys, state, now, told = self.key(read), last[0], places.mean(1), []
        for _ in range(x.shape[1]):
            state = self.write(now, state)
            told.append(self.count((keys + self.ask(state)[:, None]).tanh())[..., 0])
            now = (told[-1].softmax(1)[..., None] * places).sum(1)
        return torch.stack(told, 1)


class Clockwork(nn.Module):
    """A recurrent net whose units change at every step, at every second, or at every fourth."""

    def __init__(
        self, inputs: int = 8, width: int = 72, outputs: int = 10, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.into, self.again = nn.Linear(inputs, width), nn.Linear(width, width, bias=False)
        nn.init.orthogonal_(self.again.weight)
        self.tanh, self.drop = nn.Tanh(), nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs)
        self.every: Tensor
        self.register_buffer("every", 2 ** (torch.arange(width) * 3 // width))

    def forward(self, x: Tensor) -> Tensor:
        into = self.into(x)
        state = torch.zeros_like(into[:, 0])
        for step, now in enumerate(into.unbind(1)):
            state = torch.where(step % self.every == 0, self.tanh(now + self.again(state)), state)
        return self.head(self.drop(state))


def turning(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean surprise in nats about directions (N, 2), of which a direction and how sure it is are told."""
    sure = (outputs.square().sum(1) + 1e-12).sqrt()
    about = torch.special.i0e(sure).log() + sure
    return (about - (outputs * target).sum(1)).mean() + math.log(2 * math.pi)


def ordered(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the surprise in nats about grades (N, 1) from 0, summed over the bars of which each is over or under."""
    over = (target > torch.arange(outputs.shape[1])).float()
    return functional.binary_cross_entropy_with_logits(outputs, over) * outputs.shape[1]


NETS: dict[str, Callable[..., nn.Module]] = {
    "around": Around,
    "arms": Arms,
    "bonded": Bonded,
    "settled": Settled,
    "graded": Graded,
    "latents": Latents,
    "dealt": dealt,
    "keyed": Keyed,
    "pointing": Pointing,
    "clockwork": Clockwork,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "turning": turning,
    "ordered": ordered,
}
