"""Data of the eighth set that was held out: looked at, and tuned on since."""

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
"""Pixels of a galaxy's side."""


def _chance() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def _even(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.std()


def _apart(x: Tensor) -> Tensor:
    """Return columns of mean 0 and deviation 1."""
    return (x - x.mean(0)) / x.std(0).clamp_min(1e-6)


def galaxies() -> Batch:
    """Return 3,600 grey galaxies at any turn: round, flat, of two arms, barred, with a ring, or torn."""
    chance, many = _chance(), 3600
    y = torch.randint(6, (many,), generator=chance)
    axis = torch.linspace(-1, 1, SIDE)
    middle = 0.15 * torch.randn(2, many, 1, 1, generator=chance)
    turn = 6.3 * torch.rand(many, 1, 1, generator=chance)
    down, along = axis[:, None] - middle[0], axis - middle[1]
    u, v = turn.cos() * along + turn.sin() * down, turn.cos() * down - turn.sin() * along
    tilt = 0.6 + 0.4 * torch.rand(many, 1, 1, generator=chance)
    size = 0.25 + 0.12 * torch.rand(many, 1, 1, generator=chance)
    far = (u**2 + (v / tilt) ** 2).sqrt() + 1e-3
    angle = torch.atan2(v / tilt, u)
    wound = (2 * angle + 5.0 * far.log()).cos()
    bulge = (-((far / (0.4 * size)) ** 2)).exp()
    disc = (-far / size).exp()
    torn = (4 * u + 3 * (5 * v + turn).sin()).sin() * (3 * v + 2 * u).cos()
    kinds = (
        (-2.2 * (far / size).sqrt()).exp() * 3,
        (-((u / (1.8 * size)) ** 2) - (v / (0.28 * size)) ** 2).exp() + 0.4 * bulge,
        1.6 * disc * (1 + 0.9 * wound) + 0.4 * bulge,
        (-((u / (1.2 * size)) ** 2) - (v / (0.3 * size)) ** 2).exp() + disc * (1 + 0.4 * wound),
        0.8 * (-(((far - 1.6 * size) / (0.35 * size)) ** 2)).exp() + 0.8 * bulge,
        1.6 * disc * (1 + 0.9 * torn),
    )
    x = torch.stack(kinds, 1)[torch.arange(many), y]
    light = 0.7 + 0.6 * torch.rand(many, 1, 1, generator=chance)
    x = light * x + 0.13 * torch.randn(many, SIDE, SIDE, generator=chance)
    return _even(x)[:, None], y


def murals() -> Batch:
    """Return 2,400 colour pictures of 16 by 16 with waves, bars and edges, and what the middle of each shows.

    The middle, six by six, is left out of the picture.
    """
    chance, many, side = _chance(), 2400, 16
    axis = torch.linspace(-1, 1, side)
    x = torch.zeros(many, 3, side, side)
    for number in range(6):
        pace = torch.randn(2, many, 1, 1, 1, generator=chance) * (1.5 if number < 4 else 3.5)
        phase = 6.3 * torch.rand(many, 1, 1, 1, generator=chance)
        wave = (pace[0] * axis[:, None] + pace[1] * axis + phase).sin()
        colour = torch.randn(many, 3, 1, 1, generator=chance)
        x = x + colour * (wave if number < 3 else 0.7 * (4 * wave).tanh())
    x = _even(x + 0.3 * torch.randn(x.shape, generator=chance))
    hole = x[:, :, 5:11, 5:11].flatten(1)
    x[:, :, 5:11, 5:11] = 0
    return x, hole


def mazes() -> Batch:
    """Return where walls and a way out are on nine by nine fields; of each field, where to go from it.

    Up, down, left, right, or nowhere: from walls, from the way out, and from where no way leads to it.
    """
    chance, many, side = _chance(), 3000, 9
    walls = torch.rand(many, side, side, generator=chance) < 0.28
    out = functional.one_hot(torch.randint(side**2, (many,), generator=chance), side**2)
    out = out.view(many, side, side).bool()
    walls &= ~out
    far = torch.where(out, 0.0, 99.0)
    for _ in range(40):
        ways = _neighbours(far)
        far = torch.where(walls, 99.0, torch.minimum(far, ways.amin(1) + 1))
    best, where = _neighbours(far).min(1)
    y = torch.where((far > 0) & (far < 90) & (best < far), where, 4)
    x = torch.stack((walls, out), 1).float()
    return x - x.mean((0, 2, 3), keepdim=True), y.flatten(1)


def _neighbours(x: Tensor) -> Tensor:
    """Return what is above, below, left and right of each field, 99 where there is nothing."""
    wide = functional.pad(x, (1, 1, 1, 1), value=99.0)
    return torch.stack(
        (wide[:, :-2, 1:-1], wide[:, 2:, 1:-1], wide[:, 1:-1, :-2], wide[:, 1:-1, 2:]), 1
    )


def radio() -> Batch:
    """Return 96 complex numbers that an aerial took in, and in which of six ways a message was put on the wave."""
    chance, many, length, each = _chance(), 5000, 96, 4
    y = torch.randint(6, (many,), generator=chance)
    signs = torch.randint(16, (many, length // each), generator=chance).repeat_interleave(each, 1)
    turned = [2 * math.pi * (signs % ways) / ways for ways in (2, 4, 8)]
    square = torch.complex(signs % 4 - 1.5, signs // 4 - 1.5) / 1.58
    paces = (0.25 * (2 * (signs % 2) - 1)).cumsum(1)
    time = torch.arange(float(length))
    swell = 0.08 + 0.1 * torch.rand(many, 1, generator=chance)
    phase = 6.3 * torch.rand(3, many, 1, generator=chance)
    loud = torch.complex(0.7 * (1 + 0.8 * (swell * time + phase[0]).sin()), torch.zeros(()))
    ways = [torch.polar(torch.ones(()), turn) for turn in (*turned, paces)]
    x = torch.stack((*ways, square, loud), 1)[torch.arange(many), y]
    off = 0.03 * torch.randn(many, 1, generator=chance)
    x = x * torch.polar(torch.ones(()), off * time + phase[1])
    x = torch.stack((x.real, x.imag), 1)
    x = x * (0.3 * torch.randn(many, 1, 1, generator=chance)).exp()
    return _even(x + 0.2 * torch.randn(x.shape, generator=chance)), y


def figures() -> Batch:
    """Return 2,800 grey pictures of stick figures, and where somebody marked the head, hands and feet of each."""
    chance, many, side = _chance(), 2800, 24
    drawn = torch.randn(12, many, generator=chance)
    neck = torch.stack((-0.3 + 0.12 * drawn[0], 0.15 * drawn[1]), 1)
    lean = 0.25 * drawn[2]

    def from_(place: Tensor, angle: Tensor, length: float) -> Tensor:
        return place + length * torch.stack((angle.cos(), angle.sin()), 1)

    hip = from_(neck, lean, 0.5)
    head = from_(neck, math.pi + 0.4 * drawn[3], 0.25)
    hands = [from_(neck, sign * (1.2 + 0.5 * drawn[4 + k]), 0.5) for k, sign in ((0, 1), (1, -1))]
    feet = [from_(hip, sign * (0.5 + 0.25 * drawn[6 + k]), 0.55) for k, sign in ((0, 1), (1, -1))]
    axis = torch.linspace(-1, 1, side)
    here = torch.stack((axis[:, None].expand(side, side), axis.expand(side, side)), 2)
    x = torch.zeros(many, side, side)
    for start, end in [
        (neck, hip),
        (neck, head),
        *((neck, h) for h in hands),
        *((hip, f) for f in feet),
    ]:
        way = (end - start)[:, None, None]
        from_start = here - start[:, None, None]
        share = ((from_start * way).sum(3) / way.square().sum(3)).clamp(0, 1)
        x = torch.maximum(x, (-150 * (from_start - share[..., None] * way).square().sum(3)).exp())
    x = _even(x + 0.25 * torch.randn(x.shape, generator=chance))
    y = torch.stack((head, *hands, *feet), 1)
    y = y + 0.12 * torch.randn(y.shape, generator=chance)
    return x[:, None], y.transpose(1, 2).flatten(1) / 0.45


def tours() -> Batch:
    """Return eight places about a middle, in no order, and in which order one goes around them from the east."""
    chance, many = _chance(), 8000
    angle = 2 * math.pi * torch.rand(many, 8, generator=chance)
    far = 0.5 + torch.rand(many, 8, generator=chance)
    x = torch.stack((far * angle.cos(), far * angle.sin()), 2)
    return x / x.std() + 0.05 * torch.randn(x.shape, generator=chance), angle.argsort(1)


def questions() -> Batch:
    """Return a picture of four things and a question about it, side by side in one row, and one of 12 answers.

    What colour (4) or what shape (3) is the thing in that corner? How many (5) are of this colour?
    """
    chance, many, side = _chance(), 8000, 8
    shape = torch.randint(3, (many, 4), generator=chance)
    colour = torch.randint(4, (many, 4), generator=chance)
    axis = torch.linspace(-1, 1, side)
    moved = 0.2 * torch.randn(2, many, 4, 1, 1, generator=chance)
    down, along = axis[:, None] - moved[0], axis - moved[1]
    forms = torch.stack((
        down**2 + along**2 < 0.4, torch.maximum(down.abs(), along.abs()) < 0.55,
        torch.minimum(down.abs(), along.abs()) < 0.2,
    ), 2)  # fmt: skip
    form = forms.gather(2, shape[:, :, None, None, None].expand(-1, -1, 1, side, side))[:, :, 0]
    paints = torch.tensor([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.1, 0.2, 1.0], [0.9, 0.9, 0.1]])
    things = form[:, :, None] * paints[colour][..., None, None]
    x = things.unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2, 5).reshape(many, 3, 2 * side, 2 * side)
    x = _even(x + 0.15 * torch.randn(x.shape, generator=chance))
    ask, which = (
        torch.randint(3, (many,), generator=chance),
        torch.randint(4, (many,), generator=chance),
    )
    own = torch.arange(many)
    many_ = (colour == which[:, None]).sum(1)
    y = torch.stack((colour[own, which], 4 + shape[own, which], 7 + many_), 1)[own, ask]
    return torch.cat((x.flatten(1), functional.one_hot(4 * ask + which, 12).float()), 1), y


def projections() -> Batch:
    """Return digits as a scanner sees them: sums of their pixels along lines from 12 sides; which digit it is."""
    chance = _chance()
    x, y = _data.digits()
    rows = []
    for turn in torch.linspace(0, math.pi, 13)[:12].tolist():
        table = torch.tensor(
            [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0]]
        )
        grid = functional.affine_grid(
            table.expand(len(x), 2, 3), [len(x), 1, 8, 8], align_corners=False
        )
        seen = functional.grid_sample(x.view(-1, 1, 8, 8), grid, align_corners=False)
        rows.append(seen[:, 0].sum(1))
    told = _even(torch.stack(rows, 1))
    return told + 0.35 * torch.randn(told.shape, generator=chance), y


def treatments() -> Batch:
    """Return 15 columns about a patient and whether he was treated (more often the ill), and how he is after it."""
    chance, many = _chance(), 10000
    x = torch.randn(many, 15, generator=chance)
    x[:, 5:10] = 0.6 * x[:, :5] + 0.8 * x[:, 5:10]
    ill = x[:, 0] + 0.7 * x[:, 1] * x[:, 2] - 0.5 * x[:, 3].abs()
    treated = torch.rand(many, generator=chance) < (1.2 * ill).sigmoid()
    helps = 1.0 + 1.2 * (2 * x[:, 4]).tanh() - 0.8 * (x[:, 10] > 0.3) * x[:, 11]
    y = -1.2 * ill + 0.8 * (x[:, 12] + x[:, 13]).sin() + treated * helps
    y = _even(y)[:, None] + 0.4 * torch.randn(many, 1, generator=chance)
    return torch.cat((x, 2.0 * treated[:, None] - 1), 1), y


def alloys() -> Batch:
    """Return places and kinds of seven atoms of two metals, and the energy that binds them (Morse), with noise."""
    chance, many, atoms = _chance(), 5000, 7
    grid = torch.cartesian_prod(*[torch.arange(-1.0, 2.0)] * 3)
    rows = torch.rand(many, 27, generator=chance).argsort(1)[:, :atoms]
    place = grid[rows] * (1.0 + 0.15 * torch.randn(many, 1, 1, generator=chance))
    place = place + 0.14 * torch.randn(place.shape, generator=chance)
    kind = torch.randint(2, (many, atoms), generator=chance)
    both = kind[:, :, None] + kind[:, None]
    deep = torch.tensor([1.0, 1.8, 0.5])[both]
    rest = torch.tensor([1.0, 1.15, 1.3])[both]
    far = torch.cdist(place, place)
    wall = (-2.0 * (far.clamp_min(0.85) - rest)).exp()
    bond = deep * (wall**2 - 2 * wall) * (1 - torch.eye(atoms))
    energy = bond.sum((1, 2))
    y = _even(energy)[:, None] + 0.35 * torch.randn(many, 1, generator=chance)
    return torch.cat((place, functional.one_hot(kind, 2).float()), 2), y


def winds() -> Batch:
    """Return ten columns (pressures around, hour, height, ground), and from where the wind blows, on a circle."""
    chance, many = _chance(), 8000
    x = torch.randn(many, 10, generator=chance)
    x[:, 2:6] = 0.7 * x[:, :4] + 0.7 * x[:, 2:6]
    east = x[:, 0] - x[:, 2] + 0.6 * (1.5 * x[:, 6]).sin()
    north = x[:, 1] - x[:, 3] + 0.6 * (1.5 * x[:, 6]).cos()
    bend = 0.9 * (x[:, 7] * x[:, 4]).tanh() + 0.7 * (x[:, 8] > 0)
    angle = torch.atan2(north, east) + bend
    spread = 0.35 + 0.25 * (x[:, 9] > 0.5)
    angle = angle + spread * torch.randn(many, generator=chance)
    return x, torch.stack((angle.cos(), angle.sin()), 1)


def grades() -> Batch:
    """Return 14 columns about an essay, and which of five grades it got: teachers differ."""
    chance, many = _chance(), 10000
    x = torch.randn(many, 14, generator=chance)
    x[:, 7:] = 0.5 * x[:, :7] + 0.85 * x[:, 7:]
    good = x[:, 0] + 0.8 * x[:, 1].tanh() - 0.6 * x[:, 2].abs() + 0.7 * x[:, 3] * (x[:, 4] > 0)
    good = good + 0.5 * torch.minimum(x[:, 5], x[:, 6]) + 0.9 * torch.randn(many, generator=chance)
    bars = torch.tensor([-1.8, -0.7, 0.3, 1.3]) + good.mean()
    return x, (good[:, None] > bars).sum(1, keepdim=True).float()


def quakes() -> Batch:
    """Return 96 steps of a ground that shakes in three directions; how far off and how strong it was (logarithm)."""
    chance, many, length = _chance(), 3600, 96
    time = torch.arange(float(length))
    first = 8 + 14 * torch.rand(many, 1, 1, generator=chance)
    gap = 8 + 40 * torch.rand(many, 1, 1, generator=chance)
    strong = 0.6 * torch.randn(many, 1, 1, generator=chance)

    def burst(start: Tensor, pace: float, last: float) -> Tensor:
        after = (time - start).clamp_min(0)
        phase = 6.3 * torch.rand(many, 3, 1, generator=chance)
        much = 0.5 + torch.rand(many, 3, 1, generator=chance)
        return much * (after > 0) * (-after / last).exp() * (pace * after + phase).sin()

    x = strong.exp() * (burst(first, 1.4, 10.0) + 1.8 * burst(first + gap, 0.8, 16.0))
    x = _even(x + 0.15 * torch.randn(many, 3, length, generator=chance))
    y = torch.cat((gap[:, 0] / 11.5 - 28 / 11.5, strong[:, 0] / 0.6), 1)
    return x, y + 0.2 * torch.randn(y.shape, generator=chance)


def stars() -> Batch:
    """Return how bright 12,000 things in the sky are in 16 colours, as logarithms, and which of six kinds each is."""
    chance, many = _chance(), 12000
    y = torch.randint(6, (many,), generator=chance)
    wave = torch.linspace(0, 1, 16)
    lines = torch.tensor([0.15, 0.3, 0.4, 0.55, 0.7, 0.85])[y, None]
    drawn = torch.randn(5, many, 1, generator=chance)
    moved = 0.05 * drawn[0]
    hot = torch.tensor([1.2, 0.4, -0.8, 0.2, -0.2, 0.8])[y, None] + 0.6 * drawn[1]
    bump = (0.9 + 0.3 * drawn[2]) * (-(((wave - lines - moved) / 0.07) ** 2)).exp()
    dip = (0.6 + 0.3 * drawn[3]) * (-(((wave - 1.3 * lines - moved) / 0.12) ** 2)).exp()
    x = hot * (0.5 - wave) + bump - dip - 0.4 * drawn[4].abs() * (1 - wave) ** 2
    x = x + 0.35 * torch.randn(many, 16, generator=chance)
    return _apart(x), y


def pixels() -> Batch:
    """Return the 17 pixels above and to the left of a pixel of a digit, in sixteenths of black, and that pixel."""
    chance = _chance()
    x = functional.pad(_data.digits()[0].view(-1, 8, 8), (3, 3, 2, 0))
    rows = x.unfold(1, 3, 1).unfold(2, 7, 1)[:, 1:, 1:7].flatten(0, 2).flatten(1)
    rows = rows[torch.randperm(len(rows), generator=chance)[:12000]]
    y = _even(rows[:, 17]) + 0.1 * torch.randn(len(rows), generator=chance)
    return _apart(rows[:, :17] + 0.05 * torch.randn(len(rows), 17, generator=chance)), y[:, None]


DATA: dict[str, Callable[..., Batch]] = {
    "galaxies": galaxies,
    "murals": murals,
    "mazes": mazes,
    "radio": radio,
    "figures": figures,
    "tours": tours,
    "questions": questions,
    "projections": projections,
    "treatments": treatments,
    "alloys": alloys,
    "winds": winds,
    "grades": grades,
    "quakes": quakes,
    "stars": stars,
    "pixels": pixels,
    **texts.DATA,
}
