"""Data that held-out cases alone train on: no threshold was chosen on any of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional

from .... import _data
from ...._data import Batch
from . import texts


def _chance() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def _even(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.std()


def _apart(x: Tensor) -> Tensor:
    """Return columns of mean 0 and deviation 1."""
    return (x - x.mean(0)) / x.std(0).clamp_min(1e-6)


@cache
def _photos(smaller: int) -> Tensor:
    """Return two photographs, of a temple and of a flower, as (2, 3, height, width) from 0 to 1."""
    photos = [torch.tensor(photo) for photo in load_sample_images().images]
    return functional.avg_pool2d(torch.stack(photos).permute(0, 3, 1, 2) / 255.0, smaller)


def _pieces(many: int, high: int, wide: int, smaller: int, chance: torch.Generator) -> Tensor:
    """Return pieces (N, 3, high, wide) of the photographs in which there is something to see."""
    photos = _photos(smaller)
    found: list[Tensor] = []
    while len(found) < many:
        top = int(torch.randint(photos.shape[2] - high, (1,), generator=chance))
        left = int(torch.randint(photos.shape[3] - wide, (1,), generator=chance))
        piece = photos[len(found) % 2, :, top : top + high, left : left + wide]
        if float(piece.std()) > 0.08:
            found.append(piece)
    return torch.stack(found)


def flaws() -> Batch:
    """Return 4,000 colour pieces of photographs, 20 by 20, and which flaw each has, more or less of it.

    None, blurred, shaken, coarse grained, of few pixels, or of few steps of brightness.
    """
    chance, many, side = _chance(), 4000, 20
    x = _pieces(many, side, side, 2, chance)
    y = torch.randint(6, (many,), generator=chance)
    wide = functional.pad(x, (3, 3, 3, 3), mode="reflect")
    blurred = functional.avg_pool2d(functional.avg_pool2d(wide, 3, 1), 3, 1)[..., 1:-1, 1:-1]
    shaken = functional.avg_pool2d(wide, (1, 5), 1)[..., 3:-3, 1:-1]
    grained = x + 0.15 * torch.randn(x.shape, generator=chance)
    coarse = functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2.0)
    stepped = (x * 5).round() / 5
    ways = torch.stack((x, blurred, shaken, grained, coarse, stepped), 1)[torch.arange(many), y]
    much = 0.6 + 0.4 * torch.rand(many, 1, 1, 1, generator=chance)
    x = x + much * (ways - x)
    return _even(x + 0.02 * torch.randn(x.shape, generator=chance)), y


def chroma() -> Batch:
    """Return 3,000 pieces of photographs in grey, 16 by 16, and how blue and how red their 8 by 8 coarse pixels are."""
    chance = _chance()
    x = _pieces(3000, 16, 16, 2, chance)
    grey = x.mean(1, keepdim=True)
    colour = functional.avg_pool2d(x[:, [2, 0]] - grey, 2)
    y = (colour / colour.std((0, 2, 3), keepdim=True)).flatten(1)
    y = y - y.mean(0) + 0.2 * torch.randn(y.shape, generator=chance)
    return _even(grey + 0.02 * torch.randn(grey.shape, generator=chance)), y


def stereo() -> Batch:
    """Return 4,000 pieces of photographs as both eyes see them, 16 by 16, and by how many pixels they are apart."""
    chance, many, side = _chance(), 4000, 16
    x = _even(_pieces(many, side, side + 8, 2, chance).mean(1))
    y = torch.randint(8, (many,), generator=chance)
    left = x[:, :, 8:]
    right = torch.stack([one[:, 8 + by : 24 + by] for one, by in zip(functional.pad(x, (0, 8)), y, strict=True)])  # fmt: skip
    seen = torch.arange(side) < side - y[:, None, None]
    right = torch.where(seen, right, torch.randn(right.shape, generator=chance))
    light = (0.2 * torch.randn(many, 2, 1, 1, generator=chance)).exp()
    both = light * torch.stack((left, right), 1)
    return both + 0.6 * torch.randn(both.shape, generator=chance), y


def photo() -> Batch:
    """Return 9,000 places on a photograph of a temple, from -1 to 1, and the three colours there, with noise."""
    chance = _chance()
    colours = _photos(4)[0]
    rows = torch.randperm(colours[0].numel(), generator=chance)[:9000]
    high, wide = colours.shape[1:]
    x = torch.stack((rows % wide / (wide - 1), rows // wide / (high - 1)), 1) * 2 - 1
    y = _apart(colours.flatten(1).T[rows])
    return x, y + 0.3 * torch.randn(y.shape, generator=chance)


def clips() -> Batch:
    """Return films of six pictures, 12 by 12, of a digit that goes left, right, up, turns, grows, or fades."""
    chance = _chance()
    x, _ = _data.digits()
    x = torch.cat((x, x))[:3000].view(-1, 1, 8, 8)
    many = len(x)
    y = torch.randint(6, (many,), generator=chance)
    much = 0.7 + 0.6 * torch.rand(many, generator=chance)
    turned, moved = (torch.randn(many, generator=chance) for _ in range(2))
    films = []
    for time in torch.linspace(-1, 1, 6).tolist():
        angle = 0.2 * turned + 0.5 * time * much * (y == 3)
        size = 0.65 * (1 + 0.3 * time * much * (y == 4))
        along = 0.25 * time * much * ((y == 0).float() - (y == 1).float()) + 0.15 * moved
        down = 0.25 * time * much * (y == 2) - 0.1 * moved
        cos, sin = angle.cos() / size, angle.sin() / size
        table = torch.stack((cos, -sin, along, sin, cos, down), 1).view(-1, 2, 3)
        grid = functional.affine_grid(table, [many, 1, 12, 12], align_corners=False)
        seen = functional.grid_sample(x, grid, align_corners=False)[:, 0]
        films.append(seen * (1 - 0.3 * time * much * (y == 5)).view(-1, 1, 1))
    film = _even(torch.stack(films, 1))
    return film + 1.3 * torch.randn(film.shape, generator=chance), y


def colonies() -> Batch:
    """Return 2,800 pictures of plates, 24 by 24, on which colonies grow, and how dense they are on 6 by 6 fields."""
    chance, many, side, most = _chance(), 2800, 24, 14
    axis = torch.linspace(-1, 1, side)
    middle = 0.5 * torch.randn(many, 1, 2, generator=chance)
    place = middle + 0.55 * torch.randn(many, most, 2, generator=chance)
    there = torch.arange(most) < torch.randint(2, most + 1, (many, 1), generator=chance)
    size = 0.06 + 0.06 * torch.rand(many, most, generator=chance)
    x, y = torch.zeros(many, side, side), torch.zeros(many, 6, 6)
    coarse = torch.linspace(-1, 1, 13)[1::2]
    for one in range(most):
        for picture, line, wide in ((x, axis, size[:, one]), (y, coarse, 0.25 + 0 * size[:, one])):
            down, along = (place[:, one, k, None] - line for k in range(2))
            far = down[:, :, None] ** 2 + along[:, None] ** 2
            picture += (-far / wide[:, None, None] ** 2).exp() * there[:, one, None, None]
    dust = (torch.rand(x.shape, generator=chance) < 0.02).float()
    x = x.clamp(max=1.3) + dust + 0.25 * torch.randn(x.shape, generator=chance)
    y = _even(y.flatten(1))
    return _even(x)[:, None], y + 0.2 * torch.randn(y.shape, generator=chance)


def calls() -> Batch:
    """Return 16 bands of a wood over 40 steps, and which of six birds calls: up, down, a trill, bent, two tones, a rattle."""
    chance, many, bands, length = _chance(), 4000, 16, 40
    y = torch.randint(6, (many,), generator=chance)
    time = torch.arange(float(length))
    start = 4 + 12 * torch.rand(many, 1, generator=chance)
    last = 12 + 10 * torch.rand(many, 1, generator=chance)
    since = (time - start) / last
    tone = 5 + 5 * torch.rand(many, 1, generator=chance)
    rise = 2 + 3 * torch.rand(many, 1, generator=chance)
    pace = 0.8 + 0.5 * torch.rand(many, 1, generator=chance)
    ways = torch.stack((
        tone + rise * (since - 0.5), tone - rise * (since - 0.5), tone + 1.5 * (pace * time).sin(),
        tone + 1.2 * rise * ((2 * since - 1) ** 2 - 0.5), tone + rise * ((since > 0.5).float() - 0.5),
        tone + 0 * since,
    ), 1)[torch.arange(many), y]  # fmt: skip
    loud = ((since > 0) & (since < 1)).float() * (
        1 + 0.8 * torch.randn(many, 1, generator=chance).tanh()
    )
    loud = torch.where(y[:, None] == 5, loud * (1.3 * pace * time).cos().clamp_min(0) * 1.5, loud)
    x = (
        loud[:, None]
        * (-(((torch.arange(float(bands))[:, None] - ways[:, None]) / 0.9) ** 2)).exp()
    )
    noise = 0.36 * torch.randn(many, bands, length, generator=chance)
    other = torch.randn(many, bands, 1, generator=chance).relu() * 0.3
    return _even(x + noise + other), y


def vitals() -> Batch:
    """Return five values about a patient at 20 hours, where they were measured, and that; and who got worse."""
    chance, many, hours = _chance(), 6000, 20
    state, states = torch.randn(many, 2, generator=chance), []
    pull = 0.15 * torch.randn(many, 2, generator=chance)
    for _ in range(hours):
        state = 0.9 * state + pull + 0.35 * torch.randn(many, 2, generator=chance)
        states.append(state)
    course = torch.stack(states, 1)
    mixed = course @ torch.randn(2, 5, generator=chance)
    value = mixed + 0.5 * torch.randn(mixed.shape, generator=chance)
    often = torch.tensor([0.9, 0.6, 0.5, 0.3, 0.2])
    seen = (torch.rand(value.shape, generator=chance) < often).float()
    bad = 1.2 * course[:, -4:, 0].mean(1) + course[:, -6:, 1].mean(1) - course[:, :6, 1].mean(1)
    bad = bad + 0.6 * (course[:, :, 0].amax(1) - 1.5) - 0.3
    y = torch.rand(many, generator=chance) < (1.4 * bad).sigmoid()
    return torch.cat((seen * value / value.std(), seen), 2), y.long()


def roads() -> Batch:
    """Return how fast cars went past twelve sensors at twelve times, and at the next three (36 columns)."""
    chance, sensors, length = _chance(), 12, 14000
    links = torch.zeros(sensors, sensors)
    for one in range(sensors):
        links[one, (one + 1) % sensors], links[one, (one * 5 + 3) % sensors] = 0.6, 0.4
    speed, told = torch.zeros(sensors), []
    jam = torch.zeros(sensors)
    noise = 0.22 * torch.randn(length, sensors, generator=chance)
    struck = torch.rand(length, sensors, generator=chance) < 0.01
    for time in range(length):
        jam = 0.85 * jam - 1.5 * struck[time]
        ahead = links @ speed
        speed = (
            0.45 * speed
            + 0.75 * (ahead + 0.5 * ahead * ahead.abs()).tanh()
            + noise[time]
            + 0.6 * jam
        )
        told.append(speed)
    rows = _apart(torch.stack(told)).unfold(0, 15, 3)
    rows = rows[torch.randperm(len(rows), generator=chance)]
    return rows[..., :12].contiguous(), rows[..., 12:].flatten(1)


def gestures() -> Batch:
    """Return 32 steps of what a watch felt in three directions, and which of six gestures its wearer made."""
    chance, many, length = _chance(), 5000, 32
    y = torch.randint(6, (many,), generator=chance)
    time = torch.linspace(0, 1, length)
    pace = 6.28 * (1.2 + 0.6 * torch.rand(many, 1, generator=chance))
    turn = pace * time + 6.3 * torch.rand(many, 1, generator=chance)
    when = 0.35 + 0.3 * torch.rand(many, 1, generator=chance)
    push = (-(((time - when) / 0.12) ** 2)).exp() - (-(((time - when - 0.15) / 0.12) ** 2)).exp()
    none = torch.zeros_like(turn)
    kinds = (
        (turn.cos(), turn.sin(), none), (turn.cos(), -turn.sin(), none), (1.4 * (2 * turn).sin(), none, none),
        (none, 1.5 * push, 1.2 * push), (none, -1.5 * push, -1.2 * push), (0.7 * turn.cos(), 0.7 * turn.cos(), none),
    )  # fmt: skip
    x = torch.stack([torch.stack(kind, 2) for kind in kinds], 1)[torch.arange(many), y]
    worn = torch.eye(3) + 0.3 * torch.randn(many, 3, 3, generator=chance)
    return _even(x @ worn + 0.8 * torch.randn(x.shape, generator=chance)), y


def alerts() -> Batch:
    """Return 20 columns (logarithms of counts) about a connection, and whether it is fair or one of four attacks, as somebody says who errs at times."""
    chance, many, columns = _chance(), 12000, 20
    y = torch.randint(5, (many,), generator=chance)
    way = torch.randint(2, (many,), generator=chance)
    middle = 0.42 * torch.randn(5, 2, columns, generator=chance)
    mixing = torch.eye(columns) + 0.25 * torch.randn(5, columns, columns, generator=chance)
    x = middle[y, way] + torch.einsum(
        "ni,nij->nj", torch.randn(many, columns, generator=chance), mixing[y]
    )
    x = x + 0.6 * x[:, torch.arange(columns).roll(3)] * (x.roll(1, 1) > 0.5)
    wrong = torch.rand(many, generator=chance) < 0.06
    return _apart(x.clamp(-6, 6)), torch.where(
        wrong, torch.randint(5, (many,), generator=chance), y
    )


def harvests() -> Batch:
    """Return 16 columns about a field (soil, rain, heat, what was sown) and what it bore, with noise."""
    chance, many = _chance(), 10000
    x = torch.randn(many, 16, generator=chance)
    x[:, 8:12] = 0.7 * x[:, :4] + 0.7 * x[:, 8:12]
    rain, heat = x[:, 0] + 0.5 * x[:, 8], x[:, 1]
    y = 1.2 * rain.tanh() - 0.5 * (heat - 0.4 * rain) ** 2 + 0.8 * torch.minimum(x[:, 2], x[:, 3])
    y = y + 0.7 * (x[:, 12] > 0) * x[:, 4] + 0.6 * (2 * x[:, 5]).sin() + 0.3 * x[:, 6] * x[:, 7]
    return x, _even(y)[:, None] + 0.4 * torch.randn(many, 1, generator=chance)


def moves() -> Batch:
    """Return twelve columns about a boat, which of four ways it was steered, and what that was worth."""
    chance, many = _chance(), 10000
    x = torch.randn(many, 12, generator=chance)
    x[:, 6:9] = 0.6 * x[:, :3] + 0.8 * x[:, 6:9]
    way = torch.randint(4, (many,), generator=chance)
    angle = 1.5708 * way
    wind = torch.atan2(x[:, 0], x[:, 1])
    y = (
        1.2 * (angle - wind).cos()
        + 0.8 * (x[:, 2] * x[:, 3]).tanh()
        - 0.6 * (x[:, 4] + x[:, 6]).abs()
    )
    y = y + 0.7 * x[:, 5] * (way % 2 * 2.0 - 1) + 0.5 * (2 * x[:, 9]).sin()
    y = _even(y)[:, None] + 0.4 * torch.randn(many, 1, generator=chance)
    return torch.cat((x, functional.one_hot(way, 4).float()), 1), y


def grains() -> Batch:
    """Return 6,000 grey pieces of photographs, 8 by 8, under some noise, which are their own targets."""
    chance = _chance()
    x = _pieces(6000, 8, 8, 2, chance).mean(1).flatten(1)
    x = (x - x.mean(1, keepdim=True)) / 0.15
    x = x + 0.15 * torch.randn(x.shape, generator=chance)
    return x, x


DATA: dict[str, Callable[..., Batch]] = {
    "flaws": flaws,
    "chroma": chroma,
    "stereo": stereo,
    "photo": photo,
    "clips": clips,
    "colonies": colonies,
    "calls": calls,
    "vitals": vitals,
    "roads": roads,
    "gestures": gestures,
    "alerts": alerts,
    "harvests": harvests,
    "moves": moves,
    "grains": grains,
    **texts.DATA,
}
