"""Data of the sixth set that was held out: looked at, and tuned on since."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .... import _data
from ...._data import Batch
from . import texts

SIDE = 16
"""Pixels of a picture's side."""


def _chance() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def _even(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.std()


def _apart(x: Tensor) -> Tensor:
    """Return columns of mean 0 and deviation 1."""
    return (x - x.mean(0)) / x.std(0)


def _clouds(many: int, chance: torch.Generator, rough: float = 0.6) -> Tensor:
    """Return pictures (N, 1, 16, 16) of deviation 1 that are smooth from afar and less so from near."""
    x = torch.zeros(many, 1, SIDE, SIDE)
    for octave in range(1, 5):
        drawn = torch.randn(many, 1, 2**octave, 2**octave, generator=chance)
        x = x + rough**octave * functional.interpolate(drawn, size=(SIDE, SIDE), mode="bilinear")
    return _even(x)


def _disc(u: Tensor, v: Tensor, size: float | Tensor, at: tuple[float, float] = (0, 0)) -> Tensor:
    return (3 * (size - ((u - at[0]) ** 2 + (v - at[1]) ** 2).sqrt())).sigmoid()


def tiles() -> Batch:
    """Return 3,000 views from above in four colours: water, wood, fields, a town, a river, an orchard."""
    chance, many = _chance(), 3000
    y = torch.randint(6, (many,), generator=chance)
    axis = torch.arange(float(SIDE))
    turn = 6.3 * torch.rand(many, 4, 1, 1, generator=chance)
    along = turn[:, 0].cos() * axis[:, None] + turn[:, 0].sin() * axis
    across = turn[:, 0].cos() * axis - turn[:, 0].sin() * axis[:, None]
    grain = torch.randn(many, SIDE, SIDE, generator=chance)
    houses = torch.rand(many, 1, 8, 8, generator=chance) > 0.6
    houses = functional.interpolate(houses.float(), scale_factor=2)[:, 0] * 2 - 0.8
    fields = (0.5 * along + turn[:, 1]).sin().sign() * (0.4 * across + turn[:, 2]).sin().sign()
    bend = along - along.mean((1, 2), keepdim=True) + 2 * (0.5 * across + turn[:, 3]).sin()
    river = 2 * (-(bend**2) / 3).exp() - 0.5
    trees = 2 * (1.6 * along + turn[:, 1]).cos() * (1.6 * across + turn[:, 2]).cos()
    built = torch.stack((0.2 * grain, grain, fields, houses, river, trees), 1)
    structure = built[torch.arange(many), y][:, None]
    colour = torch.randn(6, 4, 1, 1, generator=chance)
    light = 0.5 * torch.randn(many, 4, 1, 1, generator=chance)
    x = light + 0.3 * colour[y] + 0.8 * structure * (0.6 + 0.4 * colour.roll(1, 0)[y])
    x = x + 0.3 * _clouds(many, chance) + 0.3 * torch.randn(x.shape, generator=chance)
    return _even(x), y


def strewn() -> Batch:
    """Return 4,000 digits, turned, of any size, at any place of 20 by 20 pixels, among scraps of strokes."""
    chance, many, side = _chance(), 4000, 20
    digits, y = _data.digits()
    rows = torch.randint(len(digits), (many,), generator=chance)
    angle = 0.4 * torch.randn(many, generator=chance)
    size = (8 / side) * (0.9 + 0.5 * torch.rand(many, 1, 1, generator=chance))
    place = 0.8 * torch.rand(many, 2, 1, generator=chance) - 0.4
    turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), 1).view(-1, 2, 2)
    turn = torch.cat((turn / size, -(turn / size) @ place), 2)
    grid = functional.affine_grid(turn, [many, 1, side, side], align_corners=False)
    x = functional.grid_sample(digits[rows].view(-1, 1, 8, 8), grid, align_corners=False)
    row, number = torch.arange(3), torch.arange(many)[:, None, None]
    for _ in range(5):
        top, left = torch.randint(side - 3, (2, many, 1, 1), generator=chance)
        scrap = (torch.rand(many, 3, 3, generator=chance) > 0.6).float()
        x[number, 0, top + row[:, None], left + row] += 0.6 * scrap
    return _even(x + 0.05 * torch.randn(x.shape, generator=chance)), y[rows]


