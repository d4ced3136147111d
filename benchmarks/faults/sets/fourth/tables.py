"""Nets over tables, densities and motions of the fourth set that was held out, and their losses; tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Looking(nn.Module):
    """Attention among the columns of a row, and a gated layer, each normalized before."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norms[0](x)
        x = x + self.look(seen, seen, seen, need_weights=False)[0]
        value, gate = self.wide(self.norms[1](x)).chunk(2, 2)
        return x + self.narrow(self.drop(value * gate.relu()))


class Columns(nn.Module):
    """A transformer of which every column of a table is a token."""

    def __init__(
        self, inputs: int, outputs: int, width: int = 32, depth: int = 2, heads: int = 4,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale = nn.Parameter(torch.randn(inputs, width) / math.sqrt(width))
        self.place = nn.Parameter(torch.randn(inputs, width) / math.sqrt(width))
        self.sign = nn.Parameter(torch.randn(1, 1, width) / math.sqrt(width))
        self.blocks = nn.Sequential(*(Looking(width, heads, dropout) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x[..., None] * self.scale + self.place
        x = self.blocks(torch.cat((self.sign.expand(len(x), -1, -1), x), 1))
        return self.head(self.norm(x[:, 0]))


class Trees(nn.Module):
    """Trees whose forks each send a share of a row to either side, and the mean over their leaves."""

    def __init__(
        self, inputs: int, outputs: int, trees: int = 48, depth: int = 4, sharp: float = 2.0
    ) -> None:
        super().__init__()
        self.trees, self.depth, self.sharp = trees, depth, sharp
        self.forks = nn.Linear(inputs, trees * (2**depth - 1))
        self.act = nn.Sigmoid()
        self.leaves = nn.Linear(trees * 2**depth, outputs)

    def forward(self, x: Tensor) -> Tensor:
        left = self.act(self.sharp * self.forks(x)).unflatten(1, (self.trees, -1))
        share = torch.ones_like(left[..., :1])
        for level in range(self.depth):
            fork = left[..., 2**level - 1 : 2 ** (level + 1) - 1]
            share = torch.stack((share * fork, share * (1 - fork)), 3).flatten(2)
        return self.leaves(share.flatten(1))


class Crossed(nn.Module):
    """Layers that multiply by what came in first, a deep net beside them, and one layer for both."""

    def __init__(
        self, inputs: int, outputs: int, crossings: int = 2, width: int = 192, depth: int = 2,
        act: str = "ReLU", dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.crossings = nn.ModuleList(nn.Linear(inputs, inputs) for _ in range(crossings))
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [nn.Linear(width if number else inputs, width), getattr(nn, act)()]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.deep = nn.Sequential(*layers)
        self.head = nn.Linear(inputs + width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        crossed = x
        for crossing in self.crossings:
            crossed = crossed + x * crossing(crossed)
        return self.head(torch.cat((crossed, self.deep(x)), 1))


class Selected(nn.Module):
    """Some steps that each choose columns by what the step before saw, normalized over the batch."""

    def __init__(self, inputs: int, outputs: int, width: int = 64, steps: int = 3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs)
        self.shared = nn.Linear(inputs, 2 * width, bias=False)
        self.each = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(2 * width), nn.GLU(), nn.Linear(width, 2 * width, bias=False),
                nn.BatchNorm1d(2 * width), nn.GLU(),
            )
            for _ in range(steps + 1)
        )  # fmt: skip
        self.choose = nn.ModuleList(
            nn.Sequential(nn.Linear(width, inputs, bias=False), nn.BatchNorm1d(inputs))
            for _ in range(steps)
        )
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(steps))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        seen, left = self.each[0](self.shared(x)), torch.ones_like(x)
        told = torch.zeros_like(seen)
        for choose, each, act in zip(self.choose, self.each[1:], self.acts, strict=True):
            chosen = (choose(seen) * left).softmax(1)
            left = left * (1.5 - chosen)
            seen = each(self.shared(x.shape[1] * chosen * x))
            told = told + act(seen)
        return self.head(told)


def mixture(
    inputs: int, parts: int = 5, width: int = 160, depth: int = 2, act: str = "Tanh"
) -> nn.Module:
    """Weights, middles and deviations of some bells over one number."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Linear(width if number else inputs, width), getattr(nn, act)()]
    return nn.Sequential(*layers, nn.Linear(width, 3 * parts))


class Variational(nn.Module):
    """A code with noise for a picture, and the picture that it stands for; its logits, and the code's moments."""

    def __init__(
        self, inputs: int = 144, width: int = 160, code: int = 10, act: str = "ReLU"
    ) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.encode = nn.Sequential(
            nn.Linear(inputs, width), kind(), nn.Linear(width, width // 2), kind()
        )
        self.middle, self.spread = nn.Linear(width // 2, code), nn.Linear(width // 2, code)
        self.decode = nn.Sequential(
            nn.Linear(code, width // 2), kind(), nn.Linear(width // 2, width), kind(),
            nn.Linear(width, inputs),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        seen = self.encode(x)
        middle, spread = self.middle(seen), self.spread(seen)
        code = middle
        if self.training:
            code = middle + (spread / 2).exp() * torch.randn_like(middle)
        return torch.cat((self.decode(code), middle, spread), 1)


class Coupling(nn.Module):
    """One half of the columns says how the other is stretched and moved."""

    def __init__(self, columns: int, width: int, act: str) -> None:
        super().__init__()
        half = columns // 2
        self.body = nn.Sequential(
            nn.Linear(half, width), getattr(nn, act)(), nn.Linear(width, width), getattr(nn, act)(),
            nn.Linear(width, 2 * (columns - half)),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
        stretch, by = self.body(kept).chunk(2, 1)
        stretch = stretch.tanh()
        return torch.cat((moved * stretch.exp() + by, kept), 1), stretch.sum(1)


class Coupled(nn.Module):
    """From data to noise and back: the noise, and by how much volume grew on the way."""

    def __init__(
        self, columns: int = 6, width: int = 64, depth: int = 4, act: str = "ReLU"
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Coupling(columns, width, act) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        grown = x.new_zeros(len(x))
        for layer in self.layers:
            x, more = layer(x)
            grown = grown + more
        return torch.cat((x, grown[:, None]), 1)


class Flowing(nn.Module):
    """A state that one field moves, a little at a time."""

    def __init__(
        self, inputs: int, outputs: int, width: int = 64, times: int = 6, act: str = "Tanh"
    ) -> None:
        super().__init__()
        self.times = times
        self.first = nn.Linear(inputs, width)
        self.field = nn.Sequential(
            nn.Linear(width, width), getattr(nn, act)(), nn.Linear(width, width)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(self.times):
            x = x + self.field(x) / self.times
        return self.head(x)


class Recommender(nn.Module):
    """Rows of two tables, multiplied, and a deep net over both."""

    def __init__(
        self, users: int = 300, items: int = 200, factors: int = 8, width: int = 96, act: str = "ReLU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.user, self.item = nn.Embedding(users, factors), nn.Embedding(items, factors)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.2)
        self.deep = nn.Sequential(
            nn.Linear(2 * factors, width), getattr(nn, act)(), nn.Linear(width, width),
            getattr(nn, act)(),
        )  # fmt: skip
        self.head = nn.Linear(width + factors, 1)

    def forward(self, x: Tensor) -> Tensor:
        user, item = self.user(x[:, 0]), self.item(x[:, 1])
        return self.head(torch.cat((user * item, self.deep(torch.cat((user, item), 1))), 1))


def bells(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean surprise in nats about numbers of which `mixture` tells."""
    weight, middle, spread = outputs.chunk(3, 1)
    spread = spread.clamp(-5, 5)
    each = -((target - middle) ** 2) / (2 * (2 * spread).exp()) - spread - math.log(2 * math.pi) / 2
    return -(weight.log_softmax(1) + each).logsumexp(1).mean()


def bound(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the bound, in nats, on the surprise about pictures that `Variational` tells of."""
    told, middle, spread = outputs.split(
        [target.shape[1], *[(outputs.shape[1] - target.shape[1]) // 2] * 2], 1
    )
    far = functional.binary_cross_entropy_with_logits(told, target, reduction="none").sum(1)
    return (far + (middle**2 + spread.exp() - 1 - spread).sum(1) / 2).mean()


def surprise(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean surprise in nats about rows of which `Coupled` tells; the target is not asked."""
    noise, grown = outputs[:, :-1], outputs[:, -1]
    each = (noise**2 + math.log(2 * math.pi)).sum(1) / 2 - grown
    return each.mean()


def pinball(outputs: Tensor, target: Tensor) -> Tensor:
    """Return how far three columns are from being the deciles 1, 5 and 9 of a number."""
    share = torch.tensor([0.1, 0.5, 0.9])
    off = target - outputs
    return torch.maximum(share * off, (share - 1) * off).mean()


NETS: dict[str, Callable[..., nn.Module]] = {
    "columns": Columns,
    "trees": Trees,
    "crossed": Crossed,
    "selected": Selected,
    "mixture": mixture,
    "variational": Variational,
    "coupled": Coupled,
    "flowing": Flowing,
    "recommender": Recommender,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bells": bells,
    "bound": bound,
    "surprise": surprise,
    "pinball": pinball,
}
