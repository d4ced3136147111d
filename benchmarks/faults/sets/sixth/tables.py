"""Nets over tables, sets, graphs and places of the sixth set that was held out, and their losses; tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class Paced(nn.Module):
    """Every column as waves of paces that are learned, and a small layer of its own behind them."""

    def __init__(self, inputs: int, waves: int, each: int, pace: float) -> None:
        super().__init__()
        self.paces = nn.Parameter(pace * torch.randn(inputs, waves))
        self.weight = nn.Parameter(torch.randn(inputs, 2 * waves, each) / math.sqrt(waves))
        self.bias = nn.Parameter(torch.zeros(inputs, each))

    def forward(self, x: Tensor) -> Tensor:
        turned = 2 * math.pi * x[:, :, None] * self.paces
        seen = torch.cat((turned.sin(), turned.cos()), 2)
        return (torch.einsum("nik,ike->nie", seen, self.weight) + self.bias).relu().flatten(1)


def periodic(
    inputs: int, outputs: int, width: int = 192, depth: int = 2, act: str = "ReLU", each: int = 8,
    pace: float = 0.2, norm: str = "none", dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """Such columns side by side, and a few layers behind them."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers.append(nn.Linear(width if number else inputs * each, width))
        layers += [nn.BatchNorm1d(width)] if norm == "BatchNorm1d" else []
        layers.append(getattr(nn, act)())
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(Paced(inputs, 12, each, pace), *layers, nn.Linear(width, outputs))


def _chain(sizes: tuple[int, ...], act: str) -> nn.Sequential:
    """Return linear layers of these sizes, bent between, and nothing behind the last."""
    layers: list[nn.Module] = []
    for before, behind in pairwise(sizes):
        layers += [nn.Linear(before, behind), getattr(nn, act)()]
    return nn.Sequential(*layers[:-1])


class Twofold(nn.Module):
    """One net for a function, seen at some points, and one for a place; how alike they are is what is there."""

    def __init__(
        self, points: int = 32, width: int = 128, code: int = 64, act: str = "GELU", depth: int = 2
    ) -> None:  # fmt: skip
        super().__init__()
        self.points = points
        self.branch = _chain((points, *[width] * depth, code), act)
        self.trunk = _chain((1, *[width] * depth, code), act)
        self.level, self.code = nn.Parameter(torch.zeros(1)), code

    def forward(self, x: Tensor) -> Tensor:
        what, where = self.branch(x[:, : self.points]), self.trunk(x[:, self.points :])
        return (what * where).sum(1, keepdim=True) / math.sqrt(self.code) + self.level


class Pulled(nn.Module):
    """Things pull at each other along the lines between them; what is known of each takes no direction."""

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.pair = nn.Sequential(
            nn.Linear(2 * width + 2, width), kind(), nn.Linear(width, width), kind()
        )
        last = nn.Linear(width, 1, bias=False)
        nn.init.xavier_uniform_(last.weight, gain=0.01)
        self.along = nn.Sequential(nn.Linear(width, width), kind(), last)
        self.own = _chain((2 * width, width, width), act)
        self.fast = nn.Linear(width, 1)

    def forward(
        self, known: Tensor, place: Tensor, speed: Tensor, charge: Tensor
    ) -> tuple[Tensor, Tensor]:
        many = place.shape[1]
        apart = place[:, :, None] - place[:, None]
        one = known[:, :, None].expand(-1, -1, many, -1)
        both = charge[:, :, None] * charge[:, None]
        far = (apart**2).sum(3, keepdim=True)
        told = self.pair(torch.cat((one, one.transpose(1, 2), far, both), 3))
        place = place + (apart * self.along(told)).mean(2) + self.fast(known) * speed
        return known + self.own(torch.cat((known, told.mean(2)), 2)), place