def cells() -> Batch:
    """Return 3,200 grey cells under a microscope at any turn: a round, a bent, a cleft kernel, a sickle, lobes."""
    chance, many = _chance(), 3200
    y = torch.randint(5, (many,), generator=chance)
    turn = 6.3 * torch.rand(many, 1, 1, generator=chance)
    middle = SIDE / 2 - 0.5 + torch.randn(2, many, 1, 1, generator=chance)
    axis = torch.arange(float(SIDE))
    size = 0.85 + 0.3 * torch.rand(many, 1, 1, generator=chance)
    down, along = (axis[:, None] - middle[0]) / size, (axis - middle[1]) / size
    u, v = turn.cos() * along - turn.sin() * down, turn.sin() * along + turn.cos() * down
    body, sickle = _disc(u, v, 5.5), _disc(u, v, 5.5) * (1 - _disc(u, v, 5.0, (3.0, 0.0)))
    lobes = sum(_disc(u, v, 1.6, at) for at in ((2.2, 0.0), (-1.2, 2.0), (-1.2, -2.0)))
    kernels = (
        _disc(u, v, 2.6, (0.6, 0.0)),
        _disc(u, v, 3.2) * (1 - _disc(u, v, 2.0, (2.0, 0.0))),
        _disc(u, v, 1.9, (2.0, 0.0)) + _disc(u, v, 1.9, (-2.0, 0.0)),
        0 * u,
        lobes,
    )
    kernel = torch.stack([torch.as_tensor(k) for k in kernels], 1)[torch.arange(many), y]
    x = torch.where((y == 3)[:, None, None], sickle, 0.5 * body) + 0.7 * kernel
    x = (1 + 0.2 * torch.randn(many, 1, 1, generator=chance)) * x
    x = x[:, None] + 0.2 * _clouds(many, chance)
    return _even(x + 0.2 * torch.randn(x.shape, generator=chance)), y


def floods() -> Batch:
    """Return where walls and springs are on ten by ten fields, and which fields are wet after six steps."""
    chance, many, side = _chance(), 3000, 10
    walls = (torch.rand(many, 1, side, side, generator=chance) < 0.36).float()
    springs = (torch.rand(many, 1, side, side, generator=chance) < 0.025).float() * (1 - walls)
    cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    wet = springs
    for _ in range(6):
        wet = (functional.conv2d(wet, cross, padding=1) > 0) * (1 - walls)
    return torch.cat((walls, springs), 1), wet.flatten(1)


def scans() -> Batch:
    """Return 2,000 grey pictures with one or two bright spots among bright threads, and what is a spot."""
    chance, many = _chance(), 2000
    axis = torch.arange(float(SIDE))
    mask, threads = torch.zeros(many, SIDE, SIDE), torch.zeros(many, SIDE, SIDE)
    for number in range(2):
        middle = 2 + 12 * torch.rand(2, many, 1, 1, generator=chance)
        wide = 1.5 + 2.5 * torch.rand(2, many, 1, 1, generator=chance)
        far = ((axis[:, None] - middle[0]) / wide[0]) ** 2 + ((axis - middle[1]) / wide[1]) ** 2
        there = torch.rand(many, 1, 1, generator=chance) < (1.0, 0.5)[number]
        mask = torch.maximum(mask, ((far < 1) & there).float())
        turn = 6.3 * torch.rand(many, 1, 1, generator=chance)
        line = turn.cos() * (axis[:, None] - middle[1]) + turn.sin() * (axis - middle[0])
        threads = threads + (-(line**2)).exp()
    x = (mask + 0.8 * threads)[:, None] + 0.5 * _clouds(many, chance)
    return _even(x + 0.3 * torch.randn(x.shape, generator=chance)), mask.flatten(1)


