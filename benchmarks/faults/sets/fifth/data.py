"""Data of the fifth set that was held out: looked at, and tuned on since."""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Callable

import torch
from sklearn import datasets as made
from torch import Tensor
from torch.nn import functional

from .... import _data
from ...._data import TEXT, Batch
from ..second.data import letters_of

SIDE, LINE, SHORT = 16, 40, 20
"""Pixels of a picture's side, letters of a line of prose, of a piece of a source."""
SOURCES = ("difflib.py", "tarfile.py", "smtplib.py")


def _chance() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def _even(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.std()


def _apart(x: Tensor) -> Tensor:
    """Return columns of mean 0 and deviation 1."""
    return (x - x.mean(0)) / x.std(0)


def _turned(pictures: Tensor, angle: Tensor, size: float, side: int) -> Tensor:
    """Return pictures (N, 1, H, W) turned by angles in radians, on a ground of `side` pixels."""
    turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), 1).view(-1, 2, 2)
    turn = torch.cat((turn / size, torch.zeros(len(angle), 2, 1)), 2)
    grid = functional.affine_grid(turn, [len(angle), 1, side, side], align_corners=False)
    return functional.grid_sample(pictures, grid, align_corners=False)


def signs() -> Batch:
    """Return 3,000 colour pictures of the digits 0 to 5 on a striped or clouded ground; mean 0, deviation 1."""
    chance = _chance()
    x, y = _data.digits()
    few = (y < 6).nonzero()[:, 0]
    rows = few[torch.randint(len(few), (3000,), generator=chance)]
    ink = functional.interpolate(x[rows].view(-1, 1, 8, 8), size=(SIDE, SIDE), mode="bilinear")
    axis = torch.arange(SIDE) / SIDE
    pace = 3 * torch.randn(3000, 2, 1, 1, generator=chance)
    stripes = (2 * math.pi * (pace[:, :1] * axis[:, None] + pace[:, 1:] * axis)).sin()
    clouds = functional.interpolate(
        torch.randn(3000, 1, 4, 4, generator=chance), size=(SIDE, SIDE), mode="bilinear"
    )
    ground = torch.where(torch.rand(3000, 1, 1, 1, generator=chance) < 0.5, stripes, clouds)
    tint = torch.randn(2, 3000, 3, 1, 1, generator=chance)
    x = 0.3 * tint[0] * ground + (1 + 0.4 * tint[1]) * ink
    return _even(x + 0.1 * torch.randn(x.shape, generator=chance)), y[rows]


def clocks() -> Batch:
    """Return 3,200 grey faces of clocks with two hands, not quite straight; the class is one of eight hours."""
    chance, many = _chance(), 3200
    y = torch.randint(8, (many,), generator=chance)
    minute = torch.rand(many, generator=chance)
    tilt = 0.2 * torch.randn(many, generator=chance)
    turn = 2 * math.pi * torch.stack(((y + 0.8 * minute - 0.4) / 8, minute), 1) + tilt[:, None]
    middle = SIDE / 2 - 0.5 + 0.8 * torch.randn(many, 2, 1, 1, generator=chance)
    axis = torch.arange(SIDE, dtype=torch.float32)
    down, along = axis[:, None] - middle[:, 0], axis - middle[:, 1]
    x = 0.6 * (-(((down**2 + along**2).sqrt() - 7) ** 2)).exp()
    for hand, (long, wide) in enumerate(((4.0, 1.0), (6.5, 0.4))):
        out = turn[:, hand, None, None]
        ahead = along * out.sin() - down * out.cos()
        aside = along * out.cos() + down * out.sin()
        x = x + (-(aside**2) / wide).exp() * ((ahead > 0) & (ahead < long))
    x = x[:, None] + 0.15 * torch.randn(many, 1, SIDE, SIDE, generator=chance)
    return _even(x), y


