"""Nets over tables, sets, graphs and places of the seventh set that was held out, and their losses; tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST = -1e9
"""The logarithm of a likelihood of nothing."""


def _chain(sizes: tuple[int, ...], act: str) -> nn.Sequential:
    """Return linear layers of these sizes, bent between, and nothing behind the last."""
    layers: list[nn.Module] = []
    for before, behind in pairwise(sizes):
        layers += [nn.Linear(before, behind), getattr(nn, act)()]
    return nn.Sequential(*layers[:-1])


class Interest(nn.Module):
    """What of a history bears on what is offered now, and how likely that is taken."""

    def __init__(
        self, things: int = 120, width: int = 16, hidden: int = 64, act: str = "PReLU", dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.thing = nn.Embedding(things, width)
        nn.init.normal_(self.thing.weight, std=0.3)
        self.bear = _chain((4 * width, 32, 1), act)
        self.body = _chain((3 * width, hidden, hidden), act)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        past, now = self.thing(x[:, :-1]), self.thing(x[:, -1])
        offer = now[:, None].expand_as(past)
        much = self.bear(torch.cat((past, offer, past - offer, past * offer), 2))
        seen = (much * past).mean(1)
        told = self.body(torch.cat((seen, now, seen * now), 1)).relu()
        return self.head(self.drop(told))


class Ranker(nn.Module):
    """Scores what is listed together: layers for each by itself that also see the mean over all."""

    def __init__(
        self, known: int = 14, width: int = 72, depth: int = 3, act: str = "ReLU", dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(2 * (width if number else known), width) for number in range(depth)
        )
        self.acts = nn.ModuleList(getattr(nn, act)() for _ in range(depth))
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(torch.cat((x, x.mean(1, keepdim=True).expand_as(x)), 2)))
        return self.head(self.drop(x))[..., 0]


class Wired(nn.Module):
    """Nodes of a circuit tell those that they are wired to, some rounds; gates decide what each keeps."""

    def __init__(
        self, members: int = 10, known: int = 2, width: int = 32, times: int = 5, act: str = "ReLU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.members, self.times = members, times
        self.first = nn.Linear(known + 1, width)
        self.tell, self.act = nn.Linear(width, width), getattr(nn, act)()
        self.keep = nn.GRUCell(width + known, width)
        self.head = _chain((width, width, 1), act)

    def forward(self, x: Tensor) -> Tensor:
        links, known = x[..., : self.members], x[..., self.members :]
        share = links / links.abs().sum(2, keepdim=True).clamp_min(1e-6)
        state = self.first(torch.cat((known, links.sum(2, keepdim=True)), 2)).tanh()
        for _ in range(self.times):
            heard = torch.cat((share @ self.act(self.tell(state)), known), 2)
            state = self.keep(heard.flatten(0, 1), state.flatten(0, 1)).view_as(state)
        return self.head(state)[..., 0]


class Conserving(nn.Module):
    """An energy of places and momenta; how both change is its slope, so that it stays the same."""

    def __init__(
        self, inputs: int = 4, width: int = 128, depth: int = 2, act: str = "Tanh"
    ) -> None:
        super().__init__()
        self.places = inputs // 2
        self.energy = _chain((inputs, *[width] * depth, 1), act)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            here = x.detach().requires_grad_()
            slope = torch.autograd.grad(self.energy(here).sum(), here, create_graph=True)[0]
        return torch.cat((slope[:, self.places :], -slope[:, : self.places]), 1)


class Upward(nn.Linear):
    """A layer whose outputs rise where its inputs do."""

    def __init__(self, before: int, behind: int) -> None:
        super().__init__(before, behind)
        nn.init.uniform_(self.weight, 0.0, 2.0 / before)
        nn.init.uniform_(self.bias, -1.0, 1.0)

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight.abs(), self.bias)


class Bends(nn.Module):
    """Half of the units bend up, half of them down, so that both rises and falls of a slope can be told."""

    def forward(self, x: Tensor) -> Tensor:
        up, down = x.chunk(2, 1)
        return torch.cat((functional.elu(up), -functional.elu(-down)), 1)


class Rising(nn.Module):
    """A risk that can only rise with some columns, and depends on the others as it likes."""

    def __init__(
        self, up: int = 6, free: int = 4, width: int = 96, depth: int = 2, act: str = "ReLU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.up = up
        self.free = nn.Sequential(_chain((free, width, width), act), nn.Tanh())
        sizes = (up + width, *[width] * depth)
        layers = [part for pair in pairwise(sizes) for part in (Upward(*pair), Bends())]
        self.rise = nn.Sequential(*layers)
        self.head = Upward(width, 1)
        self.gain = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat((x[:, : self.up], self.free(x[:, self.up :])), 1)
        return self.gain * self.head(self.rise(seen))


class Patched(nn.Module):
    """Cuts a past, set to its own level, into pieces that look at each other; says how it goes on."""

    def __init__(
        self, width: int = 40, depth: int = 2, outputs: int = 24, before: bool = True, act: str = "gelu",
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pieces = nn.Linear(16, width)
        self.place = nn.Parameter(0.1 * torch.randn(11, width))
        block = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout, act, batch_first=True, norm_first=before
        )
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(11 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        level, spread = x.mean(1, keepdim=True), x.std(1, keepdim=True) + 1e-3
        seen = self.pieces(((x - level) / spread).unfold(1, 16, 8)) + self.place
        told = self.head(self.norm(self.blocks(seen)).flatten(1))
        return told * spread + level


class Firing(nn.Module):
    """Units that gather what comes in, lose some of it at each step, and fire once they hold enough."""

    def __init__(self, keep: float, steep: float) -> None:
        super().__init__()
        self.keep, self.steep = keep, steep

    def forward(self, x: Tensor) -> Tensor:
        held, told = torch.zeros_like(x[:, 0]), []
        for now in x.unbind(1):
            held = self.keep * held + now
            likely = (self.steep * (held - 1)).sigmoid()
            fired = likely + ((held > 1).float() - likely).detach()
            held = held - fired
            told.append(fired)
        return torch.stack(told, 1)


def spiking(
    inputs: int = 64, width: int = 96, outputs: int = 10, depth: int = 2, keep: float = 0.85,
    steep: float = 5.0,
) -> nn.Module:  # fmt: skip
    """Such units in layers over trains of spikes; the mean of what comes out over the steps."""
    layers: list[nn.Module] = []
    for number in range(depth):
        first = nn.Linear(width if number else inputs, width)
        nn.init.normal_(first.weight, std=1.5 / math.sqrt(first.in_features))
        nn.init.zeros_(first.bias)
        layers += [first, Firing(keep, steep)]
    last = nn.Linear(width, outputs)
    return nn.Sequential(*layers, last, nn.Unflatten(1, (1, -1)), nn.AdaptiveAvgPool2d((1, outputs)),
                         nn.Flatten())  # fmt: skip


def lowrank(
    inputs: int, outputs: int, width: int = 448, rank: int = 48, depth: int = 3, act: str = "ReLU",
    norm: str = "none", dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """Wide layers, each through a narrow place without a bend, so that there are few weights."""
    layers: list[nn.Module] = []
    for number in range(depth):
        before = width if number else inputs
        into, out = nn.Linear(before, rank, bias=False), nn.Linear(rank, width)
        nn.init.normal_(into.weight, std=1 / math.sqrt(before))
        nn.init.normal_(out.weight, std=math.sqrt((2 if act == "ReLU" else 1) / rank))
        nn.init.zeros_(out.bias)
        layers += [into, out]
        layers += [nn.BatchNorm1d(width)] if norm == "BatchNorm1d" else []
        layers.append(getattr(nn, act)())
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class Strongest(nn.Module):
    """Of all units of a layer the strongest few are heard."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        least = x.topk(max(int(self.share * x.shape[1]), 1), dim=1)[0][:, -1:]
        return x * (x >= least)


