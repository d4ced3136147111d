"""The initialization probe: how the signal and its gradient pass the layers at the very first step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...store import Column, ConfigError
from ..guard import HookGuard
from ..measures.batches import batch_parts
from ..measures.initialization import first_tensor
from ..measures.loss_at_start import chance_loss
from ..measures.weights import drawn, identical_rows, weighted_modules
from ..norms import squared_norms, stacked
from .forwards import Forwards, is_compiled, seconds_of_a_pass
from .hooks import Look
from .probe import COLD, Probe, ProbeOffError, Training, clock

QUANTITIES = (
    "forward_gain",
    "backward_gain",
    "weight_std",
    "xavier_std",
    "he_std",
    "identical_rows",
    "rms",
)
OF_THE_RUN = ("initial_loss", "expected_loss", "loss_ratio")
ROWS = 1024
"""Rows of a weight that are compared with each other."""
NUMBERS = 2**22
"""Numbers in them, at most: they are copied in float64."""
NEVER = 10**9

Number = float | Tensor


class Initialization(Probe):
    """Variance gains, weight deviations and the loss of a fresh run's first step; then never again.

    Measured on the step itself, by hooks in its forward and backward pass: no further pass is
    needed, and what counts is the run's own first batch with dropout, autocast and all ranks as
    they are. `forward_gain` is the mean square of a layer's outputs over that of the layer run
    before it (of its inputs for the first), `backward_gain` the mean square of the gradient at the
    outputs of the layer before over that at its own: the gains of all layers multiply to that of
    the net. Where the model is compiled, or runs its layers in the backward pass, they are nan.
    `identical_rows`: share of (at most 1,024) units whose weights equal another one's.
    `expected_loss` is that of guessing, see `measures.loss_at_start`.

    A run that goes on from a checkpoint has no initialization: then the probe is off.
    """

    def __init__(self) -> None:
        super().__init__()
        self.family = "initialization"
        self.weight = 0.2
        self.least = NEVER
        self.sees_batch = True

    _forwards: Forwards | None = None

    def attach(self, training: Training) -> Sequence[Column]:
        if training.sharded:
            raise ProbeOffError("the parameters are sharded: no rank holds a layer's weights")
        try:
            self._layers = weighted_modules(training.model)
        except ConfigError as error:
            raise ProbeOffError(str(error)) from error
        self._training = training
        self._fresh = self._on = False
        self._error: Exception | None = None
        self._guarded = HookGuard(self._failed)
        self._clear()
        self._paths = {id(module): path for path, module in self._layers.items()}
        if not is_compiled(training.model):
            looks: dict[int, Look] = {id(m): self._look for m in training.model.modules()}
            self._forwards = Forwards(training.model, looks, failed=self._failed, once=True)
        columns = [Column.of(name, layer=path) for name in QUANTITIES for path in self._layers]
        return [*columns, *(Column.of(name) for name in OF_THE_RUN)]

    def _clear(self) -> None:
        self._order: list[str] = []
        self._entered: Number = math.nan
        self._outputs: dict[str, Number] = {}
        self._gradients: dict[str, Number] = {}
        self._weights: list[list[Number]] = []
        self._logits: Tensor | None = None

    def arm(self, step: int) -> None:
        # a state in the optimizer: somebody has loaded a checkpoint that knows nothing of us
        self._fresh = step == 1 and not any(o.state for o in self._training.optimizers)
        if not self._fresh:
            return
        self._weights = []
        with torch.no_grad():  # now: after the step they are not what they began with
            for layer in self._layers.values():
                weights = drawn(layer)
                most = max(2, min(ROWS, NUMBERS // max(1, weights.rows.shape[1])))
                rows = weights.rows[:: -(-len(weights.rows) // most)]
                stds = [weights.std, weights.xavier_std, weights.he_std]
                self._weights.append([*stds, identical_rows(rows)])
        self._on = True
        if self._forwards is not None:
            self._forwards.on()

    # -- in the forward and the backward pass -------------------------------------------------

    def _look(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self._on:
            return
        begun = clock()
        with self._guarded:
            self._see(module, inputs, output)
        self.hook_seconds += clock() - begun

    def _see(self, module: nn.Module, inputs: Any, output: Any) -> None:
        assert self._forwards is not None
        if not self._forwards.running:  # the outermost has ended
            logits = predicted(output)
            self._logits = self._logits if logits is None else logits.detach()
        path, tensor = self._paths.get(id(module)), first_tensor(output)
        if path is None or path in self._outputs or tensor is None:
            return
        if not self._order:
            entered = first_tensor(inputs)
            self._entered = math.nan if entered is None else _mean_square(entered)
        self._order.append(path)
        self._outputs[path] = _mean_square(tensor)
        if tensor.requires_grad:
            tensor.register_hook(partial(self._came_back, path))

    def _came_back(self, path: str, gradient: Tensor) -> None:
        begun = clock()
        with self._guarded:
            if self._on and path not in self._gradients:
                self._gradients[path] = _mean_square(gradient)
        self.hook_seconds += clock() - begun

    def _failed(self, error: Exception) -> None:
        self._on = False
        self._error = error

    # -- the sample -----------------------------------------------------------------------------

    def sample(self, step: int) -> Tensor:
        if not self._fresh:
            raise ProbeOffError("the run goes on from a checkpoint: it has no initialization")
        if self._error is not None:
            raise self._error
        if self._forwards is not None:
            self.hook_seconds += self._forwards.passes * seconds_of_a_pass() * COLD
        with torch.no_grad():
            gains = self._gains()
            rows = [[*gains[path][:2], *own, gains[path][2]] for path, own in self._own()]
            found = [number for column in zip(*rows, strict=True) for number in column]
            return _stacked([*found, *self._losses()])

    def _own(self) -> list[tuple[str, list[Number]]]:
        return list(zip(self._layers, self._weights, strict=True))

    def _gains(self) -> dict[str, list[Number]]:
        """Return forward gain, backward gain and rms of every layer; nan where it was not seen."""
        gains: dict[str, list[Number]] = {path: [math.nan] * 3 for path in self._layers}
        before = None
        for path in self._order:
            entered = self._entered if before is None else self._outputs[before]
            earlier = math.nan if before is None else self._gradients.get(before, math.nan)
            output, own = self._outputs[path], self._gradients.get(path, math.nan)
            gains[path] = [_ratio(output, entered), _ratio(earlier, own), output**0.5]
            before = path
        return gains

    def _losses(self) -> list[Number]:
        losses = [torch.as_tensor(loss).float() for loss in self._training.losses]
        initial = torch.stack(losses).mean() if losses else torch.tensor(math.nan)
        batches = self._training.batches()
        parts = batch_parts(batches[-1]) if batches else None
        classes = getattr(self._training.model, "num_classes", None)
        expected = chance_loss(self._logits, parts, classes if type(classes) is int else None)
        if (
            expected.device != initial.device and expected.is_cpu
        ):  # a constant: nobody is waited for
            expected = torch.full_like(initial, float(expected))
        return [initial, expected, initial.to(expected.device) / expected]

    def disarm(self) -> None:
        self._on = False
        if self._forwards is not None:
            self._forwards.close()
        self._clear()

    def detach(self) -> None:
        self.disarm()
        self._forwards = None


def predicted(output: Any) -> Tensor | None:
    """Return what a net predicts: a mapping's `logits`, else the first of numbers a sample."""
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    tensor = first_tensor(output)
    return tensor if tensor is not None and tensor.is_floating_point() and tensor.ndim else None


def _mean_square(tensor: Tensor) -> Number:
    """Return a number on a CPU, else a scalar on the device, which nobody has waited for."""
    if not tensor.is_floating_point() or not tensor.numel() or tensor.layout is not torch.strided:
        return math.nan
    return squared_norms([tensor])[0] / tensor.numel()


def _ratio(a: Number, b: Number) -> Number:
    if isinstance(b, Tensor):
        return torch.where(b > 0, (a.to(b.device) if isinstance(a, Tensor) else a) / b, math.nan)
    return a / b if b > 0 else math.nan


def _stacked(numbers: Sequence[Number]) -> Tensor:
    devices = [n.device for n in numbers if isinstance(n, Tensor)]
    device = next((d for d in devices if d.type != "cpu"), torch.device("cpu"))
    return stacked([n if isinstance(n, Tensor) else float(n) for n in numbers], device).float()
