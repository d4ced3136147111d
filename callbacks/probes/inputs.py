"""The inputs probe: scale and range of what goes into the model, and whether its labels are mixed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...store import Column
from ..measures.batches import (
    FEATURES,
    INPUT_QUANTITIES,
    BatchParts,
    batch_parts,
    feature_statistics,
    input_statistics,
    label_counts,
    label_order,
)
from .probe import Probe, ProbeOffError, Training

COLUMNS = (
    *(*INPUT_QUANTITIES, "is_integer", "label_entropy", "top_class_share", "label_classes"),
    "rows",
    *(f"feature_{what}_{place}" for what in ("mean", "std") for place in range(FEATURES)),
)
FIRST_SAMPLES = 4
"""In so many steps in a row from the first one; then rarely."""


class Inputs(Probe):
    """Mean, deviation, range and correlation of the input, and how mixed the labels are.

    The batch is searched for its input and its labels (`measures.batches.batch_parts`); integers,
    such as token ids, are marked by `is_integer` and have no scale. `label_entropy` is that of a
    batch against what the labels seen so far let expect: 1 where they are shuffled, near 0 where
    classes come one after the other. `label_classes` counts the classes seen so far; `rows` are those of
    the batch, which may be one of several that a step accumulates, or one rank's.
    `feature_mean_<i>` and `feature_std_<i>`: of each feature of a table of at most 64, in the first
    samples; NaN elsewhere.
    """

    def __init__(self, every: int | None = None) -> None:
        super().__init__(every=every)
        self.family = "inputs"
        self.weight = 0.2
        self.least = 20
        self.eager = True
        self.promised = ((10, FIRST_SAMPLES),)
        self.sees_batch = True

    def attach(self, training: Training) -> Sequence[Column]:
        self._training = training
        self._running: torch.Tensor | None = None
        self._samples = 0
        return [Column.of(name) for name in COLUMNS]

    def sample(self, step: int) -> torch.Tensor:
        batches = self._training.batches()
        if not batches:
            raise ProbeOffError(
                "no batch was handed over; in a loop of your own give it to "
                "recorder.step(loss, batch=batch)"
            )
        parts = batch_parts(batches[-1])
        if parts is None:
            kind = type(batches[-1]).__name__
            raise ProbeOffError(f"no tensor was found in the batch, a {kind}")
        self._samples += 1
        with torch.no_grad():
            numbers = input_statistics(parts.inputs)
            is_integer = torch.full_like(numbers[:1], float(not parts.are_numbers))
            labels = self._labels(parts).to(numbers.device)
            features = self._features(parts).to(numbers.device)
            rows = torch.full_like(numbers[:1], float(len(parts.inputs)))
            return torch.cat([numbers, is_integer, labels, rows, features])

    def _features(self, parts: BatchParts) -> torch.Tensor:
        if self._samples > FIRST_SAMPLES:  # what is unevenly scaled was so from the start
            return torch.full((2 * FEATURES,), torch.nan)
        return feature_statistics(parts.inputs)

    def _labels(self, parts: BatchParts) -> torch.Tensor:
        if parts.labels is None:
            return torch.full((3,), torch.nan, device=parts.inputs.device)
        counts = label_counts(parts.labels)
        self._running = counts if self._running is None else self._running + counts
        classes = (self._running > 0).sum().float()
        return torch.cat([label_order(counts, self._running), classes[None]])

    def hungry(self) -> bool:
        return self._samples < FIRST_SAMPLES

    def detach(self) -> None:
        self._running = None
