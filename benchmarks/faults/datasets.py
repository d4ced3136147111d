"""The data of the bench: split in two once and for all, and spoiled as a case says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_iris, make_circles, make_moons, make_regression

from .. import _data
from .._data import Batch
from . import sets


def _pictures() -> Batch:
    x, _ = _data.digits()
    return x, x


def _moons() -> Batch:
    x, y = make_moons(1200, noise=0.15, random_state=0)
    return _data.standard(x, y)


def _circles() -> Batch:
    x, y = make_circles(1200, noise=0.08, factor=0.5, random_state=0)
    return _data.standard(x, y)


def _linear() -> Batch:
    x, y, *_ = make_regression(1000, 20, noise=5.0, random_state=0)
    return _data.standard(x, y, regression=True)


def _xor() -> Batch:
    x = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]).repeat(50, 1)
    return x, (x[:, :1] != x[:, 1:]).float()


def _constants() -> Batch:
    """Rows of ones and rows of zeros, which say of themselves what they are."""
    y = torch.arange(800) % 2
    return y[:, None].float().expand(-1, 128).contiguous(), y


def _parabola() -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(0.0, 5.0, 0.025)[:, None]
    return x, 5 * x**2 + torch.randn(x.shape, generator=generator) ** 3


def _bits() -> Batch:
    """The eight bits of every byte, which are their own targets."""
    x = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    return x.float(), x.float()


def _bands() -> Batch:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 2
    return 0.2 + 0.3 * y[:, None] + 0.2 * torch.rand(400, 2, generator=generator), y


DATA: dict[str, Callable[..., Batch]] = {
    "digits": _data.digits,
    "pictures": _pictures,
    "cancer": _data.cancer,
    "wine": _data.wine,
    "iris": lambda: _data.table(load_iris),
    "diabetes": _data.diabetes,
    "friedman": _data.friedman,
    "linear": _linear,
    "moons": _moons,
    "circles": _circles,
    "text": _data.text,
    "xor": _xor,
    "constants": _constants,
    "parabola": _parabola,
    "bits": _bits,
    "bands": _bands,
    **sets.DATA,
}
ORDERS = ("shuffled", "sorted")
FIELDS = (
    "name",
    "rows",
    "label_noise",
    "scale",
    "shift",
    "uneven",
    "keep",
    "corrupt",
    "labels",
    "length",
)
HELD_BACK = 0.2
"""Share of the rows that validate, the same rows for every seed."""


@dataclass(frozen=True)
class Split:
    """The rows that train, and those that validate."""

    train: Batch
    validation: Batch


def check(spec: Any) -> None:
    """Raise KeyError where a data set has a field that there is not."""
    odd = [key for key in (spec if isinstance(spec, Mapping) else ()) if key not in FIELDS]
    if odd:
        raise KeyError(f"data takes no {', '.join(odd)}; it takes {', '.join(FIELDS)}")


@cache
def _loaded(name: str, length: int) -> Batch:
    return DATA[name](length) if length else DATA[name]()


def _along(x: torch.Tensor, value: Any) -> torch.Tensor:
    """Return a number, or one for each channel of pictures, so that it can be taken from all rows."""
    value = torch.as_tensor(value)
    apart = value.ndim == 1 and x.ndim > 2 and len(value) == x.shape[1]
    return value.view(-1, *[1] * (x.ndim - 2)) if apart else value


def load(spec: Any, normalize: Mapping[str, Any] | None = None) -> Split:
    """Return the two parts of a data set.

    `rows` of those that train are kept; `label_noise` is the share of them with another label;
    `keep` = {class: share} thins classes out; `corrupt` is the share whose inputs are a thousand
    times too large; `labels` is the one class that all of them are said to be of. `scale`, `shift` and `uneven` (each feature up to so many times larger than
    the first) change both parts: the world is so.
    """
    body: Mapping[str, Any] = {"name": spec} if isinstance(spec, str) else spec
    x, y = _loaded(str(body["name"]), int(body.get("length", 0)))
    if body.get("uneven"):
        power = torch.linspace(0, 1, x.shape[1])
        x = x * float(body["uneven"]) ** power
    if x.is_floating_point():
        x = x * float(body.get("scale", 1.0)) + float(body.get("shift", 0.0))
    if normalize is not None:
        mean, std = (_along(x, normalize[key]) for key in ("mean", "std"))
        x = (x - mean) / std.clamp_min(1e-8)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(x), generator=generator)
    cut = int(len(x) * HELD_BACK)
    held, rows = order[:cut], order[cut:]
    for label, share in (body.get("keep") or {}).items():
        drawn = torch.rand(len(rows), generator=generator)
        rows = rows[(y[rows] != int(label)) | (drawn < float(share))]
    rows = rows[: int(body.get("rows", len(rows)))]
    train_x, train_y = x[rows].clone(), y[rows].clone()
    if "labels" in body:
        train_y = torch.full_like(train_y, int(body["labels"]))
    noise = float(body.get("label_noise", 0.0))
    if noise:
        wrong = torch.rand(len(rows), generator=generator) < noise
        mixed = train_y[torch.randperm(len(rows), generator=generator)]
        train_y = torch.where(wrong.view(-1, *[1] * (train_y.ndim - 1)), mixed, train_y)
    if body.get("corrupt"):
        bad = torch.rand(len(rows), generator=generator) < float(body["corrupt"])
        train_x[bad] = train_x[bad] * 1000.0
    return Split((train_x, train_y), (x[held], y[held]))
