"""Nets that held-out cases alone train: no architecture of them is tuned on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import tables


def _normed(norm: str, width: int) -> nn.Module:
    if norm == "BatchNorm2d":
        return nn.BatchNorm2d(width)
    return nn.GroupNorm(4, width) if norm == "GroupNorm" else nn.Identity()


class Selecting(nn.Module):
    """Two convolutions, of near and of far reach; what both see says how much of each channel is taken from which."""

    def __init__(self, before: int, behind: int, stride: int, norm: str, act: str) -> None:
        super().__init__()
        self.near = nn.Conv2d(before, behind, 3, stride, 1)
        self.far = nn.Conv2d(before, behind, 3, stride, 2, 2)
        self.norms = nn.ModuleList(_normed(norm, behind) for _ in range(2))
        self.acts = nn.ModuleList(getattr(nn, act)() for _ in range(2))
        self.squeeze, self.choose = nn.Linear(behind, 12), nn.Linear(12, 2 * behind)

    def forward(self, x: Tensor) -> Tensor:
        looks = (self.near(x), self.far(x))
        seen = torch.stack(
            [a(n(look)) for a, n, look in zip(self.acts, self.norms, looks, strict=True)], 1
        )
        told = self.squeeze(seen.sum(1).mean((2, 3))).tanh()
        share = self.choose(told).unflatten(1, (2, -1)).softmax(1)
        return 2 * (seen * share[..., None, None]).sum(1)


def selective(
    channels: int = 3, width: int = 16, outputs: int = 6, norm: str = "BatchNorm2d", act: str = "ReLU",
    dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """Three such blocks and the mean over the picture."""
    return nn.Sequential(
        Selecting(channels, width, 2, norm, act), Selecting(width, 2 * width, 2, norm, act),
        Selecting(2 * width, 2 * width, 1, norm, act),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(2 * width, outputs),
    )  # fmt: skip


class Octave(nn.Module):
    """Convolutions over a fine and a coarse picture of the same, each of which hears of the other."""

    def __init__(self, fine: int, coarse: int, width: int, act: str) -> None:
        super().__init__()
        self.fine, self.lift = nn.Conv2d(fine, width, 3, 1, 1), nn.Conv2d(coarse, width, 3, 1, 1)
        self.coarse, self.drop = nn.Conv2d(coarse, width, 3, 1, 1), nn.Conv2d(fine, width, 3, 1, 1)
        self.acts = nn.ModuleList(getattr(nn, act)() for _ in range(2))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        lifted = functional.interpolate(self.lift(coarse), scale_factor=2.0)
        dropped = self.drop(functional.avg_pool2d(fine, 2))
        return self.acts[0](self.fine(fine) + lifted), self.acts[1](self.coarse(coarse) + dropped)


class Octaves(nn.Module):
    """Three such layers; what the coarse pixels of a grey picture look like in two colours."""

    def __init__(self, width: int = 12, colours: int = 2, act: str = "ReLU") -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Octave(before, before, width, act) for before in (1, width, width)
        )
        self.head = nn.Conv2d(2 * width, colours, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        coarse = functional.avg_pool2d(x, 2)
        for layer in self.layers:
            x, coarse = layer(x, coarse)
        return self.head(torch.cat((functional.avg_pool2d(x, 2), coarse), 1)).flatten(1)


class Correlating(nn.Module):
    """One body for the views of both eyes; how alike they are once one is moved says how far off a thing is."""

    def __init__(
        self, width: int = 16, shifts: int = 8, act: str = "ReLU", norm: str = "none"
    ) -> None:
        super().__init__()
        self.shifts = shifts
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, 1, 1), _normed(norm, width), getattr(nn, act)(),
            nn.Conv2d(width, width, 3, 1, 1),
        )  # fmt: skip
        self.match = nn.Conv2d(shifts, 24, 3, 2, 1)
        self.act, self.head = getattr(nn, act)(), nn.Linear(24, shifts)

    def forward(self, x: Tensor) -> Tensor:
        both = self.body(x.flatten(0, 1)[:, None]).unflatten(0, (-1, 2))
        one, two = both[:, 0], both[:, 1]
        side = one.shape[3]
        alike = [
            (one * functional.pad(two, (by, 0))[..., :side]).mean(1) for by in range(self.shifts)
        ]
        return self.head(self.act(self.match(torch.stack(alike, 1))).mean((2, 3)))


class Moving(nn.Module):
    """Looks at each picture of a film by itself, then along time at each place, in turn; the mean over all."""

    def __init__(
        self, width: int = 12, outputs: int = 6, act: str = "ReLU", norm: str = "none", dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        sizes = ((1, width), (width, 2 * width))
        self.looks = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in sizes)
        self.along = nn.ModuleList(nn.Conv2d(b, b, (3, 1), 1, (1, 0)) for _, b in sizes)
        self.norms = nn.ModuleList(_normed(norm, b) for _, b in sizes)
        self.acts = nn.ModuleList(getattr(nn, act)() for _ in range(4))
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        many, times = x.shape[:2]
        x = x[:, :, None]
        for number, (look, along, norm) in enumerate(
            zip(self.looks, self.along, self.norms, strict=True)
        ):
            seen = self.acts[2 * number](norm(look(x.flatten(0, 1))))
            side = seen.shape[2]
            film = seen.unflatten(0, (many, times)).flatten(3).transpose(1, 2)
            film = self.acts[2 * number + 1](along(film))
            x = film.transpose(1, 2).unflatten(3, (side, side))
        return self.head(self.drop(x.mean((1, 3, 4))))


class Pyramid(nn.Module):
    """Convolutions whose pictures get smaller; on the way back each small one is added to the larger before it."""

    def __init__(self, width: int = 16, act: str = "ReLU", norm: str = "none") -> None:
        super().__init__()
        sizes = (1, width, width, 2 * width)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), _normed(norm, b), getattr(nn, act)())
            for a, b in pairwise(sizes)
        )
        self.side = nn.ModuleList(nn.Conv2d(b, width, 1) for b in sizes[1:])
        self.smooth, self.act = nn.Conv2d(width, width, 3, 1, 1), getattr(nn, act)()
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for down, side in zip(self.down, self.side, strict=True):
            x = down(x)
            seen.append(side(x))
        told = seen[1] + functional.interpolate(seen[2], scale_factor=2.0)
        told = told + functional.avg_pool2d(seen[0], 2)
        return self.head(self.act(self.smooth(told))).flatten(1)


class Warbling(nn.Module):
    """Convolutions over bands and steps of a sound, and a recurrent net over what they tell of each step."""

    def __init__(
        self, bands: int = 16, width: int = 12, hidden: int = 40, outputs: int = 6, act: str = "ReLU",
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, 2, 1), getattr(nn, act)(),
            nn.Conv2d(width, width, 3, 2, 1), getattr(nn, act)(),
        )  # fmt: skip
        self.along = nn.GRU(width * bands // 4, hidden, batch_first=True)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.layers(x[:, None]).flatten(1, 2).transpose(1, 2)
        return self.head(self.drop(self.along(seen)[0].mean(1)))


class Nearby(nn.Module):
    """Attention to letters nearby alone, the less the farther, by heads of unlike reach; and a wide layer."""

    def __init__(self, width: int, heads: int, before: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.before = heads, before
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.ask, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.act, self.drop = nn.GELU(), nn.Dropout(dropout)

    def look(self, x: Tensor, near: Tensor) -> Tensor:
        ask, key, value = self.ask(x).unflatten(2, (3 * self.heads, -1)).transpose(1, 2).chunk(3, 1)
        weight = (ask @ key.transpose(2, 3) / key.shape[3] ** 0.5 + near).softmax(3)
        return self.drop(self.out((weight @ value).transpose(1, 2).flatten(2)))

    def forward(self, x: Tensor, near: Tensor) -> Tensor:
        one, two = self.norms
        if self.before:
            x = x + self.look(one(x), near)
            return x + self.drop(self.narrow(self.act(self.wide(two(x)))))
        x = one(x + self.look(x, near))
        return two(x + self.drop(self.narrow(self.act(self.wide(x)))))


class Sliding(nn.Module):
    """Such blocks over letters; says something of each of them."""

    def __init__(
        self, letters: int = 26, width: int = 40, depth: int = 2, length: int = 32, reach: int = 6,
        outputs: int = 2, before: bool = True, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.letter = nn.Embedding(letters, width)
        self.blocks = nn.ModuleList(Nearby(width, 4, before, dropout) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)
        far = torch.arange(length)[:, None] - torch.arange(length)
        slopes = torch.tensor([0.5, 0.25, 0.0, 0.0])[:, None, None]
        near = -slopes * far.abs()
        near[2, far < 0], near[3, far > 0] = -1e9, -1e9
        near[:, far.abs() > reach] = -1e9
        near.masked_fill_(torch.eye(length, dtype=torch.bool), 0.0)
        self.near: Tensor
        self.register_buffer("near", near)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.letter(x)
        for block in self.blocks:
            seen = block(seen, self.near)
        return self.head(self.norm(seen))


class Sifting(nn.Module):
    """A sum over the past of each channel; what goes in, how fast it fades and what is read, the letter says itself."""

    def __init__(self, width: int, held: int) -> None:
        super().__init__()
        self.norm, self.parts = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.near = nn.Conv1d(width, width, 3, padding=2, groups=width)
        self.ask, self.pace = nn.Linear(width, 2 * held), nn.Linear(width, width)
        nn.init.constant_(self.pace.bias, -1.0)
        self.fade = nn.Parameter(torch.arange(1.0, held + 1).log().repeat(width, 1))
        self.skip, self.out = nn.Parameter(torch.ones(width)), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        now, gate = self.parts(self.norm(x)).chunk(2, 2)
        now = functional.silu(self.near(now.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        put, read = self.ask(now)[:, :, None].chunk(2, 3)
        pace = functional.softplus(self.pace(now))[..., None]
        keep = (-pace * self.fade.exp()).exp()
        into = pace * now[..., None] * put
        state, told = torch.zeros_like(into[:, 0]), []
        for kept, new in zip(keep.unbind(1), into.unbind(1), strict=True):
            state = kept * state + new
            told.append(state)
        heard = (torch.stack(told, 1) * read).sum(3) + self.skip * now
        return x + self.out(heard * functional.silu(gate))


def sifting(vocabulary: int = 40, width: int = 48, held: int = 4, depth: int = 2) -> nn.Module:
    """A language model of such layers."""
    blocks = [Sifting(width, held) for _ in range(depth)]
    return nn.Sequential(
        nn.Embedding(vocabulary, width),
        *blocks,
        nn.LayerNorm(width),
        nn.Linear(width, vocabulary),
    )


class Switched(nn.Module):
    """Causal attention, and for each letter the two of four wide layers that it is sent to."""

    def __init__(self, width: int, heads: int, experts: int, act: str) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.send = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), getattr(nn, act)(), nn.Linear(2 * width, width))
            for _ in range(experts)
        )  # fmt: skip

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        seen = self.norms[0](x)
        x = x + self.look(seen, seen, seen, attn_mask=past, need_weights=False)[0]
        seen = self.norms[1](x)
        most, which = self.send(seen).topk(2, 2)
        share = torch.zeros_like(seen[..., : len(self.experts)]).scatter(2, which, most.softmax(2))
        told = torch.stack([expert(seen) for expert in self.experts], 3)
        return x + (told * share[:, :, None]).sum(3)


class Switching(nn.Module):
    """A language model of such blocks."""

    def __init__(
        self, vocabulary: int = 40, width: int = 40, depth: int = 2, length: int = 24, experts: int = 4,
        act: str = "GELU",
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token.weight, std=0.3)
        self.place = nn.Parameter(0.1 * torch.randn(length, width))
        self.blocks = nn.ModuleList(Switched(width, 4, experts, act) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        self.past: Tensor
        self.register_buffer("past", torch.ones(length, length).triu(1).bool())

    def forward(self, x: Tensor) -> Tensor:
        seen = self.token(x) + self.place
        for block in self.blocks:
            seen = block(seen, self.past)
        return self.head(self.norm(seen))


NETS: dict[str, Callable[..., nn.Module]] = {
    "selective": selective,
    "octaves": Octaves,
    "correlating": Correlating,
    "moving": Moving,
    "pyramid": Pyramid,
    "warbling": Warbling,
    "sliding": Sliding,
    "sifting": sifting,
    "switching": Switching,
    **tables.NETS,
}
