"""Running: the user's own loss over a pool of batches, undisturbed, at the weights that are asked for."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...store import Column, ConfigError
from ..budget import POOL
from ..guard import HookGuard
from ..measures import Hessian
from ..undisturbed import CollectiveError, Look, undisturbed
from .pool import batch_size, copied, limited
from .probe import Probe, ProbeOffError, Training

_FAILURES = 3
"""Samples in a row that may fail before a probe goes off."""
BY_DIFFERENCES = (
    "the loss has no second derivative (as EmbeddingBag, ctc_loss and fused kernels have none), or "
    "none to rely on; Hessian products are differences of gradients"
)
PRODUCT = 2.9
"""What a Hessian product costs, in gradients."""
GRADIENT = 0.6
"""What a gradient costs of a training step: the rest are data, optimizer and the loop."""
_FEWEST = 8
"""Samples of a batch below which running out of memory does not go on halving them."""


class Pool:
    """The loss of a model on a few batches, as functions of the weights.

    `begun` are the weights that the step began with, in the order of `parameters`; None where they
    are not known.
    """

    def __init__(
        self,
        training: Training,
        batches: Sequence[Any],
        parameters: Sequence[Tensor],
        begun: Sequence[Tensor] | None,
        look: Look,
    ) -> None:
        assert training.loss_fn is not None
        self.parameters = list(parameters)
        self._begun = begun
        self._training = training
        self._loss_fn = training.loss_fn
        self._batches = batches
        self._look = look
        self._hessian: Hessian | None = None
        self._building = False
        self.by_differences = False
        """Whether products were differences of gradients."""

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def samples(self) -> float:
        """Samples in all batches together, nan where that is not known."""
        return float(sum(batch_size(batch) or 0 for batch in self._batches)) or math.nan

    @contextlib.contextmanager
    def hessian(self, batch: int | None = None) -> Iterator[Hessian]:
        """Give the Hessian of the mean loss over the batches, at the weights as they are.

        Or of one batch alone: then no more than its graph is kept. By differences of gradients where there is no second derivative; its `method` tells.
        Raises FloatingPointError where the loss or its gradient is not finite.
        """
        chosen = self._batches if batch is None else [self._batches[batch]]
        losses = [partial(self._loss, one) for one in chosen]
        self._look.rewind(keep=self.parameters)
        self._building = True
        try:
            hessian = Hessian(losses, self.parameters)
        finally:
            self._building = False
        self._hessian = hessian
        try:
            finite = all(bool(torch.isfinite(g).all()) for g in hessian.gradients)
            if not (finite and all(map(math.isfinite, hessian.losses))):
                raise FloatingPointError("the loss or its gradient is not finite")
            yield hessian
        finally:
            self.by_differences |= hessian.method == "difference"
            self._hessian = None
            hessian.close()

    def loss(self) -> float:
        """Return the mean loss over the batches at the weights as they are; forward passes only."""
        found = [float(self._loss(batch).detach()) for batch in self._batches]
        return sum(found) / len(found)

    def update(self) -> Tensor | None:
        """Return the last update, [d]: the weights as they are less those that the step began with."""
        if self._begun is None:
            return None
        pairs = zip(self.parameters, self._begun, strict=True)
        return torch.cat([(after.detach() - before).reshape(-1) for after, before in pairs])

    def begin(self) -> None:
        """Go to the weights that the step began with; the run's are put back when the look ends."""
        if self._begun is not None:
            self._put(self._begun)

    def move(self, direction: Tensor, multiple: float) -> None:
        """Go a multiple of a direction [d] away from the weights that the step began with."""
        assert self._begun is not None
        parts = direction.split([p.numel() for p in self.parameters])
        pairs = zip(self._begun, parts, strict=True)
        self._put(w.add(part.view_as(w), alpha=multiple) for w, part in pairs)

    def _put(self, weights: Iterable[Tensor]) -> None:
        for parameter, weight in zip(self.parameters, weights, strict=True):
            parameter.data.copy_(weight)

    def _loss(self, batch: Any) -> Tensor:
        """Return the loss of a batch: with the same draws, buffers, counters and lists every time.

        While graphs are kept for exact products only the draws begin anew: a graph may hold a buffer.
        """
        model = self._training.model
        exact = self._hessian is not None and self._hessian.method != "difference"
        if self._building or exact:
            self._look.redraw()
        else:
            self._look.rewind(keep=self.parameters)
        quieten(model)
        # a step may pop from its batch, or write into it
        return self._loss_fn(model, copied(batch, _cloned))