def winners(
    inputs: int, outputs: int, width: int = 320, depth: int = 2, share: float = 0.25
) -> nn.Module:
    """Layers of such units."""
    layers: list[nn.Module] = []
    for number in range(depth):
        first = nn.Linear(width if number else inputs, width)
        nn.init.kaiming_normal_(first.weight)
        nn.init.zeros_(first.bias)
        layers += [first, Strongest(share)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def alignment(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the surprise in nats for each letter of a text, however it lies along the steps.

    `outputs` (N, T, 1 + letters), of which the first is for no letter; `target` (N, L), letters from 1.
    """
    told = outputs.log_softmax(2)
    letters = target.long()
    states = torch.zeros(len(letters), 2 * letters.shape[1] + 1, dtype=torch.long)
    states[:, 1::2] = letters
    each = told.gather(2, states[:, None].expand(-1, told.shape[1], -1))
    jump = torch.full(states.shape, LEAST)
    jump[:, 3::2] = torch.where(letters[:, 1:] != letters[:, :-1], 0.0, LEAST)
    alive = torch.full(states.shape, LEAST)
    alive[:, :2] = 0.0
    alive = alive + each[:, 0]
    for step in range(1, told.shape[1]):
        one = functional.pad(alive[:, :-1], (1, 0), value=LEAST)
        two = functional.pad(alive[:, :-2], (2, 0), value=LEAST) + jump
        alive = torch.stack((alive, one, two)).logsumexp(0) + each[:, step]
    return -alive[:, -2:].logsumexp(1).mean() / letters.shape[1]


def chain(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the surprise in nats for each tag of a row of them.

    `outputs` (N, T, tags, tags) is how well a tag (last) goes with the word and the tag before it.
    """
    tags = target.long()
    behind = outputs.gather(3, tags[:, :, None, None].expand(-1, -1, outputs.shape[2], 1))[..., 0]
    before = functional.pad(tags[:, :-1], (1, 0))
    right = behind.gather(2, before[:, :, None])[..., 0].sum(1)
    alive = outputs[:, 0, 0]
    for step in range(1, outputs.shape[1]):
        alive = (alive[:, :, None] + outputs[:, step]).logsumexp(1)
    return (alive.logsumexp(1) - right).mean() / tags.shape[1]


def listwise(outputs: Tensor, target: Tensor) -> Tensor:
    """Return how far, in nats, the shares that scores of a list give are from those that its gains give."""
    return functional.kl_div(
        outputs.log_softmax(1), target.log_softmax(1), log_target=True, reduction="batchmean"
    )


def softened(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean distance of pixels, rounded at nothing."""
    return ((outputs - target) ** 2 + 1e-2).sqrt().mean()


NETS: dict[str, Callable[..., nn.Module]] = {
    "interest": Interest,
    "ranker": Ranker,
    "wired": Wired,
    "conserving": Conserving,
    "rising": Rising,
    "patched": Patched,
    "spiking": spiking,
    "lowrank": lowrank,
    "winners": winners,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "alignment": alignment,
    "chain": chain,
    "listwise": listwise,
    "softened": softened,
}