def vowels() -> Batch:
    """Return 200 values of a voice, 8,000 a second, that says one of six vowels at a pitch of its own."""
    chance, many = _chance(), 4000
    told = torch.tensor(
        [[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240],
         [490, 1350, 1690]]
    )  # fmt: skip
    y = torch.randint(6, (many,), generator=chance)
    throat = 1 + 0.06 * torch.randn(many, 1, generator=chance)
    peaks = told[y] * throat * (1 + 0.04 * torch.randn(many, 3, generator=chance))
    pitch = 90 + 130 * torch.rand(many, 1, generator=chance)
    time, x = torch.arange(200) / 8000, torch.zeros(many, 200)
    for number in range(1, 36):
        tone = number * pitch
        loud = (1 / (1 + ((tone - peaks) / 90) ** 2)).sum(1, keepdim=True) * (tone < 3600)
        phase = 6.3 * torch.rand(many, 1, generator=chance)
        x = x + loud * (2 * math.pi * tone * time + phase).sin()
    x = x / x.std(1, keepdim=True) + 0.2 * torch.randn(x.shape, generator=chance)
    return _even(x)[:, None], y


def rhythms() -> Batch:
    """Return a second of eight electrodes, 64 values each; the class is which of four sources is still."""
    chance, many = _chance(), 4000
    y = torch.randint(4, (many,), generator=chance)
    time = torch.arange(64) / 64
    places = torch.randn(4, 8, generator=chance)
    pace = torch.tensor([10.0, 10.0, 20.0, 6.0]) + 0.7 * torch.randn(many, 4, generator=chance)
    loud = (0.3 * torch.randn(many, 4, generator=chance)).exp()
    loud[torch.arange(many), y] *= 0.25
    phase = torch.rand(many, 4, generator=chance)
    waves = loud[..., None] * (2 * math.pi * (pace[..., None] * time + phase[..., None])).sin()
    noise = torch.randn(many, 8, 64, generator=chance)
    ground = noise + 0.8 * noise.roll(1, 2) + 0.5 * noise.roll(2, 2)
    return _even(torch.einsum("nst,sp->npt", waves, places) + 0.7 * ground), y


def gases() -> Batch:
    """Return what 16 sensors say, as logarithms, of one of six gases of any strength; the sensors age."""
    chance, many = _chance(), 6000
    y = torch.randint(6, (many,), generator=chance)
    strength = 3 * torch.rand(many, 1, generator=chance)
    level, slope = torch.randn(2, 6, 16, generator=chance)
    kind = torch.arange(16) % 4
    level = 0.35 * level + 0.6 * torch.randn(6, 4, generator=chance)[:, kind]
    wet, age = torch.randn(2, many, 1, generator=chance)
    x = level[y] + (0.6 + 0.25 * slope)[y] * strength
    x = (
        x
        + 0.3 * wet * torch.randn(16, generator=chance)
        + 0.3 * age * x.sin()
        + 0.6 * torch.randn(x.shape, generator=chance)
    )
    return _apart(x), y


def trials() -> Batch:
    """Return twelve columns about a patient, and how long he was seen, and whether until the end (one)."""
    chance, many = _chance(), 8000
    x = torch.randn(many, 12, generator=chance)
    risk = 0.9 * x[:, 0] + x[:, 1] * x[:, 2] + 0.8 * x[:, 3].abs() - 0.7 * (x[:, 4] > 0.3)
    drawn = -(1 - torch.rand(2, many, generator=chance)).log()
    time, seen = (drawn[0] / (1.5 * risk).exp()) ** 0.7, 3 * drawn[1]
    return x, torch.stack((torch.minimum(time, seen), (time < seen).float()), 1)


def oscillators() -> Batch:
    """Return a force at 32 times and a time, and where a damped, hardening spring then is that it drives."""
    chance, many = _chance(), 8000
    waves = torch.randn(2, many, 5, 1, generator=chance)
    time, pace = torch.linspace(0, 1, 128), torch.arange(1, 6)[:, None] * math.pi
    force = (waves[0] * (pace * time).sin() + waves[1] * (pace * time).cos()).sum(1)
    place, speed, seen = torch.zeros(many), torch.zeros(many), []
    for now in force.unbind(1):
        speed = speed + (12 * now - 30 * place - 3 * place**3 - 2 * speed) / 64
        place = place + speed / 64
        seen.append(place)
    asked = torch.randint(128, (many,), generator=chance)
    y = torch.stack(seen, 1)[torch.arange(many), asked]
    when = 3.4 * (asked[:, None] / 127 - 0.5)
    return torch.cat((_even(force[:, ::4]), when), 1), _even(y)[:, None]


