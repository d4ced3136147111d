"""The activations probe: what leaves the layers, and which units never fire."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ...store import Column, ConfigError, schemas
from ..guard import HookGuard
from ..layers import PARAMETRIZED, ROOT, owner_of
from ..measures.activations import activation_kind, saturated_share
from ..norms import moved
from .attended import Attended, attended
from .collapse import Ranks
from .forwards import Forwards, is_real, seconds_of_a_pass
from .functional import Call, FunctionalCalls, seconds_of_a_call
from .hooks import Look
from .probe import COLD, Probe, ProbeOffError, Training, clock
from .watched import ENOUGH_SAMPLES, RELU_LIKE, Watched

BIG_BATCH = 64
"""From this many rows on, one row in eight is looked at: +2 % against +9 to 12 % while on."""
STRIDE = 8

LATER = ((100, 1),)
"""A look once the net has left its start: what grows or dies later is told by it."""

PLACES = {"numel": 0, "non_finite": 1, "sum": 2, "sum_sq": 3, "absmax": 4}
PLACES |= {"saturated": 2, "samples": 5, "units": 6, "dead": 7}
"""Where a quantity stands in a row of the table that a sample is read from."""


TOGETHER: dict[str, schemas.Ranks] = {
    "absmax": "max",
    "max_logit": "max",
    "entropy": "mean",
    "effective_rank": "mean",
}
"""How ranks combine, where they are not added up."""


class Activations(Probe):
    """Saturated shares and dead units of activations, moments of every layer's output.

    Modules and functions alike; a function goes by the module that calls it, `block.relu()`. In
    steps that are not sampled nothing of ours is in the forward pass. A compiled model has forward
    hooks all along, which idle behind a flag and write into buffers made beforehand, so that it
    keeps one graph; functions inside it are not seen. Dead units are counted over a sliding window
    of sampled steps that holds at least 512 samples; until then they are NaN. For ReLU and its
    kin `samples` is the count over that window. A forward pass in eval mode without gradients, a
    validation, does not count.

    Attention (`nn.MultiheadAttention`, `scaled_dot_product_attention`): `entropy` of what 16 queries
    of the batch's first example look at, over the logarithm of the keys that they may look at, and
    their `max_logit`. `effective_rank` of a layer's output, of 64 to 512 rows by the size of the
    model: of a few layers in every eighth sample, NaN in between.

    `ranks`: "first" looks at rank 0's part of each batch alone, "all" at every rank's, at the same
    steps; reading adds them up.
    """

    def __init__(self, every: int | None = None, *, ranks: str = "first") -> None:
        if ranks not in ("first", "all"):
            raise ConfigError(f'ranks must be "first" or "all", got {ranks!r}')
        super().__init__(every=every)
        self.family = "activations"
        self.eager = True
        self.promised = LATER
        self.ranks = ranks

    def on_every_rank(self, training: Training) -> bool:
        return self.ranks == "all" and training.world_size > 1

    _error: Exception | None = None
    _forwards: Forwards | None = None

    def attach(self, training: Training) -> Sequence[Column]:
        self._on = False
        self._guarded = HookGuard(self._failed)
        self._all = self.on_every_rank(training)
        self._watched: list[Watched] = []
        self._calls: dict[str, Watched] = {}
        self._new = False
        self._channels_first = False
        looks: dict[int, Look] = {}
        for path, module in training.model.named_modules():
            kind = activation_kind(module)
            if kind is not None and not owner_of(path)[1]:
                looks[id(module)] = self._activation_look(self._activation(path, module, kind))
            elif path and _is_layer(path, module):
                looks[id(module)] = self._output_look(self._watch(path, None))
        device = next((p.device for p in training.model.parameters()), torch.device("cpu"))
        self._sums = torch.zeros(len(self._watched), 4, dtype=torch.float32, device=device)
        self._absmax = torch.zeros(len(self._watched), dtype=torch.float32, device=device)
        self._ranks = Ranks(sum(p.numel() for p in training.model.parameters() if not is_lazy(p)))
        self._attended: dict[str, Attended] = {}
        self._functions = FunctionalCalls(self._innermost, self._called, self._failed, self._attend)
        # here, for measuring them takes as long as some samples
        self._call_seconds, self._pass_seconds = seconds_of_a_call(), seconds_of_a_pass()
        self._forwards = Forwards(training.model, looks, self._functions, self._failed)
        if not self._watched:
            raise ProbeOffError("the model has no activation modules and no layers with weights")
        return self._columns()

    def _columns(self) -> list[Column]:
        """Return the columns, and set where in the table of a sample each of them stands."""
        columns = [(w.row, column) for w in self._watched for column in w.columns]
        device = self._sums.device
        self._rows = torch.tensor([row for row, _ in columns], device=device)
        places = [PLACES[column.quantity] for _, column in columns]
        self._places = torch.tensor(places, device=device)
        self._outputs = [w.row for w in self._watched if w.kind is None]
        found = [column for _, column in columns]
        found += [Column.of("effective_rank", layer=self._watched[i].path) for i in self._outputs]
        found += [column for site in self._attended.values() for column in site.columns]
        if not self._all:
            return found
        return [replace(column, ranks=TOGETHER.get(column.quantity, "sum")) for column in found]

    def _watch(self, path: str, kind: str | None) -> Watched:
        watched = Watched(path, len(self._watched), kind)
        self._watched.append(watched)
        return watched

    def _activation(self, path: str, module: nn.Module, kind: str) -> Watched:
        watched = self._watch(path, kind)
        if isinstance(module, nn.Hardtanh):  # ReLU6 is one
            watched.low, watched.high = float(module.min_val), float(module.max_val)
        watched.inplace = bool(getattr(module, "inplace", False))
        return watched

    # -- in the forward pass ----------------------------------------------------------------------

    def _output_look(self, watched: Watched) -> Look:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not self._on:
                return
            if torch.compiler.is_compiling():
                x = _tensor(output)
                if x is not None:
                    self._add_output(watched, x)
            else:
                with self._guarded:
                    self._timed(module, self._see_output, watched, module, output)

        return look

    def _see_output(self, watched: Watched, module: nn.Module, output: Any) -> None:
        x = _tensor(output)
        if x is not None:
            self._channels_first = _channels_first(module, self._channels_first)
            self._add_output(watched, x)
            self._ranks.see(watched.row, x, self._channels_first)

    def _activation_look(self, watched: Watched) -> Look:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not self._on:
                return
            if torch.compiler.is_compiling():
                x = _tensor(output if watched.inplace else inputs)
                if x is not None:
                    self._add_saturated(watched, x)
            else:
                with self._guarded:
                    self._timed(module, self._see_activation, watched, inputs, output)

        return look

    def _see_activation(self, watched: Watched, inputs: Any, output: Any) -> None:
        y = _tensor(output)
        x = y if watched.inplace else _tensor(inputs)
        if x is not None and y is not None:
            self._add_activation(watched, x, y)

    def _innermost(self) -> tuple[str, nn.Module] | None:
        running = self._forwards.running if self._forwards is not None else ()
        return running[-1] if running else None

    def _called(self, call: Call) -> None:
        running = self._innermost()
        if self._on and running is not None:
            self._timed(running[1], self._add_call, call)

    def _attend(self, running: tuple[str, nn.Module], *call: Any) -> None:
        if self._on:
            self._timed(running[1], self._add_attention, running[0] or ROOT, *call)

    def _add_attention(self, path: str, func: Any, args: Any, kwargs: Any) -> None:
        found = attended(func, args, kwargs)
        if found is None:
            return
        if path not in self._attended:
            self._attended[path] = Attended(path)
            self._new = True
        self._attended[path].calls.append(found)

    def _add_call(self, call: Call) -> None:
        x, y = _tensor(call.inputs), _tensor(call.output)
        if x is None or y is None:
            return
        watched = self._calls.get(call.site)
        if watched is None:
            watched = self._calls[call.site] = self._watch(call.site, call.kind)
            watched.low, watched.high = call.low, call.high
            row = torch.zeros(1, 4, dtype=torch.float32, device=self._sums.device)
            self._sums = torch.cat([self._sums, row])
            self._absmax = torch.cat([self._absmax, row[0, :1]])
            self._new = True
        self._add_activation(watched, x, y)

    def _timed(self, module: nn.Module, what: Any, *arguments: Any) -> None:
        """Run what looks at a layer inside the user's forward pass, and count what it takes."""
        begun = clock()
        if _counts(module):
            with torch.no_grad():
                what(*arguments)
        self.hook_seconds += clock() - begun

    def _failed(self, error: Exception) -> None:
        self._on = False
        self._error = error

    def _add_output(self, watched: Watched, x: torch.Tensor) -> None:
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

    def _add_saturated(self, watched: Watched, x: torch.Tensor) -> None:
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

    def _add_activation(self, watched: Watched, x: torch.Tensor, y: torch.Tensor) -> None:
        self._add_saturated(watched, x)
        if watched.fires and y.ndim >= 2:
            watched.see_units(y, self._channels_first)

    # -- around a sampled step --------------------------------------------------------------------

    def arm(self, step: int) -> None:
        self._sums.zero_()
        self._absmax.zero_()
        for watched in self._watched:
            watched.clear()
        for site in self._attended.values():
            site.calls.clear()
        self._ranks.begin()
        self._error = None
        self._on = True
        assert self._forwards is not None
        self._functions.calls = self._forwards.passes = 0
        self._forwards.on()

    def sample(self, step: int) -> torch.Tensor:
        self.disarm()
        if self._error is not None:
            raise self._error
        self.hook_seconds += self._functions.calls * self._call_seconds * COLD
        assert self._forwards is not None
        self.hook_seconds += self._forwards.passes * self._pass_seconds * COLD
        if self._new:
            self._columns()
        device = self._sums.device
        with torch.no_grad():
            if device.type == "cpu":
                self._sums += torch.tensor([watched.sums for watched in self._watched])
                peaks = torch.tensor([watched.peak for watched in self._watched])
                self._absmax.copy_(torch.maximum(self._absmax, peaks))
            fired, late = self._fired()
            sums, absmax = self._sums, self._absmax[:, None]
            table = torch.cat([sums, absmax, moved(fired, device)], 1)
            table[:, :5] = torch.where(sums[:, :1] > 0, table[:, :5], math.nan)
            # of an activation the first are numel, samples, saturated; ReLU counts over the window
            table[:, 5] = torch.where(table[:, 5].isnan(), table[:, 1], table[:, 5])
            for row, dead in late:
                table[row, 7] = dead
            known = self._ranks.found()
            ranks = torch.tensor([known.get(row, math.nan) for row in self._outputs])
            sites = [number for site in self._attended.values() for number in site.tell(device)]
            rest = [moved(ranks, device), *(number.to(device).reshape(1) for number in sites)]
            return torch.cat([table[self._rows, self._places], *rest])

    def _fired(self) -> tuple[torch.Tensor, list[tuple[int, torch.Tensor]]]:
        """Return float32[watched, (samples, units, dead)], and what of it is on the device."""
        late: list[tuple[int, torch.Tensor]] = []
        rows: list[list[float]] = []
        for watched in self._watched:
            samples, units, dead = watched.fired() if watched.fires else (math.nan,) * 3
            if isinstance(dead, torch.Tensor):
                late.append((watched.row, dead))
                dead = math.nan
            rows.append([samples, units, dead])
        return torch.tensor(rows), late

    def changed(self) -> Sequence[Column] | None:
        new, self._new = self._new, False
        return self._columns() if new else None

    def hungry(self) -> bool:
        watched = next((w for w in self._watched if w.fires and w.units), None)
        if watched is None or not 0 < len(watched.window) < STRIDE:
            return False
        return sum(n for n, _ in watched.window) < ENOUGH_SAMPLES

    def disarm(self) -> None:
        self._on = False
        if self._forwards is not None:
            self._forwards.off()

    def detach(self) -> None:
        self._on = False
        if self._forwards is not None:
            self._forwards.close()


def _is_layer(path: str, module: nn.Module) -> bool:
    if owner_of(path)[1]:  # makes a weight, not an output
        return False
    if hasattr(module, PARAMETRIZED):
        return True
    has_weights = next(module.parameters(recurse=False), None) is not None
    return has_weights and next(module.children(), None) is None


def _counts(module: nn.Module) -> bool:
    """Tell whether a forward pass belongs to the training: not one in eval mode without gradients."""
    return is_real() and (module.training or torch.is_grad_enabled())


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x[::STRIDE] if x.ndim > 1 and x.shape[0] >= BIG_BATCH else x


def _tensor(value: Any) -> torch.Tensor | None:
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return None
    if value.layout is not torch.strided or value.is_nested or value.device.type == "meta":
        return None
    return value if value.numel() else None


def _channels_first(module: nn.Module, before: bool) -> bool:
    """Tell whether a (B, x, y) output has its units in the second dimension."""
    if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
        return True
    return before if isinstance(module, nn.modules.batchnorm._NormBase) else False
