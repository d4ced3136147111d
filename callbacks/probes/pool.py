"""A pool of training batches, each cut to so many samples that a Hessian product stays cheap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def batch_size(batch: Any) -> int | None:
    """Return the number of samples of a batch: the length of its first tensor that has one.

    >>> import torch
    >>> batch_size({"x": torch.zeros(8, 3), "y": torch.zeros(8)}), batch_size("text")
    (8, None)
    """
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else None
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, (list, tuple)):
        for item in batch:
            size = batch_size(item)
            if size is not None:
                return size
    return None


def limited(batch: Any, most: int) -> Any:
    """Return the first `most` samples of a batch made of tensors in lists, tuples and mappings.

    Tensors and lists whose length is that of the batch are cut (views, not copies), the rest is
    kept. A batch that holds anything else (a graph, a packed sequence) is returned whole: how to
    cut it is its own affair.

    >>> import torch
    >>> x, y = limited((torch.arange(6).view(3, 2), ["a", "b", "c"]), 2)
    >>> x.tolist(), y
    ([[0, 1], [2, 3]], ['a', 'b'])
    """
    size = batch_size(batch)
    if size is None or size <= most or not _is_plain(batch):
        return batch
    return _cut(batch, size, most)


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return True
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value.values()))
    return type(value) is Tensor


def _cut(value: Any, size: int, most: int) -> Any:
    if isinstance(value, Tensor):
        return value[:most] if value.ndim and len(value) == size else value
    if isinstance(value, dict):
        return {key: _cut(item, size, most) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        holds_samples = len(value) == size and not any(isinstance(v, Tensor) for v in value)
        items = value[:most] if holds_samples else [_cut(item, size, most) for item in value]
        return type(value)(items)
    return value