def tilts() -> Batch:
    """Return 3,200 turned digits of 12 by 12 pixels; the class, and the angle in deviations of itself."""
    chance = _chance()
    x, y = _data.digits()
    rows = torch.randint(len(x), (3200,), generator=chance)
    angle = 0.6 * torch.randn(len(rows), generator=chance).clamp(-2, 2)
    pictures = _turned(x[rows].view(-1, 1, 8, 8), angle, 0.85, 12)
    pictures = pictures + 0.05 * torch.randn(pictures.shape, generator=chance)
    return _even(pictures), torch.stack((y[rows].float(), angle / angle.std()), 1)


def twice() -> Batch:
    """Return two pictures of each of 8,800 digits, turned, moved and spotted by themselves; and the digit."""
    chance = _chance()
    x, y = _data.digits()
    rows = torch.arange(len(x)).repeat(5)[:8800]
    seen = []
    for _ in range(2):
        angle = 0.3 * torch.randn(len(rows), generator=chance)
        view = _turned(x[rows].view(-1, 1, 8, 8), angle, 1.0, 8)
        kept = torch.rand(view.shape, generator=chance) > 0.15
        seen.append((view * kept + 0.05 * torch.randn(view.shape, generator=chance)).flatten(1))
    return _even(torch.cat(seen, 1)), y[rows]


def bags() -> Batch:
    """Return 3,000 bags of seven digits, of which one is 0, 1, 2 or 3 and the others more; which it is."""
    chance = _chance()
    x, y = _data.digits()
    low, high = (y < 4).nonzero()[:, 0], (y > 3).nonzero()[:, 0]
    rows = high[torch.randint(len(high), (3000, 7), generator=chance)]
    one = low[torch.randint(len(low), (3000,), generator=chance)]
    rows[torch.arange(3000), torch.randint(7, (3000,), generator=chance)] = one
    return _even(x[rows]), y[one]


def beats() -> Batch:
    """Return 96 values of hearts that beat evenly, early, wide, without a first wave, or fast."""
    chance, many = _chance(), 4000
    y = torch.randint(5, (many,), generator=chance)
    step = torch.arange(96.0)
    every = (26 + 3 * torch.randn(many, generator=chance)) * torch.where(y == 4, 0.65, 1.0)
    begin = 20 * torch.rand(many, generator=chance)
    x = 0.2 * (step / (15 + 20 * torch.rand(many, 1, generator=chance))).sin()
    early = torch.randint(1, 3, (many,), generator=chance)
    for beat in range(6):
        at = begin + every * beat - 0.35 * every * ((y == 1) & (early == beat))
        past = step - at[:, None]
        wide = torch.where((y == 2) & (torch.rand(many, generator=chance) < 0.7), 3.0, 1.0)
        first = 0.3 * (y != 3)[:, None] * (-((past + 6) ** 2) / 6).exp()
        last = 0.4 * (-((past - 8) ** 2) / 12).exp()
        x = x + first + last + 1.5 * (-(past**2) / (2 * wide[:, None])).exp()
    x = x + 0.1 * torch.randn(x.shape, generator=chance)
    return _even(x)[:, None], y


def delays() -> Batch:
    """Return 48 values of a system that its own past drives (Mackey and Glass), and the value six steps on."""
    values = [1.2] * 18
    for _ in range(26000):
        past = values[-18]
        values.append(values[-1] + 0.2 * past / (1 + past**10) - 0.1 * values[-1])
    line = _even(torch.tensor(values[1000::2]))
    line = line + 0.05 * torch.randn(line.shape, generator=_chance())
    rows = line.unfold(0, 54, 3)
    return rows[:, None, :48], rows[:, -1:]


