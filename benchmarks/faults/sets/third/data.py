"""Data of the third set that was held out: looked at, and tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from sklearn import datasets as made
from torch.nn import functional

from .... import _data
from ...._data import Batch
from ..second.data import corners, letters_of

SIDE, WINDOW, ATOMS, POINTS = 16, 40, 12, 24
"""Pixels of a picture's side, letters of a window, atoms of a molecule, points of a swarm."""
MODULES = ("difflib.py", "optparse.py", "statistics.py", "ipaddress.py")


def _chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def turned() -> Batch:
    """Return 3,000 grey digits of any tilt up to 25 degrees, a square of each covered; mean 0, deviation 1."""
    chance = _chance()
    x, y = _data.digits()
    rows = torch.randint(len(x), (3000,), generator=chance)
    tilt = (2 * torch.rand(len(rows), generator=chance) - 1) * math.radians(25)
    turn = torch.stack((tilt.cos(), -tilt.sin(), tilt.sin(), tilt.cos()), 1).view(-1, 2, 2)
    where = functional.affine_grid(
        torch.cat((1.05 * turn, torch.zeros(len(rows), 2, 1)), 2), [len(rows), 1, SIDE, SIDE],
        align_corners=False,
    )  # fmt: skip
    pictures = functional.grid_sample(x[rows].view(-1, 1, 8, 8), where, align_corners=False)
    corners = torch.randint(SIDE - 4, (len(rows), 2), generator=chance).tolist()
    for picture, (top, left) in zip(pictures, corners, strict=True):
        picture[:, top : top + 4, left : left + 4] = 0
    pictures = pictures + 0.1 * torch.randn(pictures.shape, generator=chance)
    return (pictures - pictures.mean()) / pictures.std(), y[rows]


def textures() -> Batch:
    """Return 2,400 pieces of stuff in two colours: stripes of three directions, checks, rings, grain."""
    chance, many, side = _chance(), 2400, 12
    y = torch.randint(6, (many,), generator=chance)
    axis = torch.arange(side, dtype=torch.float32)
    down, along = torch.meshgrid(axis, axis, indexing="ij")
    pace = 1.2 + 0.8 * torch.rand(many, 1, 1, generator=chance)
    phase, other = 2 * math.pi * torch.rand(2, many, 1, 1, generator=chance)
    middle = side * torch.rand(2, many, 1, 1, generator=chance)
    far = ((down - middle[0]) ** 2 + (along - middle[1]) ** 2).sqrt()
    kinds = (
        (pace * down + phase).sin(), (pace * along + phase).sin(),
        (pace * (down + along) / math.sqrt(2) + phase).sin(),
        (pace * down + phase).sin() * (pace * along + other).sin(), (pace * far + phase).sin(),
        torch.randn(many, side, side, generator=chance).clamp(-1, 1),
    )  # fmt: skip
    stuff = torch.stack(kinds, 1)[torch.arange(many), y][:, None] / 2 + 0.5
    first, second = torch.rand(2, many, 3, 1, 1, generator=chance)
    x = first + (second - first) * stuff
    x = x + 0.08 * torch.randn(x.shape, generator=chance)
    return (x - x.mean()) / x.std(), y


