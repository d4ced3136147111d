"""The noise probe: squared gradient norms at two batch sizes, from which the noise scale is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ...store import Column
from ..layers import trained_parameters
from .arriving import Arriving
from .examples import Examples
from .halves import COUPLED, Halves, columns
from .probe import Probe, ProbeOffError, Training

MOST_RANKS = 8
"""Ranks that measure their own gradients: the mean over eight is good enough, and hundreds would each
fill a stream."""
_FAILURES = 3
"""Samples in a row that may tell nothing before the probe goes off."""


class Noise(Probe):
    """How much of a gradient is noise of its batch: the gradient noise scale, in samples.

    Records squared norms of the gradient over `small` and over `big` samples (`small_sq`, `big_sq`);
    `store.read` makes of them `noise_scale`, its 95 % interval `low` and `high`, `gradient_sq` and
    `trace` (McCandlish et al. 2018, appendix A). The smaller batch is what the run already has: the
    part of each rank before they average, or each micro-batch of an accumulated step, or both. A run
    that has neither runs the last batch again in two halves, now and then, undisturbed, for the
    price of one backward pass; the mean of the halves is then the larger batch.

    Gradients are those before clipping, without a loss scale. It is the noise of the plain gradient:
    for Adam, whose steps are not along it, the answer is an estimate made for SGD. It takes the
    samples of a batch as independent: it is off for `task="contrastive"`, where the loss couples
    them, and where the parameters are sharded over ranks.

    With `per_example`, a run that has neither ranks nor micro-batches takes single examples as the
    smaller batch: from hooks on its Linear, LayerNorm and Embedding layers, for some 40 % of a step
    instead of a whole one. It is then the noise of these layers alone (`train.grad_sq` is of all),
    and of a loss that is a mean over the examples.
    """

    def __init__(self, every: int | None = None, *, per_example: bool = False) -> None:
        super().__init__(every=every)
        self.family = "noise"
        self.per_example = per_example
        self._source: Split | Halves | Examples | None = None

    def on_every_rank(self, training: Training) -> bool:
        return training.world_size > 1 and training.rank < MOST_RANKS and not training.sharded

    def attach(self, training: Training) -> Sequence[Column]:
        if training.task == "contrastive":
            raise ProbeOffError(COUPLED)
        if training.sharded:
            raise ProbeOffError(
                "the parameters are sharded over ranks: no rank sees its own gradient whole"
            )
        if training.world_size > 1 or training.accumulates:
            self._source = Split(training)
        elif self.per_example:
            self._source = Examples(training)
        elif training.loss_fn is None:
            self._source = Split(training)  # a loop of one's own may turn out to accumulate
        else:
            self._source = Halves()
            self.dear = True
            self.first, self.guess = self._source.first, self._source.guess
            self.weight = 2.0
            return self._source.attach(training)
        return columns(ranks=training.world_size > 1)

    def arm(self, step: int) -> None:
        assert self._source is not None
        self._source.arm(step)

    def sample(self, step: int) -> torch.Tensor | Sequence[float]:
        assert self._source is not None
        try:
            return self._source.sample(step)
        finally:
            self.hook_seconds += getattr(self._source, "seconds", 0.0)

    def disarm(self) -> None:
        if self._source is not None:
            self._source.disarm()

    def detach(self) -> None:
        if self._source is not None:
            self._source.disarm()
            self._source.detach()


class Split:
    """The two batch sizes that a step has by itself: over its ranks, its micro-batches, or both.

    With n micro-batches of m_i samples on each of R ranks, a micro-batch's squared gradient is
    |G|² + tr Σ/m_i, and that of their mean |G|² + tr Σ Σ(1/m_i)/(Rn²), so that `small` is the harmonic
    mean of m_i and `big` R n times that: also where the last batch is smaller.
    """

    def __init__(self, training: Training) -> None:
        if training.tap is None:
            raise ProbeOffError("nobody listens to the gradients of this run")
        self._training, self._tap = training, training.tap
        self._arriving = Arriving()
        self._in_vain = 0

    @property
    def seconds(self) -> float:
        """Time that the hooks took in the step sampled last."""
        return self._arriving.seconds

    def arm(self, step: int) -> None:
        self._tap.exact = True
        self._arriving.listen(trained_parameters(self._training.optimizers))

    def sample(self, step: int) -> torch.Tensor:
        error = self._arriving.error
        if error is not None:
            raise error
        nothing = torch.full((4,), math.nan)
        sizes = self._sizes()
        if isinstance(sizes, str):
            self._in_vain += 1
            if self._in_vain >= _FAILURES:
                raise ProbeOffError(sizes)
            return nothing
        self._in_vain = 0
        passes, tap = self._arriving.passes, self._tap
        harmonic = len(sizes) / sum(1 / size for size in sizes)
        factor = len(sizes) * (tap.factor if tap.arriving is None else tap.arriving)
        small_sq = sum(passes[1:], start=passes[0]) / len(passes) * factor**2
        big_sq = tap.squares().sum() if tap.measured else math.nan
        big = self._training.world_size * len(sizes) * harmonic
        device = next((x.device for x in (small_sq, big_sq) if isinstance(x, torch.Tensor)), None)
        row = [torch.as_tensor(x, dtype=torch.float64, device=device) for x in (small_sq, big_sq)]
        squares = torch.stack(row)
        squares = torch.where(squares.isfinite(), squares, math.nan)  # a scaler skips such a step
        return torch.cat([squares, squares.new_tensor([harmonic, big])])

    def _sizes(self) -> list[float] | str:
        """Return the samples of each micro-batch, or why they cannot be told apart."""
        passes = len(self._arriving.passes)
        parts: list[float] = [float(size) for size in self._training.parts()]
        if not passes:
            return "no gradient was seen on its way: nothing ran backward in the sampled steps"
        if not parts or min(parts) < 1:
            return "how many samples a batch has is not known: give it to `step(loss, batch_size)`"
        if self._arriving.twice:
            return "gradients come in pieces (a reentrant checkpoint), and not one of a micro-batch"
        if len(parts) == 1 < passes and self._training.accumulates:
            parts = [parts[0] / passes] * passes  # told in sum
        if len(parts) != passes:
            return (
                f"{passes} backward passes over {len(parts)} batches in a step: which gradient is "
                "of which samples cannot be told"
            )
        if passes == 1 and self._training.world_size == 1:
            return (
                "one process without accumulation has gradients at one batch size, and they cannot "
                f"be run again on half batches: {self._training.why_no_loss}"
            )
        return parts

    def disarm(self) -> None:
        self._tap.exact = False
        self._arriving.close()

    def detach(self) -> None:
        """Nothing else is held."""