def prose() -> Batch:
    """Return lines of the reference manual of Python, and the letter behind each letter."""
    codes = letters_of("pydoc_data/topics.py")
    rows = codes[: len(codes) // (LINE + 1) * (LINE + 1)].view(-1, LINE + 1)
    rows = rows[torch.randperm(len(rows), generator=_chance())[:5000]]
    return rows[:, :-1], rows[:, 1:]


def kinds() -> Batch:
    """Return pieces of sources, and of each letter what it is part of: nothing, a name, a text, a remark, a sign."""
    letters, told = [], []
    for name in SOURCES:
        source = (TEXT / name).read_text(encoding="utf-8")
        starts = [0]
        for line in source.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        kind = torch.zeros(len(source), dtype=torch.long)
        known = {tokenize.NAME: 1, tokenize.STRING: 2, tokenize.COMMENT: 3, tokenize.OP: 4}
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            first = starts[token.start[0] - 1] + token.start[1]
            kind[first : starts[token.end[0] - 1] + token.end[1]] = known.get(token.type, 0)
        letters.append(letters_of(name))
        told.append(kind)
    x, y = torch.cat(letters), torch.cat(told)
    whole = len(x) // SHORT * SHORT
    rows = torch.randperm(whole // SHORT, generator=_chance())[:5000]
    return x[:whole].view(-1, SHORT)[rows], y[:whole].view(-1, SHORT)[rows]


def stories() -> Batch:
    """Return twelve times who (of six) went where (of eight), and one that is asked for; where he is at last."""
    chance, many = _chance(), 6000
    who = torch.randint(6, (many, 12), generator=chance)
    where = torch.randint(8, (many, 12), generator=chance)
    asked = who[torch.arange(many), torch.randint(12, (many,), generator=chance)]
    last = ((who == asked[:, None]) * torch.arange(1, 13)).argmax(1)
    told = torch.stack((who, 6 + where), 2).flatten(1)
    return torch.cat((told, asked[:, None]), 1), where[torch.arange(many), last]


def overlaps() -> Batch:
    """Return six discs by place and size; the class is how many pairs of them touch, three or more as one."""
    chance, many = _chance(), 8000
    place = torch.rand(many, 6, 2, generator=chance)
    size = 0.04 + 0.13 * torch.rand(many, 6, 1, generator=chance)
    far = (place[:, :, None] - place[:, None]).norm(dim=3)
    touch = (far < size + size.transpose(1, 2)).triu(1).sum((1, 2))
    return torch.cat(((place - 0.5) / 0.29, (size - 0.105) / 0.0375), 2), touch.clamp_max(3)


def networks() -> Batch:
    """Return who of 16 is linked to whom, and how many links each has; rings, stars, two groups, or chance."""
    chance, many, members = _chance(), 3000, 16
    y = torch.randint(4, (many,), generator=chance)
    number = torch.arange(members)
    apart = (number[:, None] - number).abs()
    near = (apart < 3) | (apart > members - 3)
    group = (number[:, None] < 8) == (number < 8)
    hub = (number[:, None] < 2) | (number < 2)
    share = torch.stack(
        (
            0.75 * near,
            0.65 * hub,
            0.4 * group + 0.02,
            torch.full_like(near, 0.2, dtype=torch.float32),
        )
    )
    links = (torch.rand(many, members, members, generator=chance) < share[y]).triu(1)
    mixed = torch.rand(many, members, generator=chance).argsort(1)
    links = (links | links.transpose(1, 2))[
        torch.arange(many)[:, None, None], mixed[:, :, None], mixed[:, None]
    ]
    x = (links | torch.eye(members, dtype=torch.bool)).float()
    degree = x.sum(2)
    about = (x @ degree[:, :, None])[:, :, 0] / degree
    closed = (x @ x * x).sum(2) / degree**2
    known = torch.stack((degree, about, closed, torch.randn(many, members, generator=chance)), 2)
    known = (known - known.mean((0, 1))) / known.std((0, 1))
    return torch.cat((x, known), 2), y


def soils() -> Batch:
    """Return twelve columns of soil that depend on each other; the class is one of seven layers."""
    chance, many = _chance(), 6000
    hidden = torch.randn(many, 5, generator=chance)
    x = hidden @ torch.randn(5, 12, generator=chance) + 0.4 * torch.randn(
        many, 12, generator=chance
    )
    place = torch.randn(7, 5, generator=chance)
    far = ((hidden[:, None] - 1.2 * place) ** 2).sum(2) + 0.3 * torch.randn(
        many, 7, generator=chance
    )
    return _apart(x + 0.3 * x.roll(1, 1).abs()), (far - far.mean(0)).argmin(1)


def credit() -> Batch:
    """Return 18 columns of who borrows, some of them of heavy tails as logarithms; one in eight does not pay."""
    chance, many = _chance(), 8000
    x = torch.randn(many, 18, generator=chance)
    told = (
        1.4 * x[:, 0]
        - x[:, 1] * x[:, 2]
        + 1.2 * (x[:, 3] > 0.5)
        - 1.1 * x[:, 4].abs()
        + 0.8 * x[:, 5]
    )
    y = torch.rand(many, generator=chance) < (2 * (told - 1.9)).sigmoid()
    x[:, 6:9] = (1 + x[:, 6:9].exp()).log()
    return _apart(x), y.long()


def wards() -> Batch:
    """Return 16 columns about a patient, and which of five stages were reached: a one for each up to the last."""
    chance, many = _chance(), 12000
    x = torch.randn(many, 16, generator=chance)
    told = x[:, 0] + x[:, 1] * x[:, 2] + (2 * x[:, 3]).sin() + 0.7 * x[:, 4] ** 2
    told = _even(told) + 0.3 * torch.randn(many, generator=chance)
    return x, (told[:, None] > torch.tensor([-0.9, -0.3, 0.3, 1.0])).float()


def rentals() -> Batch:
    """Return hour, weather and seven more columns, and how many bicycles were hired."""
    chance, many = _chance(), 6000
    x = 3.4 * (torch.rand(many, 9, generator=chance) - 0.5)
    rate = (
        1.2
        + 0.9 * (2 * x[:, 0]).sin()
        - 0.5 * x[:, 1] ** 2
        + 0.6 * x[:, 2]
        + 0.5 * (3 * x[:, 3]).cos()
    )
    return x, torch.poisson(rate.exp(), generator=chance)[:, None]


def claims() -> Batch:
    """Return twelve columns of what was insured, and what a damage cost: mean 1.3, with a heavy tail."""
    chance, many = _chance(), 12000
    x = torch.randn(many, 12, generator=chance)
    level = 0.6 * x[:, 0] - 0.5 * (x[:, 1] > 0) + 0.4 * x[:, 2] * x[:, 3] + 0.3 * x[:, 4].abs()
    drawn = -(1 - torch.rand(2, many, generator=chance)).log().sum(0) / 2
    return x, (level.exp() * drawn)[:, None]


def relief() -> Batch:
    """Return 6,000 places of a mountain range, and how high and how wet it is there."""
    chance = _chance()
    x = 2 * torch.rand(6000, 2, generator=chance) - 1
    y = torch.zeros(6000, 2)
    for octave in range(12):
        pace = torch.randn(2, 2, generator=chance) * 1.6 ** (octave / 2)
        wave = (math.pi * x @ pace + 6 * torch.rand(2, generator=chance)).sin()
        y = y + wave / 1.35 ** (octave / 2)
    ridge = 1.5 - 2 * (x[:, 0] - 0.4 * (2 * x[:, 1]).sin()).abs()
    y[:, 0] = y[:, 0] + 2 * ridge.clamp_min(0)
    return x * 1.7, _apart(y)


def sparse() -> Batch:
    """Return what four of 48 causes make of 24 values, with noise, and how strong each cause was."""
    seen, _, causes = made.make_sparse_coded_signal(
        6000, n_components=48, n_features=24, n_nonzero_coefs=4, random_state=0
    )
    x = torch.tensor(seen, dtype=torch.float32)
    x = _even(x) + 0.05 * torch.randn(x.shape, generator=_chance())
    return x, _even(torch.tensor(causes, dtype=torch.float32))


DATA: dict[str, Callable[..., Batch]] = {
    "signs": signs,
    "clocks": clocks,
    "tilts": tilts,
    "twice": twice,
    "bags": bags,
    "beats": beats,
    "delays": delays,
    "prose": prose,
    "kinds": kinds,
    "stories": stories,
    "overlaps": overlaps,
    "networks": networks,
    "soils": soils,
    "credit": credit,
    "wards": wards,
    "rentals": rentals,
    "claims": claims,
    "relief": relief,
    "sparse": sparse,
}
