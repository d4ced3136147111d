"""Halves: gradients of two half batches, where a run itself has gradients at one batch size alone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...store import Column
from ..norms import BLOCK, squared_norms
from ..undisturbed import Look, undisturbed
from .pool import batch_size, copied, halves, limited
from .probe import ProbeOffError, Training
from .running import Pool, Running, trained_parameters

PIECES = 8
"""Parts of a batch of which one is run, where its own gradient is that of the training."""
CHECKED = 16
"""Samples after which the halves are run again, to see whether it still is."""
COUPLED = (
    "a contrastive loss couples the samples of a batch: smaller batches have another loss, and their "
    "gradients tell nothing of its noise"
)


class Pair(Pool):
    """The loss on two halves of a batch, as the training has it: dropout too draws anew for each."""

    look: Look
    parts: Sequence[Any] = ()
    piece: Any = None
    training: Training

    def gradients(self, step: int) -> Iterator[list[Tensor | None]]:
        """Give the gradient of each half at the weights as they are, parameter by parameter."""
        for place, part in enumerate(self.parts):
            yield self.gradient(part, 2 * step + place)

    def gradient(self, part: Any, seed: int) -> list[Tensor | None]:
        """Return the gradient of a part of the batch at the weights as they are."""
        self.look.rewind(keep=self.parameters)
        self.look.redraw(seed)
        assert self.training.loss_fn is not None
        loss = self.training.loss_fn(self.training.model, copied(part, _cloned))
        return list(torch.autograd.grad(loss, self.parameters, allow_unused=True))


def _cloned(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


@dataclass(kw_only=True)
class Halves(Running):
    """Squared gradient norms of two half batches, and of their mean as the whole.

    The last batch, at the weights that its step began with; one backward pass in all, and two
    copies of the gradients. The whole batch's own gradient would not do: with batch norm its loss is
    another function than that of the halves (-31 to -701 where 600 is true).

    Where the mean of the halves is the gradient that the training had, to 1e-4, the loss falls apart
    into those of the samples and draws nothing: then an eighth of the batch is run and the training's
    own gradient is the larger one, which tells nearly as much for an eighth of the price. Each
    sixteenth sample looks whether that still holds.
    """

    first: int = 10
    """Step of the first sample."""
    _step: int = 0
    _alike: bool = False
    _taken: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.family, self.guess = "noise", 2.0

    @property
    def name(self) -> str:
        return "noise"

    def price(self, samples: int) -> float:
        return self.guess

    def columns(self) -> list[Column]:
        """Return the squared norms, and the samples that each is of."""
        return columns()

    def attach(self, training: Training) -> Sequence[Column]:
        if training.task == "contrastive":
            raise ProbeOffError(COUPLED)
        found = super().attach(training)
        trained_parameters(training)
        return found

    def arm(self, step: int) -> None:
        super().arm(step)
        self._ask(exact=True)

    def disarm(self) -> None:
        super().disarm()
        self._ask(exact=False)

    def _ask(self, *, exact: bool) -> None:
        if self._training is not None and self._training.tap is not None:
            self._training.tap.exact = exact

    def sample(self, step: int) -> list[float]:
        """Return the squared norms of the halves' gradients and of their mean."""
        self._step = step
        return super().sample(step)

    def measure(self, pool: Pool, training: Training) -> dict[str, float]:
        """Return the numbers of a sample; nan where a gradient is not finite."""
        assert isinstance(pool, Pair)
        self._taken += 1
        whole = _trained_sq(training)
        single = self._alike and pool.piece is not None and math.isfinite(whole)
        if single and self._taken % CHECKED:
            pool.begin()
            small = _total(pool.gradient(pool.piece, self._step))
            if not math.isfinite(small):
                return {}
            size = batch_size(pool.piece) or math.nan
            return {"small_sq": small, "big_sq": whole, "small": size, "big": pool.samples}
        first, second = self.both(pool)
        squares = [_total(part) for part in (first, second)]
        cross = sum(
            _dot(a, b)
            for a, b in zip(first, second, strict=True)
            if a is not None and b is not None
        )
        small, big = sum(squares) / 2, (sum(squares) + 2 * cross) / 4
        if not (math.isfinite(small) and math.isfinite(big)):
            return {}
        if pool.piece is not None:  # of an odd batch the halves leave a sample out
            self._alike = abs(big - whole) <= 1e-4 * whole
        return {"small_sq": small, "big_sq": big, "small": pool.samples / 2, "big": pool.samples}

    def both(self, pool: Pair) -> list[list[Tensor | None]]:
        """Return the gradients of the halves, at the weights that the step began with."""
        pool.begin()
        found = list(pool.gradients(self._step))
        if all(gradient is None for part in found for gradient in part):
            raise RuntimeError("the loss depends on none of the parameters")
        return found

    @contextlib.contextmanager
    def _pooled(self, training: Training) -> Iterator[Pool]:
        batches = training.batches()[-1:]
        if not batches:
            raise RuntimeError("no batch at hand")
        pair = halves(batches[0])
        if pair is None:
            raise ProbeOffError(
                f"a batch of kind {type(batches[0]).__name__} cannot be cut into halves: either it "
                "has fewer than two samples, or it is not made of tensors in lists, tuples, "
                "dicts and dataclasses; accumulate_grad_batches=2 would tell the noise for free"
            )
        parameters = trained_parameters(training)
        begun = self._began_with if len(self._began_with) == len(parameters) else None
        with undisturbed(training.model) as look:
            made = Pair(training, pair[:2], parameters, begun, look)
            made.look, made.parts, made.training = look, pair[:2], training
            size = 2 * pair[2]
            if size == batch_size(batches[0]) and size >= 4:
                made.piece = limited(batches[0], max(1, size // PIECES))
            yield made


def columns(ranks: bool = False) -> list[Column]:
    """Return the columns of the family; over ranks the small squares are averaged when read."""
    return [
        Column.of("small_sq", ranks="mean" if ranks else "same"),
        Column.of("big_sq"),
        Column.of("small"),
        Column.of("big"),
    ]


def _trained_sq(training: Training) -> float:
    """Return the squared norm of the gradient that the step had, nan where it was not measured."""
    tap = training.tap
    if tap is None or not tap.measured or len(training.parts()) > 1:  # of another batch then
        return math.nan
    return float(tap.squares().sum())


def _total(gradients: Sequence[Tensor | None]) -> float:
    there = [gradient for gradient in gradients if gradient is not None]
    return float(sum(squared_norms(there, exact=True)))


def _dot(a: Tensor, b: Tensor) -> float:
    """Return a·b, float32 summed in blocks of which float64 takes the sum."""
    if a.is_sparse or b.is_sparse:
        a, b = a.to_dense(), b.to_dense()
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    a, b = a.reshape(-1), b.reshape(-1)
    whole = a.numel() // BLOCK * BLOCK
    blocks = torch.linalg.vecdot(a[:whole].view(-1, BLOCK), b[:whole].view(-1, BLOCK))
    return float(blocks.sum(dtype=torch.float64)) + float(torch.dot(a[whole:], b[whole:]))
