"""Small data sets that need no download: tables, digits and the source text of Python itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
    make_friedman1,
)
from torch import Tensor

TEXT = Path(os.__file__).parent
Batch = tuple[Tensor, Tensor]


def table(load: Callable[..., Any], regression: bool = False) -> Batch:
    x, y = load(return_X_y=True)
    return standard(x, y, regression)


def standard(x: Any, y: Any, regression: bool = False) -> Batch:
    """Return inputs of mean 0 and deviation 1; targets too where they are numbers."""
    x = (x - x.mean(0)) / (x.std(0) + 1e-8)
    if regression:
        y = (y - y.mean()) / y.std()
        return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None]
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def digits() -> Batch:
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16.0, dtype=torch.float32), torch.tensor(y)


def text(length: int = 32) -> Batch:
    names = ("argparse.py", "inspect.py", "typing.py", "subprocess.py")
    letters = "".join((TEXT / name).read_text(encoding="utf-8") for name in names)
    codes = torch.tensor([min(max(ord(letter) - 31, 0), 95) for letter in letters])
    rows = codes[: len(codes) // (length + 1) * (length + 1)].view(-1, length + 1)
    return rows[:, :-1], rows[:, 1:]


def cancer() -> Batch:
    return table(load_breast_cancer)


def friedman() -> Batch:
    x, y = make_friedman1(800, noise=0.3, random_state=0)
    return standard(x, y, regression=True)


def wine() -> Batch:
    return table(load_wine)


def diabetes() -> Batch:
    return table(load_diabetes, regression=True)


def batches(data: Batch, size: int, seed: int, order: str = "shuffled") -> Iterator[Batch]:
    """Yield batches for ever: shuffled anew each epoch, or `sorted`, as they lie by their labels."""
    x, y = data
    generator = torch.Generator().manual_seed(seed)
    by_label = torch.argsort(y.flatten(1)[:, 0] if y.ndim > 1 else y, stable=True)
    while True:
        rows = by_label if order == "sorted" else torch.randperm(len(x), generator=generator)
        for first in range(0, max(len(x) - size + 1, 1), size):
            taken = rows[first : first + size]
            yield x[taken], y[taken]