def _cloned(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def quieten(model: nn.Module) -> None:
    """Switch dropout off: one random subnet is not the loss. BatchNorm stays as the training has it.

    Embeddings give dense gradients. What is changed here are modes and attributes, which
    `undisturbed` puts back.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.training = False
        elif isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            module.dropout = 0.0
        elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            module.sparse = False


def trained_parameters(training: Training) -> list[Tensor]:
    """Return the parameters that the optimizers move, each once, in their order.

    Raises ProbeOffError where there is none, or where they are not float32 or float64: products
    in half precision are off by more than they say.
    """
    seen: dict[int, Tensor] = {}
    for optimizer in training.optimizers:
        for group in optimizer.param_groups:
            seen |= {id(p): p for p in group["params"] if p.requires_grad}
    found = list(seen.values())
    if not found:
        raise ProbeOffError("no optimizer holds a parameter with requires_grad")
    dtypes = {p.dtype for p in found}
    if not dtypes <= {torch.float32, torch.float64}:
        names = ", ".join(sorted(map(str, dtypes)))
        raise ProbeOffError(f"the weights are {names}: curvature needs float32 weights")
    return found


@dataclass(kw_only=True)
class Running(Probe):
    """Base of the probes that run the user's loss: rank 0, the raw module, a pool of fresh batches.

    A subclass returns its `names` and fills them in `measure`; a name that it leaves out is nan.
    The pool holds the last (at most four) batches, of which no more than `samples` samples each are
    used. A failure gives a row of nan and an event that says why; out of memory also halves the
    samples; the third in a row, or a collective, switches the probe off.
    """

    samples: int = 128
    _began_with: list[Tensor] = field(default_factory=list, init=False, repr=False)
    _training: Training | None = field(default=None, init=False, repr=False)
    _failures: int = field(default=0, init=False, repr=False)
    _failure: str = field(default="", init=False, repr=False)
    """Of the sample under way."""
    _told: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.samples, self.first) < 1:
            raise ConfigError(
                "samples and first must be at least 1, got "
                f"samples={self.samples}, first={self.first}"
            )
        self.dear = True

    def work(self) -> float:
        """Return what a sample takes, in gradients of the whole pool."""
        raise NotImplementedError

    def price(self, samples: int) -> float:
        """Return what a first sample may cost, in micro-batches of so many samples each."""
        return GRADIENT * self.work() * POOL * min(self.samples, samples) / samples

    def columns(self) -> list[Column]:
        """Return the columns of the family."""
        raise NotImplementedError

    def measure(self, pool: Pool, training: Training) -> dict[str, float]:
        """Return the numbers of a sample by the names of their columns."""
        raise NotImplementedError

    def attach(self, training: Training) -> Sequence[Column]:
        """Return the columns; raise ProbeOffError where the loss cannot be run here."""
        if training.sharded:
            raise ProbeOffError(
                "the parameters are sharded over ranks: none can run the model alone"
            )
        if training.loss_fn is None:
            raise ProbeOffError(training.why_no_loss)
        self._training = training
        self._failures, self._told = 0, set()
        return self.columns()

    def arm(self, step: int) -> None:
        """Remember the weights that the step begins with."""
        if self._training is not None:
            with contextlib.suppress(ProbeOffError):  # `sample` says why
                parameters = trained_parameters(self._training)
                self._began_with = [p.detach().clone() for p in parameters]

    def disarm(self) -> None:
        """Let go of the remembered weights."""
        self._began_with = []

    def detach(self) -> None:
        """Let go of the model."""
        self._training = None

    def sample(self, step: int) -> list[float]:
        """Measure on the batches at hand; NaN where it failed for now, with the count kept."""
        if self._training is None:
            raise ProbeOffError(f"{self.name} was sampled before it was attached")
        began = time.perf_counter()
        measured: dict[str, float] = {}
        self._failure = ""
        try:
            with HookGuard(self._note_failure):  # the user's own loss runs: anything may come out
                with self._pooled(self._training) as pool:
                    measured = self.measure(pool, self._training)
                    measured["pool_samples"] = pool.samples
                if pool.by_differences:
                    self._tell(f"{self.name}: {BY_DIFFERENCES}")
        finally:
            self.disarm()
        self._count(self._failure)
        measured["seconds"] = time.perf_counter() - began
        return [measured.get(column.name, math.nan) for column in self.columns()]

    def _note_failure(self, error: Exception) -> None:
        if isinstance(error, (CollectiveError, ProbeOffError)):
            raise ProbeOffError(str(error)) from error
        # words only: the error holds the frames, and they hold the graphs
        self._failure = f"{type(error).__name__}: {error}"
        self._make_room(error)

    def failed(self) -> None:
        """Forget what a sample that failed may have left half done."""

    @contextlib.contextmanager
    def _pooled(self, training: Training) -> Iterator[Pool]:
        batches = [limited(batch, self.samples) for batch in training.batches()]
        if not batches:
            raise RuntimeError("no batch at hand")
        parameters = trained_parameters(training)
        begun = self._began_with if len(self._began_with) == len(parameters) else None
        with undisturbed(training.model) as look:
            yield Pool(training, batches, parameters, begun, look)

    def _count(self, failure: str) -> None:
        if not failure:
            self._failures = 0
            return
        self.failed()
        self._failures += 1
        if self._failures >= _FAILURES:
            raise ProbeOffError(f"failed {_FAILURES} times in a row, last with {failure}")
        self._tell(f"{self.name} could not be measured: {failure}")

    def _tell(self, text: str) -> None:
        """Say something once in a run."""
        if text not in self._told and self._training is not None:
            self._told.add(text)
            self._training.note(text)

    def _make_room(self, error: Exception) -> None:
        if is_out_of_memory(error):
            self.samples = max(min(_FEWEST, self.samples), self.samples // 2)
            if torch.cuda.is_available() and torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # blocks of ours, that the run may not find fitting


def dot(a: Tensor, b: Tensor) -> float:
    """Return a·b, summed in float64: float32 sums are off by 6e-4 on 9 M elements."""
    return float((a * b).sum(dtype=torch.float64))


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether memory ran out, on a device or on the host.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    True
    """
    words = ("out of memory", "can't allocate memory", "not enough memory")
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(word in str(error).lower() for word in words)
