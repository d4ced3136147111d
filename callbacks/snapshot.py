"""A snapshot of what running a module may change: its modes, tensors, containers and random states."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Restore = Callable[[], None]

_INTERNAL = frozenset(vars(nn.Module())) | {"_trainer", "_fabric"}
"""Attributes that every module has: handled apart, or none of ours."""

_LARGEST = 16 * 2**20
"""Bytes of the largest plain attribute that is copied: a data set kept on a module is not."""

_DEEPEST = 3
"""Containers within containers that are followed."""


class Snapshot:
    """Everything about a module that its forward pass or training step may change.

    Per module, at any depth: the train/eval mode, parameters, buffers, and plain attributes
    (counters, lists that a step appends to, the states of torchmetrics, generators), also those of
    modules that hide in a list or an attribute, of records (a running mean, an EMA: objects whose
    attributes are all plain), and of the lists and dicts that a forward hook's closure fills.
    `restore` puts back the same objects with the same contents. Objects of other classes (a data
    set, a thread that fetches batches) are put back as references, but not looked into.

    >>> layer = nn.BatchNorm1d(2)
    >>> snapshot = Snapshot(layer)
    >>> _ = layer(torch.randn(4, 2)), layer.eval()
    >>> snapshot.restore()
    >>> layer.training, layer.num_batches_tracked.item(), layer.running_mean.tolist()
    (True, 0, [0.0, 0.0])
    """

    def __init__(self, module: nn.Module):
        self._restores: list[Restore] = []
        self._tensors: list[tuple[int, Restore]] = []
        self._seen: set[int] = set()
        self._kept: list[Any] = []  # so that no `id` is given out again
        self._add_module(module)

    def restore(self, keep: Collection[int] = ()) -> None:
        """Put everything back, but for the tensors whose `id` is in `keep`.

        All that can be is put back before the first error is raised: a run goes on with it.
        """
        errors: list[Exception] = []
        tensors = [restore for number, restore in self._tensors if number not in keep]
        for restore in [*tensors, *self._restores]:
            try:
                restore()
            except Exception as error:  # of an attribute of the user's own making
                errors.append(error)
        if errors:
            raise errors[0]

    def _add_module(self, root: nn.Module) -> None:
        for module in root.modules():
            if id(module) in self._seen:
                continue
            self._seen.add(id(module))
            self._restores.append(_mode(module))
            for held in (module._parameters, module._buffers):
                if not isinstance(module, torch.jit.ScriptModule):  # there nothing can be replaced
                    self._restores.append(_mapping(held))
                for tensor in held.values():
                    if tensor is not None and id(tensor) not in self._seen:
                        self._seen.add(id(tensor))
                        self._add_tensor(tensor)
            self._add_attributes(module)
            for hook in _hooks(module):
                for value in _reached(hook):
                    self._add(value, 0)

    def _add_tensor(self, tensor: Tensor) -> None:
        self._tensors.append((id(tensor), _tensor(tensor)))
        self._kept.append(tensor)

    def _add_attributes(self, module: nn.Module) -> None:
        held = vars(module)
        self._restores.append(_attributes(held))
        for key, value in list(held.items()):
            if key not in _INTERNAL:
                self._add(value, 0)

    def _add(self, value: Any, depth: int) -> None:
        if isinstance(value, nn.Module):
            self._add_module(value)
            return
        if depth > _DEEPEST or id(value) in self._seen:
            return
        # a parameter may be met in a list before its module is; a data set is not copied
        if isinstance(value, Tensor):
            if isinstance(value, nn.Parameter) or value.numel() * value.element_size() <= _LARGEST:
                self._seen.add(id(value))
                self._add_tensor(value)
            return
        restore = _content(value)
        if restore is None:
            return
        self._seen.add(id(value))
        self._kept.append(value)
        self._restores.append(restore)
        for item in _items(value):
            self._add(item, depth + 1)


def _hooks(module: nn.Module) -> Iterator[Any]:
    for held in (module._forward_hooks, module._forward_pre_hooks):
        yield from held.values()


def _reached(hook: Any) -> Iterator[Any]:
    """Yield what a hook can write to: what its closure holds, and the object that it is a method of."""
    yield from (
        cell.cell_contents for cell in getattr(hook, "__closure__", None) or () if _is_full(cell)
    )
    owner = getattr(hook, "__self__", None)
    if owner is not None:
        yield owner


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


_GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)

_PLAIN = (
    *(str, bytes, int, float, complex, torch.dtype, torch.device),
    *(nn.Module, Tensor, np.ndarray, list, tuple, dict, set, deque),
    *_GENERATORS,
)


def _is_record(value: Any) -> bool:
    """Tell whether an object's attributes are all plain: it does nothing behind our back."""
    held = getattr(value, "__dict__", None)
    if type(held) is not dict or isinstance(value, (type, *_GENERATORS)):
        return False
    return all(item is None or isinstance(item, _PLAIN) for item in held.values())


