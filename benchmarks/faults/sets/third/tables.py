"""Nets over tables, places and sets of the third set that was held out, tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class Experts(nn.Module):
    """Some small nets, and one that says how much each is to be believed."""

    def __init__(
        self, inputs: int, outputs: int, experts: int = 4, width: int = 96, act: str = "ReLU"
    ) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.router = nn.Linear(inputs, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(inputs, width), kind(), nn.Linear(width, width), kind(),
                nn.Linear(width, outputs),
            )
            for _ in range(experts)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        told = torch.stack([expert(x) for expert in self.experts], 2)
        return (told * self.router(x).softmax(1)[:, None]).sum(2)


class Sine(nn.Module):
    def __init__(self, times: float) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        return (self.times * x).sin()


def sines(
    inputs: int = 2, outputs: int = 3, width: int = 128, depth: int = 3, times: float = 12.0
) -> nn.Module:
    """A net of sines over places, drawn so that every layer's sines are spread alike."""
    layers: list[nn.Module] = []
    for number in range(depth + 1):
        linear = nn.Linear(inputs, outputs if number == depth else width)
        most = math.sqrt(6 / inputs) / times if number else 1 / inputs
        nn.init.uniform_(linear.weight, -most, most)
        layers += [linear, Sine(times)]
        inputs = width
    return nn.Sequential(*layers[:-1])


class Written(nn.Module):
    """A net whose weights another net writes, from the first column."""

    def __init__(
        self, inputs: int = 3, outputs: int = 1, width: int = 24, writer: int = 128, depth: int = 2
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [nn.Linear(writer if number else 1, writer), nn.Tanh()]
        self.write = nn.Sequential(*layers, nn.Linear(writer, width * inputs))
        self.act = nn.Tanh()
        self.body = nn.Sequential(nn.Linear(width, writer), nn.Tanh())
        self.head = nn.Linear(writer, outputs)

    def forward(self, x: Tensor) -> Tensor:
        rest = functional.pad(x[:, 1:], (0, 1), value=1.0)
        weight = self.write(x[:, :1]).unflatten(1, (-1, rest.shape[1]))
        return self.head(self.body(self.act(4 * (weight @ rest[..., None])[..., 0])))


class Angles(nn.Module):
    """Rows and classes on a sphere: the nearer, the likelier; `sharp` is by how much."""

    def __init__(
        self, inputs: int, outputs: int, width: int = 160, depth: int = 2, sharp: float = 12.0,
        act: str = "ReLU", dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [nn.Linear(width if number else inputs, width), getattr(nn, act)()]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.body = nn.Sequential(*layers)
        self.place = nn.Linear(width, 32)
        self.classes = nn.Parameter(torch.randn(outputs, 32))
        self.sharp = sharp

    def forward(self, x: Tensor) -> Tensor:
        place = functional.normalize(self.place(self.body(x)), dim=1)
        return self.sharp * place @ functional.normalize(self.classes, dim=1).T


class Induced(nn.Module):
    """Some learned points look at all others, and these at what they saw."""

    def __init__(self, width: int, heads: int, points: int) -> None:
        super().__init__()
        self.seeds = nn.Parameter(0.5 * torch.randn(1, points, width))
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.tell = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.wide = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        seen = self.look(self.seeds.expand(len(x), -1, -1), x, x, need_weights=False)[0]
        x = self.norms[0](x + self.tell(x, seen, seen, need_weights=False)[0])
        return self.norms[1](x + self.wide(x))


class Inducing(nn.Module):
    """A transformer over the points of a set."""

    def __init__(
        self, inputs: int = 2, width: int = 48, depth: int = 2, heads: int = 4, outputs: int = 4
    ) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*(Induced(width, heads, 6) for _ in range(depth)))
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.first(x)).mean(1))


class Shared(nn.Module):
    """A layer of which every member has its own factors at inputs and outputs."""

    def __init__(self, inputs: int, outputs: int, members: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.before = nn.Parameter(1 + 0.5 * torch.randn(members, inputs))
        self.behind = nn.Parameter(1 + 0.5 * torch.randn(members, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x * self.before) * self.behind


class Ensemble(nn.Module):
    """Nets that share their weights but for factors, and the mean of what they say."""

    def __init__(
        self, inputs: int, outputs: int, members: int = 4, width: int = 128, depth: int = 2,
        act: str = "ReLU", dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [Shared(width if number else inputs, width, members), getattr(nn, act)()]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.body = nn.Sequential(*layers)
        self.head = Shared(width, outputs, members)
        self.members = members

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x[:, None].expand(-1, self.members, -1))).mean(1)


class Hills(nn.Module):
    """A hill at each place of a grid, for every input, and a smooth bend of the input beside them."""

    def __init__(self, inputs: int, outputs: int, hills: int) -> None:
        super().__init__()
        self.grid: Tensor
        self.register_buffer("grid", torch.linspace(-2, 2, hills))
        self.near = nn.Linear(inputs * hills, outputs, bias=False)
        self.bend = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        wide = float(4 / (len(self.grid) - 1))
        hills = torch.exp(-(((x[..., None] - self.grid) / wide) ** 2)).flatten(1)
        return self.near(hills) + self.bend(functional.silu(x))


def splines(
    inputs: int, outputs: int, width: int = 48, depth: int = 2, hills: int = 8
) -> nn.Module:
    """A net whose every link is a curve that it learns."""
    wide = [inputs, *[width] * (depth - 1), outputs]
    return nn.Sequential(*(Hills(before, behind, hills) for before, behind in pairwise(wide)))


NETS: dict[str, Callable[..., nn.Module]] = {
    "experts": Experts,
    "sines": sines,
    "written": Written,
    "angles": Angles,
    "inducing": Inducing,
    "ensemble": Ensemble,
    "splines": splines,
}
