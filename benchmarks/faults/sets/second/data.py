"""Further data: held out until runs on it were looked at, and tuned on since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sklearn import datasets as made
from torch import Tensor
from torch.nn import functional

from .... import _data
from ...._data import TEXT, Batch

SIDE, WINDOW, POINTS = 12, 64, 24
"""Pixels of a scene's side, bytes of a window of text, points of a cloud."""
MODULES = ("tarfile.py", "_pydecimal.py", "turtle.py", "pydoc.py", "pickletools.py")
NOISE = 0.25


def _drawn() -> tuple[Tensor, Tensor, torch.Generator]:
    """Return 3,600 digits at random places of a larger picture, what they show, and the source of chance."""
    generator = torch.Generator().manual_seed(0)
    x, y = _data.digits()
    rows = torch.randint(len(x), (3600,), generator=generator)
    corners = 1 + torch.randint(3, (len(rows), 2), generator=generator)
    pictures = torch.zeros(len(rows), SIDE, SIDE)
    for picture, (top, left), digit in zip(pictures, corners.tolist(), x[rows], strict=True):
        picture[top : top + 8, left : left + 8] = digit.view(8, 8)
    return pictures, y[rows], generator


def letters_of(name: str) -> Tensor:
    """Return the letters of a module of the standard library as numbers from 0 to 95."""
    letters = (TEXT / name).read_text(encoding="utf-8")
    return torch.tensor([min(max(ord(letter) - 31, 0), 95) for letter in letters])


def corners(rows: int, columns: int, classes: int, **how: Any) -> Batch:
    """Return a table whose classes lie about the corners of a cube, each column of mean 0 and deviation 1."""
    x, y = made.make_classification(rows, columns, n_classes=classes, **how)
    return _data.standard(x, y)


def scenes() -> Batch:
    """Return digits of any colour at any place on a ground of another, with noise; pixels of mean 0."""
    pictures, y, generator = _drawn()
    ground = 0.5 * torch.rand(len(y), 3, 1, 1, generator=generator)
    ink = 0.5 + 0.5 * torch.rand(len(y), 3, 1, 1, generator=generator)
    x = ground + (ink - ground) * pictures[:, None]
    x = x + 0.05 * torch.randn(x.shape, generator=generator)
    return (x - x.mean()) / x.std(), y


def noisy() -> Batch:
    """Return grey pictures with noise; the targets are the pictures without it."""
    pictures, _, generator = _drawn()
    clean = pictures[:, None]
    return clean + NOISE * torch.randn(clean.shape, generator=generator), clean


def points() -> Batch:
    """Return the brightest pixels of each digit as points: row, column and brightness, of no order."""
    x, y = _data.digits()
    generator = torch.Generator().manual_seed(0)
    bright, place = (x + 1e-3 * torch.rand(x.shape, generator=generator)).topk(POINTS, dim=1)
    shuffled = torch.rand(bright.shape, generator=generator).argsort(1)
    bright, place = bright.gather(1, shuffled), place.gather(1, shuffled)
    return torch.stack((place // 8 / 3.5 - 1, place % 8 / 3.5 - 1, 2 * bright - 1), 1), y


def modules() -> Batch:
    """Return windows of bytes from modules of the standard library, and which module each is from."""
    rows = []
    for name in MODULES:
        codes = letters_of(name)
        rows.append(codes[: len(codes) // WINDOW * WINDOW].view(-1, WINDOW)[:1400])
    y = torch.cat([torch.full((len(some),), label) for label, some in enumerate(rows)])
    return torch.cat(rows), y


def pairs() -> Batch:
    """Return two digits each; the classes are: the first is less, as much, more."""
    x, y = _data.digits()
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(len(x), (2, 6000), generator=generator)
    return torch.stack((x[first], x[second]), 1), (y[first] - y[second]).sign() + 1


def hastie() -> Batch:
    x, y = made.make_hastie_10_2(8000, random_state=0)
    return _data.standard(x, (y > 0).astype(int))


def quantiles() -> Batch:
    x, y = made.make_gaussian_quantiles(n_samples=6000, n_features=6, n_classes=4, random_state=0)
    return _data.standard(x, y)


def clusters() -> Batch:
    """Return 24 columns, of which 12 tell five classes apart."""
    return corners(
        8000, 24, 5, n_informative=12, n_redundant=4, class_sep=1.8, flip_y=0.0, random_state=0
    )


def impedance() -> Batch:
    x, y = made.make_friedman2(3000, noise=20.0, random_state=0)
    return _data.standard(x, y, regression=True)


def phases() -> Batch:
    x, y = made.make_friedman3(3000, noise=0.05, random_state=0)
    return _data.standard(x, y, regression=True)


def roll() -> Batch:
    x, y = made.make_swiss_roll(3000, noise=0.2, random_state=0)
    return _data.standard(x, y, regression=True)


def curve() -> Batch:
    x, y = made.make_s_curve(3000, noise=0.05, random_state=0)
    return _data.standard(x, y, regression=True)


def letters() -> Batch:
    """Return rows of 24 letters out of eight; the class is the letter that a row has most of."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(8, (6000, 24), generator=generator)
    return x, functional.one_hot(x, 8).sum(1).argmax(1)


DATA: dict[str, Callable[[], Batch]] = {
    "scenes": scenes,
    "noisy": noisy,
    "points": points,
    "modules": modules,
    "pairs": pairs,
    "hastie": hastie,
    "quantiles": quantiles,
    "clusters": clusters,
    "impedance": impedance,
    "phases": phases,
    "roll": roll,
    "curve": curve,
    "letters": letters,
}
