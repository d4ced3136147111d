"""The loss at the start: what a net that knows nothing yet should have."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .batches import BatchParts


def chance_loss(logits: Tensor | None, parts: BatchParts | None, classes: int | None) -> Tensor:
    """Return the loss of guessing, a float32 scalar; nan where nothing tells what it is.

    Targets of integers, one for each row of logits: cross-entropy, ln C, where C is `classes`, or
    else the size of the logits' class dimension. Tokens without targets: the next one of C. Targets
    of numbers in the shape of the output: their variance, as of a squared error around the mean;
    where all of them are 0 or 1, ln 2, as of a binary cross-entropy.

    >>> from otoscope.callbacks.measures.batches import batch_parts
    >>> parts = batch_parts([torch.zeros(8, 3), torch.arange(8)])
    >>> round(chance_loss(torch.zeros(8, 10), parts, None).item(), 3)
    2.303
    """
    unknown = torch.tensor(math.nan)
    if parts is None or logits is None:
        return unknown
    targets = parts.targets
    if targets is None or not targets.is_floating_point():
        found = classes or _classes(logits, targets, parts.inputs)
        return unknown if found is None or found < 2 else torch.tensor(math.log(found))
    if targets.numel() != logits.numel():
        return unknown
    values = targets.detach().float()
    binary = ((values == 0) | (values == 1)).all()
    return torch.where(binary, math.log(2), values.var(correction=0))


def _classes(logits: Tensor, targets: Tensor | None, inputs: Tensor) -> int | None:
    """Return the size of the dimension in which the logits have classes; None where none fits."""
    if targets is None:
        is_text = logits.ndim == 3 and not inputs.is_floating_point()
        return logits.shape[-1] if is_text and len(logits) == len(inputs) else None
    if targets.shape == logits.shape[:-1]:
        return logits.shape[-1]
    if logits.ndim > 2 and targets.shape == logits.shape[:1] + logits.shape[2:]:
        return logits.shape[1]  # as of images: [B, C, H, W]
    flat = logits.ndim == 2 and targets.numel() == len(logits)
    return logits.shape[-1] if flat else None
