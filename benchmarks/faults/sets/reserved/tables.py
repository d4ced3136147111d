"""Nets over tables, series, places, trees and words that held-out cases alone train, and losses of their own."""

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


class Lapsing(nn.Module):
    """A recurrent net over what was measured at some hours only: state and last values fade until they are renewed."""

    def __init__(self, measures: int = 5, width: int = 40, outputs: int = 1) -> None:
        super().__init__()
        self.measures, self.width = measures, width
        self.forget, self.fade = nn.Linear(measures, width), nn.Parameter(torch.zeros(measures))
        self.cell, self.head = nn.GRUCell(2 * measures, width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), self.width)
        last, since = (torch.zeros(len(x), self.measures) for _ in range(2))
        for now in x.unbind(1):
            value, seen = now.chunk(2, 1)
            since = since + 1
            last = torch.where(seen > 0, value, last * (-self.fade.exp() * 0.3 * since).exp())
            state = state * (-functional.softplus(self.forget(since) - 2)).exp()
            state = self.cell(torch.cat((last, seen), 1), state)
            since = since * (1 - seen)
        return self.head(state)


class Sensing(nn.Module):
    """Gated convolutions along the time of each sensor, and between them what sensors tell those they have learned to."""

    def __init__(self, sensors: int = 12, width: int = 16, ahead: int = 3, depth: int = 3) -> None:
        super().__init__()
        self.sensors = sensors
        self.first = nn.Conv1d(1, width, 1)
        self.tells, self.hears = (nn.Parameter(torch.randn(sensors, 6)) for _ in range(2))
        self.looks = nn.ModuleList(
            nn.Conv1d(width, 2 * width, 2, dilation=2**n, padding=2**n) for n in range(depth)
        )
        self.mixes = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth))
        self.wide = nn.Linear(width * depth, 2 * width)
        self.act, self.head = nn.ReLU(), nn.Linear(2 * width, ahead)

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.hears @ self.tells.T).relu().softmax(1)
        seen, told = self.first(x.flatten(0, 1)[:, None]), []
        for look, mix in zip(self.looks, self.mixes, strict=True):
            much, gate = look(seen)[..., : x.shape[2]].chunk(2, 1)
            own = (much.tanh() * gate.sigmoid()).unflatten(0, (-1, self.sensors))
            others = torch.einsum("ij,njct->nict", weight, own)
            both = mix(torch.cat((own, others), 2).transpose(2, 3)).transpose(2, 3)
            seen = seen + both.flatten(0, 1)
            told.append(seen[..., -1])
        return self.head(self.act(self.wide(torch.cat(told, 1)))).view(len(x), -1)


class Legendre(nn.Module):
    """A recurrent net beside a memory that holds its past as a curve of few terms and learns nothing itself."""

    def __init__(
        self, inputs: int = 3, width: int = 48, order: int = 8, span: float = 32.0, outputs: int = 6,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.order = order
        self.into, self.write = nn.Linear(inputs, width), nn.Linear(inputs, 2, bias=False)
        self.again = nn.Linear(width, width, bias=False)
        nn.init.orthogonal_(self.again.weight)
        self.read = nn.Linear(2 * order, width, bias=False)
        self.tanh, self.drop = nn.Tanh(), nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs)
        n = torch.arange(order, dtype=torch.float64)
        sign = torch.where(n[:, None] < n, -1.0, (-1.0) ** (n[:, None] - n + 1))
        full = torch.zeros(order + 1, order + 1, dtype=torch.float64)
        full[:order, :order] = (2 * n[:, None] + 1) / span * sign
        full[:order, order] = (2 * n + 1) / span * (-1.0) ** n
        step = torch.matrix_exp(full).float()
        self.move: Tensor
        self.put: Tensor
        self.register_buffer("move", step[:order, :order].T.contiguous())
        self.register_buffer("put", step[:order, order])

    def forward(self, x: Tensor) -> Tensor:
        into, write = self.into(x), self.write(x)[..., None] * self.put
        held, state = torch.zeros_like(write[:, 0]), torch.zeros_like(into[:, 0])
        for now, new in zip(into.unbind(1), write.unbind(1), strict=True):
            held = held @ self.move + new
            state = self.tanh(now + self.again(state) + self.read(held.flatten(1)))
        return self.head(self.drop(state))