def manual() -> Batch:
    """Return windows of letters of the standard library's sources, and the letter behind each."""
    codes = torch.cat([letters_of(name) for name in MODULES])
    rows = codes[: len(codes) // (WINDOW + 1) * (WINDOW + 1)].view(-1, WINDOW + 1)
    rows = rows[torch.randperm(len(rows), generator=_chance())[:4000]]
    return rows[:, :-1], rows[:, 1:]


def molecules() -> Batch:
    """Return graphs of atoms of four kinds: links, then kinds, in one table; a sum over atoms and links."""
    chance, many = _chance(), 4000
    links = torch.zeros(many, ATOMS, ATOMS)
    row = torch.arange(many)
    for atom in range(1, ATOMS):
        parent = (torch.rand(many, generator=chance) * atom).long()
        links[row, atom, parent] = links[row, parent, atom] = 1.0
    kinds = functional.one_hot(torch.randint(4, (many, ATOMS), generator=chance), 4).float()
    own, between = torch.randn(4, generator=chance), torch.randn(4, 4, generator=chance)
    y = (kinds @ own).sum(1) + ((kinds @ between) * (links @ kinds)).sum((1, 2)) / 2
    y = y + (links.sum(2) >= 3).sum(1)
    y = (y - y.mean()) / y.std() + 0.05 * torch.randn(many, generator=chance)
    return torch.cat((links, kinds), 2), y[:, None]


def spectra() -> Batch:
    """Return sums of peaks over a sloping ground; the class is the compound that there is most of."""
    chance, many, compounds, peaks = _chance(), 4000, 6, 5
    axis = torch.linspace(0, 1, 128)
    place = torch.rand(compounds, peaks, 1, generator=chance)
    wide = 0.008 + 0.02 * torch.rand(compounds, peaks, 1, generator=chance)
    high = 0.3 + torch.rand(compounds, peaks, 1, generator=chance)
    pure = (high / (1 + ((axis - place) / wide) ** 2)).sum(1)
    share = 0.75 * torch.rand(many, compounds, generator=chance)
    y = torch.randint(compounds, (many,), generator=chance)
    share[torch.arange(many), y] = 1.0
    ground = torch.rand(many, 1, generator=chance) + torch.randn(many, 1, generator=chance) * axis
    x = share @ pure + ground + 0.15 * torch.randn(many, 128, generator=chance)
    return ((x - x.mean()) / x.std())[:, None], y


def processes() -> Batch:
    """Return 64 values of four autoregressive processes of deviation 1, and which of them it is."""
    chance, many = _chance(), 4000
    near = torch.tensor([0.6, 0.95, 0.5, -0.5])
    far = torch.tensor([0.0, 0.0, -0.7, 0.3])
    y = torch.randint(4, (many,), generator=chance)
    values = [torch.zeros(many), torch.zeros(many)]
    for _ in range(96):
        push = torch.randn(many, generator=chance)
        values.append(near[y] * values[-1] + far[y] * values[-2] + push)
    x = torch.stack(values[-64:], 1)
    return (x / x.std(1, keepdim=True))[:, None], y


def chaos() -> Batch:
    """Return the force of a logistic map and two of its values; the target is the value two steps on."""
    chance, many = _chance(), 4000
    force = 3.5 + 0.5 * torch.rand(many, generator=chance)
    values = [torch.rand(many, generator=chance)]
    for _ in range(30):
        values.append(force * values[-1] * (1 - values[-1]))
    x = torch.stack((force, values[-4], values[-3]), 1)
    x = x + 0.003 * torch.randn(x.shape, generator=chance)
    return _data.standard(x.numpy(), values[-1].numpy(), regression=True)


def tallies() -> Batch:
    """Return rows of 24 letters of ten; of every letter, how often it is in its row (once is 0, most 7)."""
    skewed = torch.tensor([6.0, 5, 4, 3, 3, 2, 2, 1, 1, 1])
    x = torch.multinomial(skewed.expand(5000, -1), 24, replacement=True, generator=_chance())
    times = functional.one_hot(x, 10).sum(1).gather(1, x)
    return x, (times - 1).clamp(max=7)


def swarms() -> Batch:
    """Return points about one to four middles, in no order; the class is how many middles there are."""
    chance, many = _chance(), 5000
    y = torch.randint(4, (many,), generator=chance)
    middles = 2 * torch.rand(many, 4, 2, generator=chance) - 1
    mine = (torch.rand(many, POINTS, generator=chance) * (y[:, None] + 1)).long()
    x = middles.gather(1, mine[..., None].expand(-1, -1, 2))
    return (x + 0.06 * torch.randn(x.shape, generator=chance)) / 0.58, y


def redundant() -> Batch:
    """Return 40 columns, of which 26 are mixtures of ten others, and four classes."""
    return corners(
        6000, 40, 4, n_informative=10, n_redundant=26, class_sep=1.5, flip_y=0.01, random_state=3
    )


def parity() -> Batch:
    """Return rows of 16 signs; the class is whether the second, sixth and eleventh multiply to one."""
    x = 2.0 * torch.randint(2, (6000, 16), generator=_chance()) - 1
    return x, (x[:, 1] * x[:, 5] * x[:, 10] > 0).long()


def checkerboard() -> Batch:
    """Return places on a board of four by four fields, and the field's colour."""
    x = 4 * torch.rand(6000, 2, generator=_chance())
    return (x - 2) / (4 / math.sqrt(12)), x.floor().sum(1).long() % 2


def heavy() -> Batch:
    """Return a table of which four columns matter, and a target whose noise has heavy tails."""
    x, y = made.make_sparse_uncorrelated(4000, 12, random_state=0)
    x = torch.tensor(x, dtype=torch.float32)
    y = torch.tensor(y, dtype=torch.float32) + 2 * (x[:, 4] * x[:, 5]).tanh()
    chance = _chance()
    tail = torch.randn(4000, generator=chance) / (
        torch.randn(4000, 3, generator=chance).square().mean(1).sqrt()
    )
    y = y + 0.4 * tail
    return x, ((y - y.mean()) / y.std())[:, None]


def tags() -> Batch:
    """Return counts of twenty words, and which of five tags each row has: any number of them."""
    drawn = made.make_multilabel_classification(5000, 20, n_classes=5, random_state=0)
    x, y = _data.standard(drawn[0], drawn[1])
    return x, y.float()


def scenery() -> Batch:
    """Return the places of 4,096 pixels, and the three colours there: waves, a disc, an edge."""
    axis = torch.linspace(-1, 1, 64)
    x = torch.cartesian_prod(axis, axis)
    down, along = x.unbind(1)
    disc = ((down - 0.2) ** 2 + (along + 0.3) ** 2 < 0.16).float()
    colours = (
        (7 * down + 3 * along).sin() + disc, (9 * along - 4 * down**2).cos() * (1 - disc),
        (down + 0.5 * along > 0).float() + 0.5 * (12 * down * along).sin(),
    )  # fmt: skip
    y = torch.stack(colours, 1)
    return x, (y - y.mean(0)) / y.std(0)


DATA: dict[str, Callable[[], Batch]] = {
    "turned": turned,
    "textures": textures,
    "manual": manual,
    "molecules": molecules,
    "spectra": spectra,
    "processes": processes,
    "chaos": chaos,
    "tallies": tallies,
    "swarms": swarms,
    "redundant": redundant,
    "parity": parity,
    "checkerboard": checkerboard,
    "heavy": heavy,
    "tags": tags,
    "scenery": scenery,
}
