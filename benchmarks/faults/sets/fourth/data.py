"""Data of the fourth set that was held out: looked at, and tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from sklearn import datasets as made
from torch import Tensor
from torch.nn import functional

from .... import _data
from ...._data import Batch
from ..second.data import letters_of

SIDE, WINDOW, ROW, LENGTH = 16, 48, 24, 8
"""Pixels of a picture's side, letters of a text, of a row, and of a word that is translated."""
MODULES = (
    "mailbox.py",
    "locale.py",
    "html/entities.py",
    "imaplib.py",
    "plistlib.py",
    "calendar.py",
)


def _chance() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _even(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.std()


def _apart(x: Tensor) -> Tensor:
    """Return columns of mean 0 and deviation 1."""
    return (x - x.mean(0)) / x.std(0)


def lit() -> Batch:
    """Return 3,000 grey digits under a light of any strength that falls off to one side; mean 0, deviation 1."""
    chance = _chance()
    x, y = _data.digits()
    rows = torch.randint(len(x), (3000,), generator=chance)
    pictures = functional.interpolate(x[rows].view(-1, 1, 8, 8), size=(SIDE, SIDE), mode="bilinear")
    moved = torch.randint(-2, 3, (len(rows), 2), generator=chance).tolist()
    pictures = torch.stack(
        [picture.roll(by, (1, 2)) for picture, by in zip(pictures, moved, strict=True)]
    )
    axis = torch.linspace(-1, 1, SIDE)
    fall = torch.randn(len(rows), 2, 1, 1, generator=chance) / 4
    light = fall[:, :1] * axis[:, None] + fall[:, 1:] * axis
    strength = 0.3 + 0.7 * torch.rand(len(rows), 1, 1, 1, generator=chance)
    pictures = strength * pictures + light + 0.08 * torch.randn(pictures.shape, generator=chance)
    return _even(pictures), y[rows]


def shapes() -> Batch:
    """Return 3,000 discs, squares, triangles, crosses and rings of any size, place and colour."""
    chance, many = _chance(), 3000
    y = torch.randint(5, (many,), generator=chance)
    axis = torch.arange(SIDE, dtype=torch.float32)
    size = 2.5 + 2.5 * torch.rand(many, 1, 1, generator=chance)
    middle = 5 + 6 * torch.rand(2, many, 1, 1, generator=chance)
    down, along = axis[:, None] - middle[0], (axis - middle[1]).abs()
    far, wide = (down**2 + along**2).sqrt(), torch.maximum(down.abs(), along)
    kinds = (
        far < size, wide < 0.9 * size, (down.abs() < size) & (along < (down + size) / 2),
        (torch.minimum(down.abs(), along) < 0.3 * size) & (wide < size),
        (far < size) & (far > 0.6 * size),
    )  # fmt: skip
    inked = torch.stack(kinds, 1)[torch.arange(many), y][:, None].float()
    ground = 0.4 * torch.rand(many, 3, 1, 1, generator=chance)
    colour = 0.4 + 0.6 * torch.rand(many, 3, 1, 1, generator=chance)
    x = torch.lerp(ground, colour, inked)
    return _even(x + 0.12 * torch.randn(x.shape, generator=chance)), y


def counted() -> Batch:
    """Return 3,600 grey pictures of one to four spots of any size; the class is how many there are."""
    chance, many = _chance(), 3600
    y = torch.randint(4, (many,), generator=chance)
    axis = torch.arange(SIDE, dtype=torch.float32)
    corner = torch.stack([torch.randperm(4, generator=chance) for _ in range(many)])
    where = torch.stack((corner // 2, corner % 2)) * 8 + 2.0
    where = where + 3 * torch.rand(2, many, 4, generator=chance)
    wide = 0.8 + 0.8 * torch.rand(many, 4, 1, 1, generator=chance)
    far = (axis[:, None] - where[0, ..., None, None]) ** 2 + (axis - where[1, ..., None, None]) ** 2
    spots = (-far / (2 * wide**2)).exp() * (torch.arange(4) <= y[:, None])[..., None, None]
    x = spots.sum(1, keepdim=True)
    return _even(x + 0.15 * torch.randn(x.shape, generator=chance)), y


def inked() -> Batch:
    """Return digits of twelve by twelve pixels, moved by up to a pixel; they are their own targets."""
    chance = _chance()
    x = _data.digits()[0].repeat(3, 1).view(-1, 1, 8, 8)
    large = functional.interpolate(x, size=(10, 10), mode="bilinear")
    pictures = torch.zeros(len(x), 12, 12)
    corners = torch.randint(3, (len(x), 2), generator=chance).tolist()
    for picture, (top, left), digit in zip(pictures, corners, large[:, 0], strict=True):
        picture[top : top + 10, left : left + 10] = digit
    flat = pictures.flatten(1).clamp(0, 1)
    return flat, flat


def origins() -> Batch:
    """Return windows of letters from modules of the standard library, and which of six each is from."""
    texts = [letters_of(name) for name in MODULES]
    rows = [codes[: len(codes) // WINDOW * WINDOW].view(-1, WINDOW)[:900] for codes in texts]
    return torch.cat(rows), torch.arange(len(rows)).repeat_interleave(
        torch.tensor([len(some) for some in rows])
    )


def motifs() -> Batch:
    """Return rows of twelve letters that hide one of six pairs, some places apart; the class is which."""
    chance, many = _chance(), 6000
    x = torch.randint(12, (many, ROW), generator=chance)
    y = torch.randint(6, (many,), generator=chance)
    first, second = torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([6, 7, 8, 9, 10, 11])
    for _ in range(3):
        at = torch.randint(ROW - 2, (many,), generator=chance)
        x[torch.arange(many), at], x[torch.arange(many), at + 2] = first[y], second[y]
    return x, y


def translated() -> Batch:
    """Return words of twelve letters with their translation one letter late, and the translation.

    A word is translated letter by letter, from its end to its beginning.
    """
    chance = _chance()
    words = torch.randint(12, (5000, LENGTH), generator=chance)
    told = torch.randperm(12, generator=chance)[words].flip(1)
    late = torch.cat((torch.full((len(words), 1), 12), told[:, :-1]), 1)
    return torch.cat((words, late), 1), told


def tides() -> Batch:
    """Return 48 values of two waves and a slope with noise, and the twelve values behind them."""
    chance, many = _chance(), 4000
    step = torch.arange(60.0)
    pace = 2 * math.pi / (6 + 18 * torch.rand(2, many, 1, generator=chance))
    phase = 2 * math.pi * torch.rand(2, many, 1, generator=chance)
    high = 0.4 + torch.rand(2, many, 1, generator=chance)
    values = (high * (pace * step + phase).sin()).sum(0)
    values = values + 0.6 * torch.randn(many, 1, generator=chance) * (step / 30 - 1)
    values = _even(values + 0.1 * torch.randn(values.shape, generator=chance))
    return values[:, :48], values[:, 48:]


def waves() -> Batch:
    """Return smooth lines of 64 points, and what they are once they have steepened and spread."""
    chance, many, points = _chance(), 3000, 64
    pace = torch.fft.rfftfreq(points, 1 / points)
    drawn = torch.randn(2, many, len(pace), generator=chance) * torch.exp(-pace / 2) * (pace > 0)
    line = torch.fft.irfft(torch.complex(drawn[0], drawn[1]), n=points)
    line = line / line.std()
    start, moment = line, 0.002
    fading = torch.exp(-0.03 * moment * pace**2)
    for _ in range(150):
        steep = torch.fft.rfft(line**2 / 2) * (2j * math.pi / 6) * pace * (pace < points / 3)
        line = torch.fft.irfft((torch.fft.rfft(line) - moment * steep) * fading, n=points)
    return start[:, None], (line / line.std())[:, None]


def ratings() -> Batch:
    """Return who rates what, of 300 and 200, and how high: taste, kindness, quality and noise."""
    chance, many = _chance(), 24000
    who = torch.randint(300, (many,), generator=chance)
    what = (200 * torch.rand(many, generator=chance) ** 1.5).long()
    taste, nature = torch.randn(300, 4, generator=chance), torch.randn(200, 4, generator=chance)
    kind, good = torch.randn(300, generator=chance), torch.randn(200, generator=chance)
    y = (taste[who] * nature[what]).sum(1) / 2 + kind[who] + good[what]
    y = y + 0.4 * torch.randn(many, generator=chance)
    return torch.stack((who, what), 1), _even(y)[:, None]


def decisions() -> Batch:
    """Return 14 columns, of which five ask four questions in turn; the class is what they end at."""
    chance, many = _chance(), 6000
    x = torch.randn(many, 14, generator=chance)
    above = (x > torch.linspace(-0.6, 0.6, 14)).long()
    y = torch.where(
        above[:, 2] == 1, 2 * above[:, 7] + above[:, 11] % 2, 1 + above[:, 4] + 2 * above[:, 9] % 3
    )
    wrong = torch.rand(many, generator=chance) < 0.02
    return x, torch.where(wrong, torch.randint(4, (many,), generator=chance), y)


def customers() -> Batch:
    """Return ages, sums of heavy tails (as logarithms) and kinds as columns of ones; who stays, who goes."""
    chance, many = _chance(), 6000
    numbers = torch.randn(many, 6, generator=chance)
    numbers[:, 1:3] = (1 + numbers[:, 1:3].exp()).log()
    kinds = torch.randint(4, (2, many), generator=chance)
    marks = [functional.one_hot(kind, 4).float() for kind in kinds]
    told = 1.5 * numbers[:, 0] - 2 * numbers[:, 3].abs() + numbers[:, 4] * (kinds[0] - 1.5)
    told = told + torch.tensor([1.0, -1.0, 2.0, -2.0])[kinds[1]] + 1.2
    y = torch.rand(many, generator=chance) < (2 * told).sigmoid()
    return torch.cat((_apart(numbers), *marks), 1), y.long()


def blobs() -> Batch:
    """Return 16 columns, of which eight classes lie about places of their own, close to each other."""
    drawn = made.make_blobs(
        6000, 16, centers=8, cluster_std=3.8, center_box=(-5, 5), random_state=2
    )
    return _data.standard(drawn[0], drawn[1])


def spirals() -> Batch:
    """Return places on three arms that wind about one middle, and the arm."""
    chance, many = _chance(), 6000
    y = torch.randint(3, (many,), generator=chance)
    far = torch.rand(many, generator=chance).sqrt()
    turn = 2 * math.pi * (y / 3 + 1.1 * far)
    x = torch.stack((far * turn.cos(), far * turn.sin()), 1)
    return _apart(x + 0.03 * torch.randn(x.shape, generator=chance)), y


def inverse() -> Batch:
    """Return a number that up to three others may have led to, two more columns, and the one that did."""
    chance, many = _chance(), 5000
    y = torch.rand(many, generator=chance)
    rest = torch.randn(many, 2, generator=chance)
    x = y + 0.3 * (2 * math.pi * y + rest[:, 0]).sin() + 0.03 * torch.randn(many, generator=chance)
    return torch.cat((_even(x)[:, None], rest), 1), _even(y)[:, None]


def prices() -> Batch:
    """Return ten columns of houses, and a price whose noise is the larger the larger the house."""
    chance, many = _chance(), 5000
    x = torch.randn(many, 10, generator=chance)
    worth = x[:, 0] + x[:, 1] * x[:, 2] / 2 + (2 * x[:, 3]).tanh() - x[:, 4].abs() / 2
    noise = (0.1 + 0.4 * x[:, 0].sigmoid()) * torch.randn(many, generator=chance)
    return x, _even(worth + noise)[:, None]


def pendulums() -> Batch:
    """Return the angles and speeds of two pendulums on a common spring, and what they are a while later."""
    chance, many, moment = _chance(), 5000, 0.02
    start = 1.2 * torch.randn(many, 4, generator=chance)
    angle, speed = start[:, :2], start[:, 2:]
    for _ in range(100):
        speed = speed - moment * (3 * angle.sin() + (angle - angle.flip(1)))
        angle = angle + moment * speed
    return _apart(start), _apart(torch.cat((angle, speed), 1))


def bent() -> Batch:
    """Return six columns that lie near a bent sheet; whoever learns how dense they are asks no target."""
    chance, many = _chance(), 6000
    sheet = 4 * torch.rand(many, 2, generator=chance) - 2
    first, second = sheet.unbind(1)
    x = torch.stack(
        (first, second, first**2 / 2, (2 * second).sin(), first * second / 2, (first + second).tanh()), 1
    )  # fmt: skip
    x = _apart(x + 0.15 * torch.randn(x.shape, generator=chance))
    return x, x


DATA: dict[str, Callable[[], Batch]] = {
    "lit": lit,
    "shapes": shapes,
    "counted": counted,
    "inked": inked,
    "origins": origins,
    "motifs": motifs,
    "translated": translated,
    "tides": tides,
    "waves": waves,
    "ratings": ratings,
    "decisions": decisions,
    "customers": customers,
    "blobs": blobs,
    "spirals": spirals,
    "inverse": inverse,
    "prices": prices,
    "pendulums": pendulums,
    "bent": bent,
}
