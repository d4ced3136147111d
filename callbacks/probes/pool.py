"""A pool of training batches, each cut to so many samples that a Hessian product stays cheap."""

from __future__ import annotations

import copy
import dataclasses
from collections import UserDict
from collections.abc import Callable, Mapping
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
    elif _is_record(batch):
        batch = [getattr(batch, f.name, None) for f in dataclasses.fields(batch)]
    if isinstance(batch, (list, tuple)):
        for item in batch:
            size = batch_size(item)
            if size is not None:
                return size
    return None


def limited(batch: Any, most: int) -> Any:
    """Return the first `most` samples of a batch made of tensors.

    In lists, tuples (named ones too), dicts and dataclasses, tensors and lists whose length is that
    of the batch are cut (views, not copies), the rest is kept. A batch that holds anything else (a
    graph, a packed sequence) is returned whole: how to cut it is its own affair.

    >>> import torch
    >>> x, y = limited((torch.arange(6).view(3, 2), ["a", "b", "c"]), 2)
    >>> x.tolist(), y
    ([[0, 1], [2, 3]], ['a', 'b'])
    """
    size = batch_size(batch)
    if size is None or size <= most or not _is_plain(batch):
        return batch
    return _cut(batch, size, slice(most))


def halves(batch: Any) -> tuple[Any, Any, int] | None:
    """Return two parts of a batch, and how many samples each has; None where it cannot be cut.

    Of an odd number of samples the last is left out. What can be cut is told by `limited`.

    >>> import torch
    >>> halves({"x": torch.arange(5), "of": "text"})
    ({'x': tensor([0, 1]), 'of': 'text'}, {'x': tensor([2, 3]), 'of': 'text'}, 2)
    """
    size = batch_size(batch)
    if size is None or size < 2 or not _is_plain(batch):
        return None
    half = size // 2
    parts = (slice(half), slice(half, 2 * half))
    return _cut(batch, size, parts[0]), _cut(batch, size, parts[1]), half


def copied(batch: Any, of_tensor: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Any:
    """Return a batch in containers of its own: what is popped from one stays in the other.

    `of_tensor` makes its tensors; anything but tensors and containers is the same object.

    >>> batch = {"x": 1, "more": [2]}
    >>> other = copied(batch)
    >>> batch.pop("x"), batch["more"].pop(), other
    (1, 2, {'x': 1, 'more': [2]})
    """
    if isinstance(batch, Tensor):
        return of_tensor(batch)
    return _rebuilt(batch, lambda item: copied(item, of_tensor))


def _rebuilt(value: Any, of_item: Callable[[Any], Any]) -> Any:
    """Return a container of the same kind with other items; anything else as it is."""
    if type(value) in (list, tuple):
        return type(value)(map(of_item, value))
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return type(value)._make(map(of_item, value))  # type: ignore[attr-defined]
    if _is_mapping(value) or _is_record(value):
        other = copy.copy(value)
        held: Any = other if _is_mapping(value) else vars(other)
        for key in list(held):
            held[key] = of_item(held[key])
        return other
    return value


def _is_mapping(value: Any) -> bool:
    return type(value) is dict or isinstance(value, UserDict)


def _is_record(value: Any) -> bool:
    """Tell whether a value is a dataclass whose fields are plain attributes."""
    return (
        dataclasses.is_dataclass(value)
        and not isinstance(value, type)
        and hasattr(value, "__dict__")
        and not isinstance(value, Mapping)
    )


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return True
    if type(value) in (list, tuple) or (isinstance(value, tuple) and hasattr(value, "_make")):
        return all(map(_is_plain, value))
    if isinstance(value, (dict, UserDict)):
        return _is_mapping(value) and all(map(_is_plain, value.values()))
    if _is_record(value):
        return all(map(_is_plain, vars(value).values()))
    return type(value) is Tensor


def _cut(value: Any, size: int, part: slice) -> Any:
    if isinstance(value, Tensor):
        return value[part] if value.ndim and len(value) == size else value
    holds_samples = type(value) in (list, tuple) and len(value) == size
    if holds_samples and not any(isinstance(item, Tensor) for item in value):
        return value[part]
    return _rebuilt(value, lambda item: _cut(item, size, part))
