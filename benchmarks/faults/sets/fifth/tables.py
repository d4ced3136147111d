"""Nets over tables, sets, graphs and places of the fifth set that was held out, and their losses; tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Radial(nn.Module):
    """How near a row is to each of some learned places, and one layer behind it."""

    def __init__(self, inputs: int, outputs: int, places: int = 256, wide: float = 1.0) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(places, inputs))
        self.spread = nn.Parameter(torch.full((places,), math.log(wide * math.sqrt(inputs))))
        self.head = nn.Linear(places, outputs)

    def forward(self, x: Tensor) -> Tensor:
        far = (x**2).sum(1)[:, None] + (self.places**2).sum(1) - 2 * x @ self.places.T
        return self.head((-far / (2 * self.spread).exp()).exp())


class Waves(nn.Module):
    """Cosines of directions that were drawn once and never learn, and one layer that does."""

    def __init__(self, inputs: int, outputs: int, many: int = 1024, pace: float = 1.0) -> None:
        super().__init__()
        self.paces: Tensor
        self.phases: Tensor
        self.register_buffer("paces", pace * torch.randn(inputs, many) / math.sqrt(inputs))
        self.register_buffer("phases", 2 * math.pi * torch.rand(many))
        self.head = nn.Linear(many, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(math.sqrt(2) * (x @ self.paces + self.phases).cos())


class Added(nn.Module):
    """A layer around which the input goes, and of which nothing counts at first."""

    def __init__(self, width: int, act: str, share: float) -> None:
        super().__init__()
        self.into, self.act = nn.Linear(width, width), getattr(nn, act)()
        self.out, self.share = nn.Linear(width, width), nn.Parameter(torch.tensor(share))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.share * self.out(self.act(self.into(x)))


def rezero(
    inputs: int, outputs: int, width: int = 128, depth: int = 6, act: str = "ReLU", share: float = 0.0
) -> nn.Module:  # fmt: skip
    return nn.Sequential(
        nn.Linear(inputs, width), *(Added(width, act, share) for _ in range(depth)),
        nn.Linear(width, outputs),
    )  # fmt: skip


def selfnormal(
    inputs: int, outputs: int, width: int = 128, depth: int = 5, act: str = "SELU",
    dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """A deep net whose activations keep mean 0 and deviation 1 by themselves."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Linear(width if number else inputs, width), getattr(nn, act)()]
        layers += [nn.AlphaDropout(dropout)] if dropout else []
    net = nn.Sequential(*layers, nn.Linear(width, outputs))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)
    return net


class Additive(nn.Module):
    """A small net for each column by itself; what they say is added up."""

    def __init__(self, inputs: int, outputs: int = 1, width: int = 24, act: str = "ReLU") -> None:
        super().__init__()
        kind, wide = getattr(nn, act), inputs * width
        self.each = nn.Sequential(
            nn.Conv1d(inputs, wide, 1, groups=inputs), kind(),
            nn.Conv1d(wide, wide, 1, groups=inputs), kind(),
            nn.Conv1d(wide, inputs * outputs, 1, groups=inputs),
        )  # fmt: skip
        self.level, self.outputs = nn.Parameter(torch.zeros(outputs)), outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.each(x[:, :, None]).view(len(x), -1, self.outputs).sum(1) + self.level


