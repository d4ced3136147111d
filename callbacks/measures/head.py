"""The head: what a net's outputs are, probabilities or logits, and which classes it predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .batches import BatchParts

MOST = 2**22
"""Numbers of an output that are looked at whole: more are no head's but a vocabulary's."""
ROWS = 4096
"""Rows of which the predicted classes are counted."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """A net's outputs, float32[rows, classes], and the labels of the rows, int64[rows].

    Labels under 0 are ignored ones. Of one class the labels are targets of 0 and 1, float32[rows].
    """

    rows: Tensor
    labels: Tensor

    @property
    def classes(self) -> int:
        """The size of the class dimension; 1 of a binary head."""
        return self.rows.shape[1]


def head_outputs(output: Tensor, parts: BatchParts | None) -> Outputs | None:
    """Return outputs and labels row by row; None where the batch has no labels that fit.

    >>> from otoscope.callbacks.measures.batches import batch_parts
    >>> found = head_outputs(torch.zeros(8, 3), batch_parts([torch.zeros(8, 5), torch.arange(8)]))
    >>> found.rows.shape, found.labels.shape
    (torch.Size([8, 3]), torch.Size([8]))
    """
    targets = None if parts is None else parts.targets
    if targets is None or not output.ndim or output.numel() > MOST:
        return None
    if not output.is_floating_point() or output.layout is not torch.strided or not output.numel():
        return None
    if hasattr(output, "placements"):
        return None  # spread over ranks, who would have to work it out together
    output = output.detach()
    targets = targets.detach().to(output.device, non_blocking=True)
    if output.numel() == targets.numel():
        return Outputs(output.reshape(-1, 1).float(), targets.reshape(-1).float())
    if targets.is_floating_point():
        return None
    if output.ndim > 2 and targets.shape == output.shape[:1] + output.shape[2:]:
        output = output.movedim(1, -1)  # as of images: [B, C, H, W]
    if targets.numel() != output.numel() // output.shape[-1] or output.shape[-1] < 2:
        return None
    return Outputs(output.reshape(-1, output.shape[-1]).float(), targets.reshape(-1).long())


def probability_rows(outputs: Outputs, tolerance: float) -> Tensor:
    """Return the share of rows that are probabilities already: none negative, of sum 1.

    Of a binary head: the share of outputs from 0 to 1. A float32 scalar on the outputs' device.

    >>> one = Outputs(torch.tensor([[0.2, 0.8], [2.0, -1.0]]), torch.tensor([0, 1]))
    >>> probability_rows(one, 1e-3).item()
    0.5
    """
    rows = outputs.rows
    if outputs.classes == 1:
        return ((rows >= 0) & (rows <= 1)).float().mean()
    return ((rows >= 0).all(1) & ((rows.sum(1) - 1).abs() < tolerance)).float().mean()


def loss_as_logits(outputs: Outputs) -> Tensor:
    """Return the cross-entropy that the outputs have as logits, a float32 scalar.

    Of a binary head the binary one; nan where its targets are not 0 and 1.

    >>> round(loss_as_logits(Outputs(torch.zeros(4, 10), torch.arange(4))).item(), 3)
    2.303
    """
    rows, labels = outputs.rows, outputs.labels
    if outputs.classes > 1:
        # out of range, as where the classes are not those of this output: ignored, too
        inside = (labels >= 0) & (labels < outputs.classes)
        known = torch.where(inside, labels, -100)
        return functional.cross_entropy(rows, known, ignore_index=-100)
    binary = ((labels == 0) | (labels == 1)).all()
    loss = functional.binary_cross_entropy_with_logits(rows[:, 0], labels.clamp(0, 1))
    return torch.where(binary, loss, math.nan)


def loss_as_probabilities(outputs: Outputs) -> Tensor:
    """Return the mean negative logarithm of what the outputs give the labels, a float32 scalar.

    What a loss is that takes them for probabilities; where all are alike it is that of logits, too.

    >>> round(loss_as_probabilities(Outputs(torch.full((4, 10), 0.1), torch.arange(4))).item(), 3)
    2.303
    """
    rows, labels = outputs.rows, outputs.labels
    if outputs.classes == 1:
        given = torch.where(labels > 0.5, rows[:, 0], 1 - rows[:, 0])
        return -given.clamp(min=1e-12).log().mean()
    inside = (labels >= 0) & (labels < outputs.classes)
    given = rows.gather(1, labels.clamp(0, outputs.classes - 1)[:, None])[:, 0]
    logs = torch.where(inside, given.clamp(min=1e-12).log(), 0.0)
    return -logs.sum() / inside.sum()


def class_counts(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Return how often each class is predicted and how often it is right, both float32[classes].

    Of a binary head nothing: what counts as predicted is the user's threshold.

    >>> counts = class_counts(Outputs(torch.tensor([[2.0, 0.0], [3.0, 1.0]]), torch.tensor([0, 1])))
    >>> [count.tolist() for count in counts]
    [[2.0, 0.0], [1.0, 1.0]]
    """
    classes = outputs.classes
    step = max(1, -(-len(outputs.rows) // ROWS))
    rows, labels = outputs.rows[::step], outputs.labels[::step]
    inside = ((labels >= 0) & (labels < classes)).float()
    nothing = torch.zeros(classes, device=rows.device)
    predicted = nothing.index_add(0, rows.argmax(1), inside)
    return predicted, nothing.index_add(0, labels.clamp(0, classes - 1), inside)


def at_zero(outputs: Outputs) -> Tensor:
    """Return the share of outputs that are exactly zero, where none is negative: as behind a ReLU.

    A float32 scalar; 0 where an output is negative.

    >>> at_zero(Outputs(torch.tensor([[0.0], [2.0]]), torch.tensor([-1.0, 1.0]))).item()
    0.5
    """
    rows = outputs.rows
    return torch.where((rows >= 0).all(), (rows == 0).float().mean(), 0.0)


def under_zero(outputs: Outputs) -> Tensor:
    """Return the share of targets that are negative, a float32 scalar; nan where they are classes.

    >>> under_zero(Outputs(torch.tensor([[0.0], [2.0]]), torch.tensor([-1.0, 1.0]))).item()
    0.5
    """
    if outputs.classes > 1:
        return torch.full((), math.nan, device=outputs.rows.device)
    return (outputs.labels < 0).float().mean()


def entropy(counts: Tensor) -> Tensor:
    """Return the entropy of counts, in nats.

    >>> round(entropy(torch.tensor([1.0, 1.0])).item(), 3)
    0.693
    """
    return torch.special.entr(counts / counts.sum()).sum()
