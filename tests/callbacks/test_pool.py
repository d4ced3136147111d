"""Batches of a pool: cut to a few samples, and copied so that a step may spoil them."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from otoscope.callbacks.probes.pool import batch_size, copied, limited
from torch import Tensor

Pair = namedtuple("Pair", ["x", "y"])


@dataclass(frozen=True)
class Record:
    x: Tensor
    y: Tensor
    names: list[str]
    weight: float = 1.0


@dataclass
class Slotted:
    __slots__ = ("x",)
    x: Tensor


@dataclass
class Nested:
    inner: dict[str, Any] = field(default_factory=dict)


def xy() -> tuple[Tensor, Tensor]:
    return torch.arange(12.0).view(6, 2), torch.arange(6)


@pytest.mark.parametrize(
    ("batch", "read"),
    [
        (xy(), lambda b: b),
        (list(xy()), lambda b: b),
        (Pair(*xy()), lambda b: (b.x, b.y)),
        (dict(zip("xy", xy(), strict=True)), lambda b: (b["x"], b["y"])),
        (UserDict(zip("xy", xy(), strict=True)), lambda b: (b["x"], b["y"])),
        (Record(*xy(), list("abcdef")), lambda b: (b.x, b.y)),
        (Nested({"deep": [Pair(*xy())]}), lambda b: tuple(b.inner["deep"][0])),
    ],
    ids=["tuple", "list", "named tuple", "dict", "user dict", "dataclass", "nested"],
)
def test_a_batch_of_any_kind_is_cut_to_its_first_samples_and_stays_whole_itself(batch, read):
    cut = limited(batch, 2)
    assert type(cut) is type(batch)
    assert [len(part) for part in read(cut)] == [2, 2]
    assert [len(part) for part in read(batch)] == [6, 6]
    assert torch.equal(read(cut)[0], xy()[0][:2])
    assert batch_size(cut) == 2


def test_what_is_no_sample_is_kept():
    cut = limited(Record(*xy(), list("abcdef"), 0.5), 4)
    assert cut.names == list("abcd")
    assert cut.weight == 0.5


@pytest.mark.parametrize("batch", [Slotted(xy()[0]), {"x": xy()[0], "graph": object()}])
def test_what_cannot_be_taken_apart_is_whole(batch):
    assert limited(batch, 2) is batch


def test_a_copy_keeps_what_is_popped_and_written():
    batch = {"x": torch.ones(3), "more": Record(torch.zeros(2), torch.zeros(2), ["a"])}
    other = copied(batch, torch.clone)
    batch.pop("x").mul_(5)
    batch["more"].y.add_(1)
    batch["more"].names.append("b")
    assert other["x"].tolist() == [1.0, 1.0, 1.0]
    assert other["more"].y.tolist() == [0.0, 0.0]
    assert other["more"].names == ["a"]