def _attributes(held: dict[str, Any]) -> Restore:
    saved = {key: value for key, value in held.items() if key not in _INTERNAL}

    def restore() -> None:
        for key in [key for key in held if key not in saved and key not in _INTERNAL]:
            del held[key]
        held.update(saved)

    return restore


def _mode(module: nn.Module) -> Restore:
    training = module.training

    def restore() -> None:
        module.training = training

    return restore


def _mapping(held: dict[str, Any]) -> Restore:
    saved = dict(held)

    def restore() -> None:
        if held.keys() != saved.keys() or any(held[key] is not saved[key] for key in saved):
            held.clear()
            held.update(saved)

    return restore


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (list, tuple, deque)):
        yield from value
    elif _is_record(value):
        yield from vars(value).values()


def _content(value: Any) -> Restore | None:
    """Return what puts the content of a value back, or None where there is nothing to put back."""
    if isinstance(value, np.ndarray) and value.nbytes <= _LARGEST:
        array = value.copy()
        return lambda: np.copyto(value, array)
    if isinstance(value, (list, deque)):
        items = list(value)
        return lambda: _refill(value, items)
    if isinstance(value, dict):
        return _mapping(value)
    if isinstance(value, set):
        return _members(value)
    if isinstance(value, tuple):
        return _nothing  # itself fixed; what it holds may not be
    if _is_record(value):
        return _attributes(vars(value))
    return _generator(value)


def _members(held: set[Any]) -> Restore:
    saved = set(held)

    def restore() -> None:
        held.clear()
        held.update(saved)

    return restore


def _refill(held: Any, items: list[Any]) -> None:
    if len(held) != len(items) or any(a is not b for a, b in zip(held, items, strict=True)):
        held.clear()
        held.extend(items)


def _tensor(tensor: Tensor) -> Restore:
    if tensor.layout != torch.strided:
        return _nothing  # sparse: no copy_ between patterns, and rarely written to
    saved, storage = tensor.detach().clone(), tensor.data
    grad = tensor.grad if tensor.is_leaf else None

    def restore() -> None:
        # `.data` raises no version: a graph that holds the tensor stays usable. Nor does BatchNorm
        # when it writes, or an EMA that assigns `.data`.
        if tensor.data_ptr() != storage.data_ptr():
            tensor.data = storage
        tensor.data.copy_(saved)
        if tensor.is_leaf and tensor.grad is not grad:
            tensor.grad = grad

    return restore


def _nothing() -> None:
    return None


def _generator(value: Any) -> Restore | None:
    if isinstance(value, torch.Generator):
        return _torch_generator(value)
    if isinstance(value, random.Random):
        internal = value.getstate()
        return lambda: value.setstate(internal)
    if isinstance(value, np.random.RandomState):
        legacy = value.get_state()
        return lambda: value.set_state(legacy)
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        inner = bits.state
        return lambda: setattr(bits, "state", inner)
    return None


def _torch_generator(generator: torch.Generator) -> Restore:
    state = generator.get_state()

    def restore() -> None:
        generator.set_state(state)

    return restore


class RandomStates:
    """The random states of python, numpy and torch (CPU and the devices of a module).

    >>> states = RandomStates(nn.Linear(1, 1))
    >>> a = torch.rand(1).item(), random.random(), np.random.rand()
    >>> states.restore()
    >>> a == (torch.rand(1).item(), random.random(), np.random.rand())
    True
    """

    def __init__(self, module: nn.Module):
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._torch = torch.get_rng_state()
        used = {p.device for p in module.parameters() if p.device.type == "cuda"}
        self._cuda = {device: torch.cuda.get_rng_state(device) for device in used}

    def seed(self, number: int) -> None:
        """Begin the same draws again, in each of these and no other: what was saved can be restored."""
        random.seed(number)
        np.random.seed(number)
        torch.default_generator.manual_seed(number)
        for device in self._cuda:
            torch.cuda.default_generators[device.index or 0].manual_seed(number)

    def restore(self) -> None:
        """Put every state back."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        for device, state in self._cuda.items():
            torch.cuda.set_rng_state(state, device)
