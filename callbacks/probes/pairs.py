"""Pairs: the cosine between the gradients of two steps in a row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Number = float | Tensor


class GradientPairs:
    """Keeps a copy of one step's gradients and compares the next step's with it; never two copies.

    −1 is the zig-zag of a valley whose walls are steeper than the step allows, near 0 a gradient
    that is mostly noise, 1 a straight way. What clips or scales a whole gradient leaves it as it
    is. Gradients are told by the place of their parameter, of accumulated ones the last counts.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}
        self._kept_square: Number = math.nan
        self._step = -1
        self._keeps = self._compares = False
        self._dots: dict[int, Number] = {}
        self._whole = True

    @property
    def is_open(self) -> bool:
        """Whether a copy waits for the next step."""
        return bool(self._kept)

    def begin(self, step: int, *, keep: bool) -> None:
        """Begin an armed step: the second of a pair, or with `keep` the first of one."""
        self._compares = self.is_open and self._step == step - 1
        if not self._compares:
            self._kept = {}
        self._keeps = keep and not self._compares
        self._dots, self._whole = {}, True
        if self._keeps:
            self._step = step

    def see(self, place: int, gradient: Tensor) -> None:
        """Take a gradient of the step, complete as far as is known by now."""
        if not (self._keeps or self._compares):
            return
        if gradient.layout is not torch.strided:
            self._whole = False
            return
        gradient = gradient.detach()
        if self._keeps:
            known = self._kept.get(place)
            if known is None or known.shape != gradient.shape:
                self._kept[place] = gradient.clone()
            else:
                known.copy_(gradient)
        elif place in self._kept and self._kept[place].shape == gradient.shape:
            self._dots[place] = _dot(self._kept[place], gradient)

    def end(self, square: Number) -> Number:
        """End a step and return the cosine, NaN where it was not the second of a pair.

        `square` is the squared norm of all its gradients.
        """
        cosine: Number = math.nan
        if self._compares and self._whole:
            dot = _total(list(self._dots.values()))
            lengths = self._kept_square * square
            if isinstance(lengths, Tensor):
                # 0/0 is the NaN of a gradient of nothing
                cosine = (dot / lengths.sqrt()).clamp(-1.0, 1.0)
            elif not isinstance(dot, Tensor) and 0 < lengths < math.inf:
                cosine = max(-1.0, min(1.0, dot / math.sqrt(lengths)))
        if self._keeps and self._whole:
            self._kept_square = square
        else:
            self._kept = {}
        self._keeps = self._compares = False
        return cosine

    def let_go(self, step: int) -> None:
        """Let go of a copy whose next step was not measured."""
        if step > self._step:
            self._kept = {}


def _total(numbers: list[Number]) -> Number:
    tensors = [number for number in numbers if isinstance(number, Tensor)]
    if tensors:
        return torch.stack([number.to(tensors[0].device) for number in tensors]).sum()
    return sum(float(number) for number in numbers)


def _dot(a: Tensor, b: Tensor) -> Number:
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    a, b = a.reshape(-1), b.reshape(-1)
    if a.device.type != "cpu":
        return (a.float() * b.float()).sum(dtype=torch.float64)
    if a.dtype == b.dtype == torch.float32:
        found = torch.dot(a, b).item()
        if 1e-30 < abs(found) < 1e38:
            return found
    return torch.dot(a.double(), b.double()).item()  # float32 products under- and overflow