class Comparing(nn.Module):
    """Looks for each letter of one word in another, compares both, and adds up what it found."""

    def __init__(
        self, letters: int = 27, width: int = 40, long: int = 10, outputs: int = 2, dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.long = long
        self.letter = nn.Embedding(letters, width)
        nn.init.normal_(self.letter.weight, std=0.5)
        self.place = nn.Parameter(0.3 * torch.randn(long, width))
        self.near = nn.Conv1d(width, width, 3, 1, 1)
        self.key = _chain((width, width, width), "ReLU")
        self.compare = _chain((3 * width, 2 * width, width), "ReLU")
        self.drop, self.wide = nn.Dropout(dropout), nn.Linear(2 * width, width)
        self.act, self.head = nn.ReLU(), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.letter(x) + self.place.repeat(2, 1)
        one, two = (part + self.near(part.mT).mT for part in seen.split(self.long, 1))
        alike = self.key(one) @ self.key(two).mT / one.shape[2] ** 0.5
        found = ((one, alike.softmax(2) @ two), (two, alike.softmax(1).mT @ one))
        told = [self.compare(torch.cat((a, b, (a - b).abs()), 2)).mean(1) for a, b in found]
        return self.head(self.act(self.wide(self.drop(torch.cat(told, 1)))))


class Upwards(nn.Module):
    """A recurrent net that goes up a tree: each part hears the sum of its own parts, and forgets each by a gate."""

    def __init__(
        self, kinds: int = 40, width: int = 48, outputs: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.kind = nn.Embedding(kinds, width)
        self.into, self.hear = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width, bias=False)
        self.forget, self.keep = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        nn.init.constant_(self.forget.bias, 1.0)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        kind, above = x[..., 0], x[..., 1]
        seen = self.kind(kind)
        there = ((kind > 0) & (torch.arange(x.shape[1]) > 0))[..., None].float()
        to = functional.one_hot(above, x.shape[1]).float() * there
        into, forget = self.into(seen), to @ self.forget(seen)
        heard, held = torch.zeros_like(seen), torch.zeros_like(seen)
        state = heard[:, 0]
        for own in reversed(range(x.shape[1])):
            put, gate, new = (into[:, own] + self.hear(heard[:, own])).chunk(3, 1)
            memory = put.sigmoid() * new.tanh() + held[:, own]
            state = gate.sigmoid() * memory.tanh()
            kept = (forget[:, own] + self.keep(state)).sigmoid() * memory
            heard = heard + to[:, own, :, None] * state[:, None]
            held = held + to[:, own, :, None] * kept[:, None]
        return self.head(self.drop(state))


class Bins(nn.Module):
    """Each column as how full each of some bins is, from the lowest up to the value."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.low: Tensor
        self.register_buffer("low", torch.linspace(-2.0, 2.0, bins + 1)[:-1])
        self.wide = 4.0 / bins

    def forward(self, x: Tensor) -> Tensor:
        full = (x[..., None] - self.low) / self.wide
        full = torch.cat((full[..., :1].clamp(max=1), full[..., 1:-1].clamp(0, 1), full[..., -1:].clamp(min=0)), 2)  # fmt: skip
        return (2 * full - 1).flatten(1)


def binned(
    inputs: int, outputs: int, bins: int = 8, width: int = 256, depth: int = 3, act: str = "ReLU",
    norm: str = "none", dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """Layers over columns in bins."""
    layers: list[nn.Module] = [Bins(bins)]
    for number in range(depth):
        layers.append(nn.Linear(width if number else inputs * bins, width))
        layers += [nn.BatchNorm1d(width)] if norm == "BatchNorm1d" else []
        layers.append(getattr(nn, act)())
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class Powers(nn.Module):
    """No bend at all: each layer multiplies what is there by what came in, and adds it, so that powers rise."""

    def __init__(
        self, inputs: int, outputs: int, width: int = 224, depth: int = 3, norm: str = "none",
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.times = nn.ModuleList(nn.Linear(inputs, width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        normed = nn.BatchNorm1d if norm == "BatchNorm1d" else nn.LayerNorm
        self.norms = nn.ModuleList(
            nn.Identity() if norm == "none" else normed(width) for _ in range(depth)
        )
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        state = self.first(x)
        for times, layer, norm in zip(self.times, self.layers, self.norms, strict=True):
            state = norm(state + times(x) * layer(state))
        return self.head(self.drop(state))


class Dueling(nn.Module):
    """How good it is to be somewhere, and by how much each move is better than the others; the move is told."""

    def __init__(
        self, known: int = 12, moves: int = 4, width: int = 192, depth: int = 3, act: str = "ReLU"
    ) -> None:
        super().__init__()
        self.known = known
        self.layers = nn.ModuleList(
            nn.Linear(width if number else known, width) for number in range(depth)
        )
        self.acts = nn.ModuleList(getattr(nn, act)() for _ in range(depth))
        self.worth = _chain((width, width // 2, 1), act)
        self.better = _chain((width, width // 2, moves), act)

    def forward(self, x: Tensor) -> Tensor:
        x, move = x[:, : self.known], x[:, self.known :] > 0.5
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(x))
        better = self.better(x)
        return self.worth(x) + (better * move).sum(1, keepdim=True) - better.mean(1, keepdim=True)


class Hashed(nn.Module):
    """What is at a place, read off some grids of rising fineness, whose knots are learned, and a small net behind."""

    def __init__(
        self, sides: tuple[int, ...] = (4, 8, 16, 32), held: int = 6, width: int = 128, outputs: int = 3,
        depth: int = 3, act: str = "ReLU",
    ) -> None:  # fmt: skip
        super().__init__()
        self.grids = nn.ParameterList(0.1 * torch.randn(1, held, side, side) for side in sides)
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [nn.Linear(width if number else held * len(sides), width), getattr(nn, act)()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        told = [
            functional.grid_sample(grid, x[None, :, None], align_corners=True)[0, :, :, 0]
            for grid in self.grids
        ]
        return self.head(self.body(torch.cat(told).T))


class Codebook(nn.Module):
    """A picture as four signs out of a learned book each; the picture that they stand for, and how well they fit."""

    def __init__(
        self, inputs: int = 64, width: int = 160, pieces: int = 6, held: int = 8, codes: int = 24,
        act: str = "ReLU",
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape = (pieces, held)
        self.down = _chain((inputs, width, width, pieces * held), act)
        self.book = nn.Parameter(0.3 * torch.randn(pieces, codes, held))
        self.up = _chain((pieces * held, width, width, inputs), act)

    def forward(self, x: Tensor) -> Tensor:
        told = functional.normalize(self.down(x).unflatten(1, self.shape), dim=2)
        book = functional.normalize(self.book, dim=2)
        near = torch.cdist(told.detach().transpose(0, 1), book.detach()).argmin(2)
        sign = torch.stack([page[row] for page, row in zip(book, near, strict=True)], 1)
        passed = told + (sign - told).detach()
        fit = (sign - told.detach()).square().mean((1, 2)) + 0.25 * (
            told - sign.detach()
        ).square().mean((1, 2))
        return torch.cat((self.up(passed.flatten(1)), fit[:, None]), 1)


def coded(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean square between pictures and what their signs stand for, and how badly the signs fit."""
    return functional.mse_loss(outputs[:, :-1], target) + outputs[:, -1].mean()


def log_cosh(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the logarithm of how far numbers are from those that were measured, rounded at nothing."""
    far = outputs - target
    return (far + functional.softplus(-2 * far) - math.log(2.0)).mean()


NETS: dict[str, Callable[..., nn.Module]] = {
    "lapsing": Lapsing,
    "sensing": Sensing,
    "legendre": Legendre,
    "comparing": Comparing,
    "upwards": Upwards,
    "binned": binned,
    "powers": Powers,
    "dueling": Dueling,
    "hashed": Hashed,
    "codebook": Codebook,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "coded": coded,
    "log_cosh": log_cosh,
}