def charges() -> Batch:
    """Return places, speeds and charges of five particles in a plane, and how far each has come a while later."""
    chance, many = _chance(), 4000
    begin, speed = torch.randn(2, many, 5, 2, generator=chance)
    charge = torch.randint(2, (many, 5, 1), generator=chance) * 2.0 - 1
    place, moved = begin, 0.5 * speed
    for _ in range(40):
        apart = place[:, :, None] - place[:, None]
        near = ((apart**2).sum(3, keepdim=True) + 0.3) ** -1.5
        pull = (charge[:, :, None] * charge[:, None] * near * apart).sum(2)
        moved = moved + 0.03 * pull
        place = place + 0.03 * moved
    y = place - begin
    return torch.cat((begin, speed, charge), 2), y / y.std()


def glimpses() -> Batch:
    """Return eight points of a smooth curve and twelve places, and how high the curve is there."""
    chance, many = _chance(), 8000
    x = 4 * torch.rand(many, 20, generator=chance) - 2
    slow = 0.8 + 0.8 * torch.rand(many, 1, generator=chance)
    pace = torch.randn(many, 1, 16, generator=chance) / slow[..., None]
    phase = 6.3 * torch.rand(many, 1, 16, generator=chance)
    y = (x[..., None] * pace + phase).cos().mean(2) * math.sqrt(32)
    seen = torch.stack((x[:, :8], y[:, :8]), 2).flatten(1)
    return torch.cat((seen, x[:, 8:]), 1), y[:, 8:]


def noised() -> Batch:
    """Return digits under some noise, and how much of it, from 0 to 1; the noise is asked for."""
    chance = _chance()
    x = _even(_data.digits()[0]).repeat(5, 1)
    level = torch.rand(len(x), 1, generator=chance)
    noise = torch.randn(x.shape, generator=chance)
    turn = level * math.pi / 2
    return torch.cat((turn.cos() * x + turn.sin() * noise, level), 1), noise


def stencils() -> Batch:
    """Return digits in black and white, which are their own targets."""
    x = (_data.digits()[0] > 0.5).float()
    return x, x


def mails() -> Batch:
    """Return who of 120 wrote about which of six matters, and who of them got it: teams, and chance."""
    chance, many = _chance(), 9000
    team = torch.arange(120) % 10
    sender = torch.randint(120, (many,), generator=chance)
    matter = torch.randint(6, (many,), generator=chance)
    rules = torch.stack([torch.randperm(10, generator=chance) for _ in range(6)])
    fame = (1.2 * torch.randn(120, generator=chance)).exp()
    share = (rules[matter, team[sender]][:, None] == team) * fame + 0.005
    got = torch.multinomial(share, 1, generator=chance)[:, 0]
    return torch.stack((sender, matter), 1), got


def episodes() -> Batch:
    """Return two examples of each of five digits, and one more picture; the class is which of the five it is."""
    chance, many = _chance(), 5000
    x, y = _data.digits()
    order, many_of = y.argsort(stable=True), y.bincount()
    begins = many_of.cumsum(0) - many_of
    drawn = torch.rand(many, 10, generator=chance).argsort(1)[:, :5]
    asked = torch.randint(5, (many,), generator=chance)
    which = torch.cat((drawn.repeat_interleave(2, 1), drawn.gather(1, asked[:, None])), 1)
    spot = torch.rand(which.shape, generator=chance)
    rows = order[begins[which] + (spot * many_of[which]).long()]
    seen = x[rows] + 0.15 * torch.randn(many, 11, 64, generator=chance)
    return _even(seen), asked


DATA: dict[str, Callable[..., Batch]] = {
    "tiles": tiles,
    "strewn": strewn,
    "cells": cells,
    "floods": floods,
    "scans": scans,
    "vowels": vowels,
    "rhythms": rhythms,
    "gases": gases,
    "trials": trials,
    "oscillators": oscillators,
    "charges": charges,
    "glimpses": glimpses,
    "noised": noised,
    "stencils": stencils,
    "mails": mails,
    "episodes": episodes,
    **texts.DATA,
}
