"""The activations probe: what leaves the layers, and which units never fire."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...store import Column
from ..measures.activations import activation_kind, dead_units, saturated_share, unit_dimension
from .hooks import StayingHook
from .probe import Probe, ProbeOffError, Training, clock

ENOUGH_SAMPLES = 512
"""A unit is called dead only if it was never positive over this many samples."""

BIG_BATCH = 64
"""From this many rows on, one row in eight is looked at: +2 % against +9 to 12 % while on."""
STRIDE = 8

RELU_LIKE = ("relu", "relu6")
OUTPUT = ("numel", "non_finite", "sum", "sum_sq")
ACTIVATION = ("numel", "samples", "saturated")


@dataclass(slots=True)
class _Watched:
    """One module under watch, and the row of the buffers that is its own."""

    path: str
    row: int
    kind: str | None
    low: float | None = None
    high: float | None = None
    inplace: bool = False
    units: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    peak: float = 0.0
    now: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    window: deque[tuple[int, dict[tuple[int, int], torch.Tensor]]] = field(default_factory=deque)

    def add(self, *numbers: float) -> None:
        self.sums = [a + b for a, b in zip(self.sums, numbers, strict=True)]

    @property
    def fires(self) -> bool:
        return self.kind in RELU_LIKE


class Activations(Probe):
    """Saturated shares and dead units of activation modules, moments of every layer's output.

    Forward hooks are added before the first forward pass and idle behind a flag; they write into
    buffers made beforehand, so that a compiled model keeps one graph. Dead units are counted over
    a sliding window of sampled steps that holds at least 512 samples; until then they are NaN.
    For modules like ReLU `samples` is the count over that window.
    """

    def __init__(self, every: int | None = None) -> None:
        super().__init__(every=every)
        self.family = "activations"

    def attach(self, training: Training) -> Sequence[Column]:
        self._on = False
        self._handles: list[Any] = []
        self._watched: list[_Watched] = []
        self._channels_first = False
        columns: list[Column] = []
        for path, module in training.model.named_modules():
            kind = activation_kind(module)
            if kind is not None:
                columns += self._watch_activation(path, module, kind)
            elif path and _is_layer(module):
                columns += self._watch_output(path, module)
        if not self._watched:
            raise ProbeOffError("the model has no activation modules and no layers with weights")
        device = next((p.device for p in training.model.parameters()), torch.device("cpu"))
        self._sums = torch.zeros(len(self._watched), 4, dtype=torch.float32, device=device)
        self._absmax = torch.zeros(len(self._watched), dtype=torch.float32, device=device)
        return columns

    def _watch_activation(self, path: str, module: nn.Module, kind: str) -> list[Column]:
        watched = _Watched(path, len(self._watched), kind)
        watched.low, watched.high = _bounds(module)
        watched.inplace = bool(getattr(module, "inplace", False))
        self._watched.append(watched)
        self._handles.append(
            module.register_forward_hook(StayingHook(self._activation_hook(watched)))
        )
        names = [*ACTIVATION, *(("units", "dead") if watched.fires else ())]
        return [Column.of(name, layer=path) for name in names]

    def _watch_output(self, path: str, module: nn.Module) -> list[Column]:
        watched = _Watched(path, len(self._watched), None)
        self._watched.append(watched)
        self._handles.append(module.register_forward_hook(StayingHook(self._output_hook(watched))))
        return [Column.of(name, layer=path) for name in (*OUTPUT, "absmax")]

    def _output_hook(self, watched: _Watched):
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not self._on:
                return
            x = _tensor(output)
            if x is None:
                return
            if torch.compiler.is_compiling():
                self._add_output(watched, x)
            elif not _in_backward():
                before = clock()
                self._channels_first = _channels_first(module, self._channels_first)
                self._guarded(self._add_output, watched, x)
                self.hook_seconds += clock() - before

        return hook

    def _activation_hook(self, watched: _Watched):
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not self._on:
                return
            y = _tensor(output)
            x = y if watched.inplace else _tensor(inputs)
            if x is None or y is None:
                return
            if torch.compiler.is_compiling():
                self._add_saturated(watched, x)
            elif not _in_backward():
                before = clock()
                self._guarded(self._add_activation, watched, x, y)
                self.hook_seconds += clock() - before

        return hook

    def _guarded(self, what: Any, *arguments: Any) -> None:
        """Run what looks at a layer inside the user's forward pass; an error waits for `sample`."""
        try:
            with torch.no_grad():
                what(*arguments)
        except Exception as error:  # a hook must not raise into the user's forward pass
            self._on = False
            self._error = error

    def _add_output(self, watched: _Watched, x: torch.Tensor) -> None:
        flat = _rows(x).detach().float().reshape(-1)
        low, high = torch.aminmax(flat)
        total, square = flat.sum(), torch.dot(flat, flat)
        if self._sums.device.type == "cpu" and not torch.compiler.is_compiling():
            # numbers: five small tensors cost four times as much here
            bad = 0 if math.isfinite(square.item()) else flat.numel() - flat.isfinite().sum().item()
            watched.add(float(flat.numel()), float(bad), total.item(), square.item())
            watched.peak = max(watched.peak, -low.item(), high.item())
            return
        numel = torch.full((), float(flat.numel()), device=flat.device)
        sums = torch.stack([numel, numel - torch.isfinite(flat).sum(), total, square])
        self._sums[watched.row].add_(sums.to(self._sums.device))
        peak = torch.maximum(-low, high).to(self._absmax.device)
        self._absmax[watched.row].copy_(torch.maximum(self._absmax[watched.row], peak))

    def _add_saturated(self, watched: _Watched, x: torch.Tensor) -> None:
        rows = _rows(x).detach()
        assert watched.kind is not None
        share = saturated_share(rows, watched.kind, low=watched.low, high=watched.high)
        if watched.inplace and watched.kind not in RELU_LIKE:
            share = share * math.nan  # the input is gone, and the output does not tell it
        if self._sums.device.type == "cpu" and not torch.compiler.is_compiling():
            numel = float(rows.numel())
            watched.add(numel, float(x.shape[0]), share.item() * numel, 0.0)
            return
        numel = torch.full((), float(rows.numel()), device=rows.device)
        samples = torch.full_like(numel, float(x.shape[0]))
        sums = torch.stack([numel, samples, share * numel, torch.zeros_like(numel)])
        self._sums[watched.row].add_(sums.to(self._sums.device))

    def _add_activation(self, watched: _Watched, x: torch.Tensor, y: torch.Tensor) -> None:
        self._add_saturated(watched, x)
        if not watched.fires or y.ndim < 2:
            return
        dim = 1 if y.ndim == 3 and self._channels_first else unit_dimension(y.ndim)
        dead = dead_units(y.detach(), dim=dim)
        # a module that is used for outputs of several sizes has units of each
        key = (y.ndim, dead.numel())
        known = watched.now.get(key)
        watched.now[key] = dead if known is None else known & dead
        watched.batch = max(watched.batch, y.shape[0])

    _error: Exception | None = None

    def arm(self, step: int) -> None:
        self._sums.zero_()
        self._absmax.zero_()
        for watched in self._watched:
            watched.now, watched.batch = {}, 0
            watched.sums, watched.peak = [0.0] * 4, 0.0
        self._error = None
        self._on = True

    def sample(self, step: int) -> torch.Tensor:
        self._on = False
        if self._error is not None:
            raise self._error
        with torch.no_grad():
            if self._sums.device.type == "cpu":
                self._sums += torch.tensor([watched.sums for watched in self._watched])
                self._absmax.copy_(
                    torch.maximum(self._absmax, torch.tensor([w.peak for w in self._watched]))
                )
            seen = self._sums[:, 0] > 0
            sums = torch.where(seen[:, None], self._sums, math.nan)
            absmax = torch.where(seen, self._absmax, math.nan)
            parts: list[torch.Tensor] = []
            for watched in self._watched:
                row = sums[watched.row]
                if watched.kind is None:
                    parts += [row, absmax[watched.row].reshape(1)]
                    continue
                if watched.fires:
                    units, dead, samples = self._fired(watched)
                    parts += [row[0], samples, row[2], units, dead]
                else:
                    parts += [row[0], row[1], row[2]]
            device = self._sums.device
            return torch.cat([part.reshape(-1).to(device) for part in parts])

    def _fired(self, watched: _Watched) -> list[torch.Tensor]:
        """Return units, dead, samples of the window; dead is NaN while it holds too few samples."""
        if watched.now:
            watched.units = sum(mask.numel() for mask in watched.now.values())
            watched.window.append((watched.batch, watched.now))
        window = watched.window
        while window and sum(n for n, _ in window) - window[0][0] >= ENOUGH_SAMPLES:
            window.popleft()
        samples = sum(n for n, _ in window)
        units = torch.tensor(float(watched.units) if watched.units else math.nan)
        dead = torch.tensor(math.nan)
        if samples >= ENOUGH_SAMPLES:
            together: dict[tuple[int, int], torch.Tensor] = {}
            for _, masks in window:
                for key, mask in masks.items():
                    together[key] = together[key] & mask if key in together else mask
            dead = torch.stack([mask.sum() for mask in together.values()]).sum().float()
        return [units, dead, torch.tensor(float(samples))]

    def hungry(self) -> bool:
        watched = next((w for w in self._watched if w.fires and w.units), None)
        if watched is None or not 0 < len(watched.window) < STRIDE:
            return False
        return sum(n for n, _ in watched.window) < ENOUGH_SAMPLES

    def disarm(self) -> None:
        self._on = False

    def detach(self) -> None:
        self._on = False
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _is_layer(module: nn.Module) -> bool:
    has_weights = next(module.parameters(recurse=False), None) is not None
    return has_weights and next(module.children(), None) is None


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x[::STRIDE] if x.ndim > 1 and x.shape[0] >= BIG_BATCH else x


def _tensor(value: Any) -> torch.Tensor | None:
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return None
    return value if value.numel() else None


def _bounds(module: nn.Module) -> tuple[float | None, float | None]:
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return float(module.min_val), float(module.max_val)
    return None, None


def _channels_first(module: nn.Module, before: bool) -> bool:
    """Tell whether a (B, x, y) output has its units in the second dimension."""
    if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
        return True
    return before if isinstance(module, nn.modules.batchnorm._NormBase) else False


def _in_backward() -> bool:
    # gradient checkpointing runs the forward again inside the backward: those calls do not count
    return torch._C._current_graph_task_id() != -1
