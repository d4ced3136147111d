"""The modes probe: the loss of one batch in training mode and in eval mode, where BatchNorm is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...store import Column
from ..undisturbed import Look, undisturbed
from .pool import copied, limited
from .probe import Training
from .running import Pool, Running, quieten


class _Both(Pool):
    """The last batch, and the look that puts everything back between two passes over it."""

    look: Look
    training: Training
    batch: Any

    def once(self, *, evaluated: bool) -> float:
        """Return the loss of the batch, dropout off, with BatchNorm as in one of the modes."""
        model = self.training.model
        self.look.rewind(keep=self.parameters)
        if evaluated:
            model.eval()
        else:
            quieten(model)
        assert self.training.loss_fn is not None
        with torch.no_grad():
            return float(self.training.loss_fn(model, copied(self.batch, _cloned)))


def _cloned(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


@dataclass(kw_only=True)
class Modes(Running):
    """Loss of the last batch as it is in training and as it is in eval mode, at the same weights.

    BatchNorm takes the batch's own moments in the one and running ones in the other; where those are
    far off, what validation sees is not what was trained. Dropout is off in both. Two forward passes;
    off without a word where the model has no BatchNorm with running moments.
    """

    first: int = 260
    """Step of the first sample: by then running moments of a momentum of 0.01 have followed, too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # 2: what it looks for costs a whole run, and 0.7 steps are within reach of one of 400
        self.family, self.weight, self.guess = "modes", 2.0, 0.7

    def is_on(self, training: Training) -> bool:
        return super().is_on(training) and any(
            isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
            for module in training.model.modules()
        )

    def price(self, samples: int) -> float:
        return self.guess * min(self.samples, samples) / samples

    def columns(self) -> list[Column]:
        """Return the two losses, and the samples of the batch."""
        return [Column.of(name) for name in ("train_loss", "eval_loss", "pool_samples")]

    def arm(self, step: int) -> None:
        """The weights as they are behind the step serve: none are remembered."""

    def measure(self, pool: Pool, training: Training) -> dict[str, float]:
        """Return both losses."""
        assert isinstance(pool, _Both)
        return {
            "train_loss": pool.once(evaluated=False),
            "eval_loss": pool.once(evaluated=True),
        }

    @contextlib.contextmanager
    def _pooled(self, training: Training) -> Iterator[Pool]:
        batches = training.batches()[-1:]
        if not batches:
            raise RuntimeError("no batch at hand")
        with undisturbed(training.model) as look:
            batch = limited(batches[0], self.samples)
            # in whatever precision: nothing is differentiated
            pool = _Both(training, [batch], list(training.model.parameters()), None, look)
            pool.look, pool.training, pool.batch = look, training, batch
            yield pool