class Particles(nn.Module):
    """Where things end that have places, speeds and charges: turned things end turned."""

    def __init__(self, width: int = 40, depth: int = 2, act: str = "SiLU") -> None:
        super().__init__()
        self.first = nn.Linear(2, width)
        self.pulls = nn.ModuleList(Pulled(width, act) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        begin, speed, charge = x[..., :2], x[..., 2:4], x[..., 4:]
        known = self.first(torch.cat(((speed**2).sum(2, keepdim=True), charge), 2))
        place = begin
        for pull in self.pulls:
            known, place = pull(known, place, speed, charge)
        return place - begin


class Process(nn.Module):
    """What some points of a curve tell on the mean, and from it what is at others, with how sure it is."""

    def __init__(self, seen: int = 8, width: int = 96, act: str = "ReLU") -> None:
        super().__init__()
        self.seen = seen
        self.read = _chain((2, width, width, width), act)
        self.tell = _chain((width + 1, width, width, width, 2), act)

    def forward(self, x: Tensor) -> Tensor:
        seen, asked = x[:, : 2 * self.seen].unflatten(1, (-1, 2)), x[:, 2 * self.seen :, None]
        code = self.read(seen).mean(1, keepdim=True).expand(-1, asked.shape[1], -1)
        return self.tell(torch.cat((code, asked), 2))


class Leveled(nn.Module):
    """A layer around which the input goes, stretched and moved by how much noise there is."""

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.norm, self.into = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.level = nn.Linear(width, 4 * width)
        self.act, self.out = getattr(nn, act)(), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        stretched, moved = self.level(level).chunk(2, 1)
        return x + self.out(self.act(self.into(self.norm(x)) * (1 + stretched) + moved))


class Diffuser(nn.Module):
    """Tells the noise of a picture, of which the last column says how much there is."""

    def __init__(
        self, inputs: int = 64, width: int = 128, depth: int = 3, act: str = "SiLU"
    ) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.level = nn.Sequential(nn.Linear(16, width), getattr(nn, act)())
        self.blocks = nn.ModuleList(Leveled(width, act) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, inputs)
        self.paces: Tensor
        self.register_buffer("paces", math.pi * 2.0 ** torch.linspace(-1, 3, 8))

    def forward(self, x: Tensor) -> Tensor:
        turned = x[:, -1:] * self.paces
        level = self.level(torch.cat((turned.sin(), turned.cos()), 1))
        x = self.first(x[:, :-1])
        for block in self.blocks:
            x = block(x, level)
        return self.head(self.norm(x))


class Masked(nn.Linear):
    """A layer of which some links are cut."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__(kept.shape[1], kept.shape[0])
        self.kept: Tensor
        self.register_buffer("kept", kept.float())

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight * self.kept, self.bias)


def masked(inputs: int = 64, width: int = 512, depth: int = 2, act: str = "ReLU") -> nn.Module:
    """Tells of every pixel how likely it is set, by those before it alone."""
    before = torch.arange(inputs)
    hidden = torch.arange(width) % (inputs - 1)
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [Masked(hidden[:, None] >= (hidden if number else before)), getattr(nn, act)()]
    return nn.Sequential(*layers, Masked(before[:, None] > hidden))


class Facts(nn.Module):
    """Who, and of what, as rows of tables side by side in a picture; convolutions say which row is asked for."""

    def __init__(
        self, members: int = 120, matters: int = 6, width: int = 12, dropout: float = 0.1, act: str = "ReLU"
    ) -> None:  # fmt: skip
        super().__init__()
        kind = getattr(nn, act)
        self.who, self.what = nn.Embedding(members, 64), nn.Embedding(matters, 64)
        for table in (self.who, self.what):
            nn.init.normal_(table.weight, std=0.3)
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, 1, 1), nn.BatchNorm2d(width), kind(), nn.Dropout(dropout),
            nn.Flatten(), nn.Linear(128 * width, 64), nn.BatchNorm1d(64), kind(),
        )  # fmt: skip
        self.level = nn.Parameter(torch.zeros(members))

    def forward(self, x: Tensor) -> Tensor:
        picture = torch.cat((self.who(x[:, 0]), self.what(x[:, 1])), 1).view(-1, 1, 16, 8)
        return self.body(picture) @ self.who.weight.T + self.level


class Told(nn.Module):
    """Each member of a graph hears the sum over those it is linked to, and thinks about it in two layers."""

    def __init__(self, before: int, width: int, act: str) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.zeros(1))
        self.think = nn.Sequential(
            nn.Linear(before, width), getattr(nn, act)(), nn.Linear(width, width)
        )
        self.norm, self.act = nn.LayerNorm(width), getattr(nn, act)()

    def forward(self, x: Tensor, links: Tensor) -> Tensor:
        return self.act(self.norm(self.think((1 + self.own) * x + links @ x)))


class Messages(nn.Module):
    """Such layers over a table of links and what is known of each; the first member and the mean say what it is."""

    def __init__(
        self, members: int = 12, known: int = 16, width: int = 64, depth: int = 3, outputs: int = 6,
        act: str = "ReLU",
    ) -> None:  # fmt: skip
        super().__init__()
        self.members = members
        self.layers = nn.ModuleList(
            Told(width if number else known, width, act) for number in range(depth)
        )
        self.head = nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        links, x = x[..., : self.members], x[..., self.members :]
        for layer in self.layers:
            x = layer(x, links)
        return self.head(torch.cat((x[:, 0], x.mean(1)), 1))


class Prototypes(nn.Module):
    """Pictures as points; the class of the last is that of which the examples' mean is nearest."""

    def __init__(
        self, inputs: int = 64, width: int = 128, code: int = 48, classes: int = 5, act: str = "ReLU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.classes = classes
        self.body = _chain((inputs, width, width, code), act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        means = x[:, :-1].unflatten(1, (self.classes, -1)).mean(2)
        return -((means - x[:, -1:]) ** 2).sum(2)


def overlap(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of every pixel, and the share in which what is marked and what is asked differ."""
    marked = outputs.sigmoid()
    shared = 2 * (marked * target).sum(1) + 1
    dice = 1 - shared / (marked.sum(1) + target.sum(1) + 1)
    return functional.binary_cross_entropy_with_logits(outputs, target) + dice.mean()


def hazard(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the surprise in nats about who goes first among those still there, less that of a mere guess.

    The target is a time, and whether someone went then (one) or was not seen any longer (zero).
    """
    order = target[:, 0].argsort(descending=True)
    risk, went = outputs[order, 0], target[order, 1]
    guess = torch.arange(1, len(risk) + 1).log()
    return ((risk.logcumsumexp(0) - risk - guess) * went).sum() / went.sum().clamp_min(1)


def normal(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean surprise in nats about numbers of which a mean and how sure it is are told."""
    spread = 0.05 + 0.95 * functional.softplus(outputs[..., 1])
    return (spread.log() + ((target - outputs[..., 0]) / spread) ** 2 / 2).mean()


NETS: dict[str, Callable[..., nn.Module]] = {
    "periodic": periodic,
    "twofold": Twofold,
    "particles": Particles,
    "process": Process,
    "diffuser": Diffuser,
    "masked": masked,
    "facts": Facts,
    "messages": Messages,
    "prototypes": Prototypes,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "overlap": overlap,
    "hazard": hazard,
    "normal": normal,
}
