"""Data of the seventh set that was held out: looked at, and tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .... import _data
from ...._data import Batch
from . import texts

SIDE = 20
"""Pixels of a picture's side."""
CODES = (".", "-", ".-", "..", "-.", "--", "...", ".-.")
"""What eight letters sound like."""


def _chance() -> torch.Generator:
    return torch.Generator().manual_seed(6)


def _even(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.std()


def _apart(x: Tensor) -> Tensor:
    """Return columns of mean 0 and deviation 1."""
    return (x - x.mean(0)) / x.std(0)


def wafers() -> Batch:
    """Return 3,600 maps of chips that failed on a wafer: a middle, a ring, an edge, a spot, a scratch, or strewn."""
    chance, many = _chance(), 3600
    y = torch.randint(6, (many,), generator=chance)
    axis = torch.linspace(-1, 1, SIDE)
    down, along = axis[:, None].expand(SIDE, SIDE), axis.expand(SIDE, SIDE)
    turn = 6.3 * torch.rand(many, 1, 1, generator=chance)
    size = 0.75 + 0.5 * torch.rand(many, 1, 1, generator=chance)
    far = ((down - 0.1 * turn.sin()) ** 2 + (along - 0.1 * turn.cos()) ** 2).sqrt()
    apart = ((down - 0.6 * turn.sin()) ** 2 + (along - 0.6 * turn.cos()) ** 2).sqrt()
    across = down * turn.cos() - along * turn.sin() - 0.3 * size
    length = down * turn.sin() + along * turn.cos()
    zones = (
        far < 0.45 * size,
        (far > 0.4 * size) & (far < 0.72 * size),
        far > 0.86,
        apart < 0.38 * size,
        ((across + 0.3 * length**2).abs() < 0.09) & (length.abs() < 0.7 * size),
        far < 0,
    )
    zone = torch.stack([z.expand(many, SIDE, SIDE) for z in zones], 1)[torch.arange(many), y]
    strength = 0.3 + 0.35 * torch.rand(many, 1, 1, generator=chance)
    ground = 0.05 + 0.2 * torch.rand(many, 1, 1, generator=chance)
    failed = torch.rand(many, SIDE, SIDE, generator=chance) < ground + strength * zone
    x = failed.float() + 0.2 * torch.randn(many, SIDE, SIDE, generator=chance)
    return _even(x * (down**2 + along**2 < 1.05))[:, None], y


def leaves() -> Batch:
    """Return 2,400 pictures of 10 by 10 in which leaves of any size cover each other, and them at twice the side."""
    chance, many = _chance(), 2400
    axis = torch.linspace(0, 1, 2 * SIDE)
    x = torch.zeros(many, 2 * SIDE, 2 * SIDE)
    for _ in range(40):
        middle = 1.2 * torch.rand(2, many, 1, 1, generator=chance) - 0.1
        size = 0.05 * torch.rand(many, 1, 1, generator=chance).clamp_min(0.02) ** -0.5
        turn = 6.3 * torch.rand(many, 1, 1, generator=chance)
        down, along = axis[:, None] - middle[0], axis - middle[1]
        u, v = turn.cos() * along - turn.sin() * down, turn.sin() * along + turn.cos() * down
        box = torch.rand(many, 1, 1, generator=chance) < 0.5
        inside = (
            torch.where(box, torch.maximum(u.abs(), 1.5 * v.abs()), (u**2 + v**2).sqrt()) < size
        )
        x = torch.where(inside, torch.rand(many, 1, 1, generator=chance), x)
    large = functional.avg_pool2d(_even(x)[:, None], 2)
    small = functional.avg_pool2d(large, 2)
    return small + 0.05 * torch.randn(small.shape, generator=chance), large.flatten(1)


def greys() -> Batch:
    """Return digits of four greys, which are their own targets."""
    x = (_data.digits()[0] * 3.99).long()
    return x, x


def solids() -> Batch:
    """Return 48 points on the surface of a ball, a box, a can, a cone, a ring or an egg, at any turn and size."""
    chance, many, points = _chance(), 4000, 48
    y = torch.randint(6, (many,), generator=chance)
    u, v, w = torch.rand(3, many, points, generator=chance)
    round_, high = 2 * math.pi * u, 2 * v - 1
    flat = (1 - high**2).sqrt()
    ball = torch.stack((flat * round_.cos(), flat * round_.sin(), high), 2)
    box = torch.stack((2 * u - 1, high, (w * 6 % 1) * 2 - 1), 2)
    side = (w * 3).long()[..., None]
    box = 0.8 * box.scatter(2, side, box.gather(2, side).sign())
    lid = torch.where(w < 0.3, v.sqrt(), 1.0)
    can = torch.stack((0.8 * lid * round_.cos(), 0.8 * lid * round_.sin(),
                       torch.where(w < 0.3, (w < 0.15) * 2.0 - 1, high)), 2)  # fmt: skip
    cone = torch.stack((v.sqrt() * round_.cos(), v.sqrt() * round_.sin(),
                        torch.where(w < 0.3, 1.0, 2 * v.sqrt() - 1)), 2)  # fmt: skip
    tube = 2 * math.pi * v
    ring = torch.stack(((0.9 + 0.35 * tube.cos()) * round_.cos(), (0.9 + 0.35 * tube.cos()) * round_.sin(),
                        0.35 * tube.sin()), 2)  # fmt: skip
    egg = ball * torch.tensor([0.75, 0.75, 1.35])
    x = torch.stack((ball, box, can, cone, ring, egg), 1)[torch.arange(many), y]
    turn = torch.linalg.qr(torch.randn(many, 3, 3, generator=chance))[0]
    x = (0.8 + 0.4 * torch.rand(many, 1, 1, generator=chance)) * x @ turn
    return _even(x + 0.07 * torch.randn(x.shape, generator=chance)), y


def radar() -> Batch:
    """Return six pictures of rain that drifts and fades, 12 by 12, and the seventh of each."""
    chance, many, side = _chance(), 2600, 12
    pace = torch.randint(-3, 4, (2, many, 12, 1, 1, 1), generator=chance) * 2 * math.pi / side
    much, phase = torch.rand(2, many, 12, 1, 1, 1, generator=chance)
    wind = 1.2 * torch.randn(2, many, 1, 1, 1, 1, generator=chance)
    time = torch.arange(7.0)[:, None, None]
    axis = torch.arange(float(side))
    down, along = axis[:, None] - wind[0] * time, axis - wind[1] * time
    waves = (pace[0] * down + pace[1] * along + 2 * math.pi * phase).cos()
    swell = (0.15 * torch.randn(many, 12, 1, 1, 1, generator=chance) * time).exp()
    rain = ((much + 0.3) * swell * waves).sum(1).relu()
    x = _even(rain + 0.25 * torch.randn(rain.shape, generator=chance))
    return x[:, :6].contiguous(), x[:, 6].flatten(1)


def morse() -> Batch:
    """Return 72 steps of four bands in one of which three letters are tapped, and the letters from 1."""
    chance, many = _chance(), 4000
    letters = torch.randint(8, (many, 3), generator=chance)
    begins = torch.randint(8, (many,), generator=chance).tolist()
    tapped = torch.zeros(many, 80)
    for row, told in enumerate(letters.tolist()):
        place = begins[row]
        for letter in told:
            for sound in CODES[letter]:
                long = 2 if sound == "." else 6
                tapped[row, place : place + long] = 1
                place += long + 2
            place += 5
    band = torch.randint(4, (many,), generator=chance)
    loud = 0.8 + 0.6 * torch.rand(many, 1, generator=chance)
    x = 0.4 * torch.randn(many, 4, 72, generator=chance)
    x[torch.arange(many), band] += loud * tapped[:, :72]
    return _even(x), (letters + 1).float()


def arithmetic() -> Batch:
    """Return four pictures of digits and three signs (left, right, more, less) between them; what comes out."""
    chance, many = _chance(), 8000
    digits, told = _data.digits()
    rows = torch.randint(len(digits), (many, 4), generator=chance)
    signs = torch.randint(4, (many, 3), generator=chance)
    value = told[rows]
    for first, pairs in ((0, 2), (2, 1)):
        left, right = value[:, ::2], value[:, 1::2]
        each = torch.stack((left, right, torch.maximum(left, right), torch.minimum(left, right)), 2)
        value = each.gather(2, signs[:, first : first + pairs, None])[..., 0]
    x = _even(digits[rows].flatten(1) + 0.15 * torch.randn(many, 256, generator=chance))
    return torch.cat((x, functional.one_hot(signs, 4).float().flatten(1)), 1), value[:, 0]


def clicks() -> Batch:
    """Return ten things that someone took and one that is offered, of 120, and whether he takes it."""
    chance, many = _chance(), 24000
    group = torch.randint(10, (120,), generator=chance)
    order, sizes = group.argsort(stable=True), group.bincount(minlength=10)
    begins = sizes.cumsum(0) - sizes
    tastes = torch.randint(10, (many, 3), generator=chance)
    chosen = tastes.gather(1, torch.randint(3, (many, 11), generator=chance))
    chosen = torch.where(torch.rand(many, 11, generator=chance) < 0.15,
                         torch.randint(10, (many, 11), generator=chance), chosen)  # fmt: skip
    other = torch.rand(many, generator=chance) < 0.4
    chosen[other, 10] = torch.randint(10, (int(other.sum()),), generator=chance)
    which = torch.rand(many, 11, generator=chance)
    x = order[begins[chosen] + (which * sizes[chosen]).long()]
    alike = (group[x[:, :10]] == group[x[:, 10:]]).float().mean(1)
    fame = torch.randn(120, generator=chance)
    odds = 12 * alike + 1.2 * fame[x[:, 10]] - 3.0
    return x, (torch.rand(many, generator=chance) < odds.sigmoid()).long()


def listings() -> Batch:
    """Return twelve hotels with 14 columns each, as they are listed together, and what each gains."""
    chance, many = _chance(), 8000
    x = torch.randn(many, 12, 14, generator=chance)
    price = x[..., 0] - x[..., 0].mean(1, keepdim=True)
    gain = 1.2 * x[..., 1].tanh() - 0.8 * price * (1 + 0.5 * x[..., 2]) - 0.7 * x[..., 3].abs()
    gain = gain + 0.8 * (x[..., 4] > x[..., 4].mean(1, keepdim=True)) * x[..., 5]
    gain = gain + 0.5 * torch.randn(gain.shape, generator=chance)
    return x, 2 * (gain - gain.mean()) / gain.std()


def circuits() -> Batch:
    """Return how well ten nodes conduct to each other and what flows in and out; the tension at each node."""
    chance, many, members = _chance(), 5000, 10
    ring = torch.eye(members).roll(1, 1)
    drawn = (torch.rand(many, members, members, generator=chance) < 0.12).float()
    links = torch.maximum(ring.expand(many, -1, -1), drawn).triu(1) + ring.tril(-1)
    links = links * (0.6 * torch.randn(many, members, members, generator=chance)).exp()
    links = links + links.transpose(1, 2)
    places = torch.rand(many, members, generator=chance).argsort(1)
    flow = (places == 0).float() - (places == 1).float()
    ground = (places == 2).float()
    table = torch.diag_embed(links.sum(2) + ground + 0.02) - links
    tension = torch.linalg.solve(table, flow[..., None])[..., 0]
    y = _even(tension) + 0.15 * torch.randn(tension.shape, generator=chance)
    return torch.cat((links, flow[..., None], ground[..., None]), 2), y


def orbits() -> Batch:
    """Return places and momenta of a star in a galaxy (Henon and Heiles), and how both change, with noise."""
    chance, many = _chance(), 6000
    x = torch.rand(many, 4, generator=chance) * 2 - 1
    one, two = x[:, 0], x[:, 1]
    slope = torch.stack((one + 2 * one * two, two + one**2 - two**2), 1)
    y = torch.cat((x[:, 2:], -slope), 1) / x.std()
    return x / x.std(), y + 0.25 * torch.randn(y.shape, generator=chance)


def doses() -> Batch:
    """Return ten columns of which six can only raise a risk (doses, years of exposure), and who fell ill."""
    chance, many = _chance(), 12000
    x = torch.randn(many, 10, generator=chance)
    free = x[:, 6:]
    tolerant = 0.8 * free[:, 0] - 0.6 * (free[:, 1] > 0) + 0.4 * free[:, 2] * free[:, 3]
    dose = (2 * x[:, 0] - 2 * tolerant).sigmoid() * 4
    odds = (
        dose + 1.5 * x[:, 1].relu() + torch.maximum(x[:, 2], x[:, 3]) + 0.8 * x[:, 4].tanh() - 3.4
    )
    return x, (torch.rand(many, generator=chance) < (1.5 * odds).sigmoid()).long()


def loads() -> Batch:
    """Return 96 hours of what some towns draw from the mains, and the 24 hours behind them."""
    chance, towns, hours = _chance(), 40, 24 * 7 * 20
    time = torch.arange(float(hours))
    day = 2 * math.pi * time / 24
    level = 2 + 0.8 * torch.randn(towns, 1, generator=chance)
    much, phase = torch.rand(2, towns, 4, 1, generator=chance)
    shape = sum(
        (0.3 + much[:, k]) / (k + 1) * ((k + 1) * day + phase[:, k]).cos() for k in range(3)
    )
    rest = 0.35 * ((time // 24) % 7 >= 5)
    drawn, warm = torch.randn(hours, towns, generator=chance), torch.zeros(towns)
    slow = []
    for now in drawn:
        warm = 0.97 * warm + 0.18 * now
        slow.append(warm)
    noise = 0.25 * torch.randn(towns, hours, generator=chance)
    told = _even(level + (1 - rest) * shape + 0.6 * torch.stack(slow, 1) + noise)
    rows = told.unfold(1, 120, 24).flatten(0, 1)
    rows = rows[torch.randperm(len(rows), generator=chance)[:4500]]
    return rows[:, :96].contiguous(), rows[:, 96:].contiguous()


def spikes() -> Batch:
    """Return 12 steps of 64 cells that each fire the more often the brighter their pixel is; which digit it is."""
    chance = _chance()
    x, y = _data.digits()
    likely = 0.03 + 0.45 * x[:, None]
    return (torch.rand(len(x), 12, 64, generator=chance) < likely).float(), y


def minerals() -> Batch:
    """Return 18 logarithms of shares of oxides in six kinds of rock, of which some pass into others."""
    chance, many = _chance(), 12000
    y = torch.randint(6, (many,), generator=chance)
    middle = 1.0 * torch.randn(6, 5, generator=chance)
    other = torch.randint(6, (many,), generator=chance)
    mixed = 0.45 * torch.rand(many, 1, generator=chance) ** 2
    made = (1 - mixed) * middle[y] + mixed * middle[other]
    made = made + 0.55 * torch.randn(many, 5, generator=chance)
    weight = torch.randn(5, 18, generator=chance)
    x = made @ weight + 0.5 * (made @ torch.randn(5, 18, generator=chance)).sin()
    x = 0.5 * x + 0.5 * torch.randn(many, 18, generator=chance)
    return _apart(x.log_softmax(1)), y


DATA: dict[str, Callable[..., Batch]] = {
    "wafers": wafers,
    "leaves": leaves,
    "greys": greys,
    "solids": solids,
    "radar": radar,
    "morse": morse,
    "arithmetic": arithmetic,
    "clicks": clicks,
    "listings": listings,
    "circuits": circuits,
    "orbits": orbits,
    "doses": doses,
    "loads": loads,
    "spikes": spikes,
    "minerals": minerals,
    **texts.DATA,
}