class Tasks(nn.Module):
    """One body for a class and for a number: logits, and the number behind them."""

    def __init__(
        self, width: int = 16, hidden: int = 96, outputs: int = 10, act: str = "LeakyReLU"
    ) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1), kind(), nn.Conv2d(width, 2 * width, 4, 2, 1), kind(),
            nn.Flatten(), nn.Linear(18 * width, hidden), kind(),
        )  # fmt: skip
        self.kind = nn.Linear(hidden, outputs)
        self.number = nn.Sequential(nn.Linear(hidden, 32), kind(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return torch.cat((self.kind(x), self.number(x)), 1)


class Views(nn.Module):
    """Two pictures of one thing, each as a direction."""

    def __init__(
        self, inputs: int = 64, width: int = 160, code: int = 32, act: str = "ReLU"
    ) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.body = nn.Sequential(
            nn.Linear(inputs, width), nn.BatchNorm1d(width), kind(),
            nn.Linear(width, width), nn.BatchNorm1d(width), kind(),
        )  # fmt: skip
        self.project = nn.Sequential(
            nn.Linear(width, width // 2), kind(), nn.Linear(width // 2, code)
        )

    def forward(self, x: Tensor) -> Tensor:
        seen = self.project(self.body(torch.cat(x.chunk(2, 1))))
        return torch.cat(functional.normalize(seen).chunk(2), 1)


class Places(nn.Module):
    """What is at a place, of which some waves of random pace are seen."""

    def __init__(
        self, outputs: int = 2, waves: int = 48, pace: float = 3.0, width: int = 96, depth: int = 3,
        act: str = "ReLU",
    ) -> None:  # fmt: skip
        super().__init__()
        self.paces: Tensor
        self.register_buffer("paces", pace * torch.randn(2, waves))
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [nn.Linear(width if number else 2 * waves, width), getattr(nn, act)()]
        self.body = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        turned = x @ self.paces
        return self.body(torch.cat((turned.sin(), turned.cos()), 1))


class Shrinking(nn.Module):
    """Steps of a search for a sparse code, of which each has learned its weights and what it cuts off."""

    def __init__(self, inputs: int = 24, outputs: int = 48, depth: int = 5) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, outputs, bias=False)
        self.seen = nn.ModuleList(nn.Linear(inputs, outputs, bias=False) for _ in range(depth))
        self.again = nn.ModuleList(nn.Linear(outputs, outputs, bias=False) for _ in range(depth))
        self.cuts = nn.ModuleList(nn.Softshrink(0.1) for _ in range(depth + 1))
        self.scale = nn.Parameter(torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        code = self.cuts[0](self.first(x))
        for seen, again, cut in zip(self.seen, self.again, list(self.cuts)[1:], strict=True):
            code = cut(code + seen(x) - again(code))
        return self.scale * code


class Bags(nn.Module):
    """Looks at each picture of a bag, and says of the bag what those say that it attends to."""

    def __init__(
        self, inputs: int = 64, width: int = 96, outputs: int = 4, act: str = "ReLU", dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        kind = getattr(nn, act)
        self.body = nn.Sequential(
            nn.Linear(inputs, width), kind(), nn.Dropout(dropout), nn.Linear(width, width), kind()
        )
        self.what, self.open = nn.Linear(width, 48), nn.Linear(width, 48)
        self.bent, self.gate = nn.Tanh(), nn.Sigmoid()
        self.near, self.head = nn.Linear(48, 1), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        near = self.near(self.bent(self.what(x)) * self.gate(self.open(x))).softmax(1)
        return self.head((near * x).sum(1))


class Relations(nn.Module):
    """One net for every pair of things, the sum over the pairs, and another behind it."""

    def __init__(
        self, inputs: int = 3, outputs: int = 4, width: int = 64, act: str = "ReLU"
    ) -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.pair = nn.Sequential(
            nn.Linear(2 * inputs, width), kind(), nn.Linear(width, width), kind(),
            nn.Linear(width, width), kind(),
        )  # fmt: skip
        self.rest = nn.Sequential(nn.Linear(width, width), kind(), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        many = x.shape[1]
        one = x[:, :, None].expand(-1, -1, many, -1)
        other = x[:, None].expand(-1, many, -1, -1)
        return self.rest(self.pair(torch.cat((one, other), 3).flatten(1, 2)).mean(1))


class Neighbours(nn.Module):
    """Each of a net's members looks at those that it is linked to, some heads at once."""

    def __init__(self, before: int, behind: int, heads: int) -> None:
        super().__init__()
        self.heads, self.values = heads, nn.Linear(before, heads * behind)
        self.mine = nn.Parameter(torch.randn(heads, behind) / math.sqrt(behind))
        self.theirs = nn.Parameter(torch.randn(heads, behind) / math.sqrt(behind))
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor, links: Tensor) -> Tensor:
        x = self.values(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        mine, theirs = (x * self.mine[:, None]).sum(3), (x * self.theirs[:, None]).sum(3)
        near = self.act(mine[..., None] + theirs[:, :, None])
        near = near.masked_fill(links[:, None] == 0, -1e9).softmax(3)
        return (near @ x).transpose(1, 2).flatten(2)


class Linked(nn.Module):
    """Two such layers over a table of links and what is known of each member; what most say of themselves."""

    def __init__(
        self, members: int = 16, known: int = 4, width: int = 16, heads: int = 4, outputs: int = 4,
        act: str = "ELU",
    ) -> None:  # fmt: skip
        super().__init__()
        self.members = members
        self.looks = nn.ModuleList(
            Neighbours(before, width, heads) for before in (known, heads * width)
        )
        self.acts = nn.ModuleList(getattr(nn, act)() for _ in self.looks)
        self.head = nn.Linear(heads * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        links, x = x[..., : self.members], x[..., self.members :]
        for look, act in zip(self.looks, self.acts, strict=True):
            x = act(look(x, links))
        return self.head(x.mean(1))


def margin(outputs: Tensor, target: Tensor) -> Tensor:
    """Return by how much capsules of the class are too short, and others too long."""
    short, long = (0.9 - outputs).relu() ** 2, (outputs - 0.1).relu() ** 2
    right = functional.one_hot(target, outputs.shape[1])
    return (right * short + 0.5 * (1 - right) * long).sum(1).mean()


def counts(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the surprise in nats, but for what no net can change, about counts whose logarithm is told."""
    return functional.poisson_nll_loss(outputs, target)


def sums(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the surprise about sums of a gamma distribution, the logarithm of whose mean is told."""
    return (outputs + target * (-outputs).exp()).mean()


def both(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of the class in column 0, and how far the number in column 1 is."""
    number = functional.mse_loss(outputs[:, -1], target[:, 1])
    return functional.cross_entropy(outputs[:, :-1], target[:, 0].long()) + number


def contrast(outputs: Tensor, target: Tensor) -> Tensor:
    """Return how badly each is told from the others of 32 by its second picture; the target is not asked."""
    group = min(32, len(outputs))
    whole = outputs[: len(outputs) // group * group].view(-1, group, outputs.shape[1])
    one, other = whole.chunk(2, 2)
    near = (one @ other.transpose(1, 2) / 0.2).flatten(0, 1)
    right = torch.arange(group).repeat(len(whole))
    return functional.cross_entropy(near, right)


NETS: dict[str, Callable[..., nn.Module]] = {
    "radial": Radial,
    "drawn": Waves,
    "rezero": rezero,
    "selfnormal": selfnormal,
    "additive": Additive,
    "tasks": Tasks,
    "views": Views,
    "places": Places,
    "shrinking": Shrinking,
    "bags": Bags,
    "relations": Relations,
    "linked": Linked,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "margin": margin,
    "counts": counts,
    "sums": sums,
    "both": both,
    "contrast": contrast,
}
