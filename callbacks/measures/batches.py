"""Batches: what in one is the input and what are the labels, and how both are distributed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

INPUT_NAMES = (
    *("input_ids", "pixel_values", "input_values", "input_features", "inputs", "input", "x"),
    *("images", "image", "features", "data", "tokens", "src", "audio"),
)
LABEL_NAMES = ("labels", "label", "targets", "target", "y")
"""What mappings and dataclasses commonly call them, the likelier first."""

FEATURES = 64
"""Features whose correlations are looked at; tables of no more have a mean and a deviation of each."""
MOST = 2**16
"""Numbers of an input that are looked at; beyond it every k-th row."""
BINS = 4096
"""Classes that are told apart; larger labels share the bins of smaller ones."""

INPUT_QUANTITIES = ("mean", "std", "min", "max", "non_finite", "correlation")


@dataclass(frozen=True, slots=True)
class BatchParts:
    """The input of a batch and its labels: class numbers [B], or None where none were found.

    `targets` is what the loss compares with, of any shape and dtype: the labels where there are
    such, else the tensor that stands in their place, a regression's values or the tokens of a text.
    """

    inputs: Tensor
    labels: Tensor | None
    targets: Tensor | None

    @property
    def are_numbers(self) -> bool:
        """Whether the input has a scale: token ids and raw pixels (integers) have none."""
        return self.inputs.is_floating_point()


def batch_parts(batch: Any) -> BatchParts | None:
    """Return what in a batch is the input and what are the labels; None where there is no tensor.

    In mappings and dataclasses by their common names, else by place: the first tensor of numbers,
    or of integers with two or more dimensions, is the input, the next one the target. Labels are
    a target of integers, one a sample.

    >>> parts = batch_parts([torch.zeros(8, 3), torch.arange(8)])
    >>> parts.inputs.shape, parts.labels.shape
    (torch.Size([8, 3]), torch.Size([8]))
    """
    found = list(_tensors(batch, ""))
    named = {name: tensor for name, tensor in reversed(found) if name}
    inputs = next((named[name] for name in INPUT_NAMES if name in named), None)
    if inputs is None:
        rich = [tensor for _, tensor in found if tensor.is_floating_point() or tensor.ndim > 1]
        inputs = next(iter(rich or [tensor for _, tensor in found]), None)
    if inputs is None:
        return None
    others = [(name, tensor) for name, tensor in found if tensor is not inputs]
    targets = next((named[name] for name in LABEL_NAMES if name in named), None)
    if targets is None or targets is inputs:
        targets = next((tensor for name, tensor in others if not name), None)
    return BatchParts(inputs, _labels(inputs, targets), targets)


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        plain = value.layout is torch.strided and not value.is_nested and not value.is_complex()
        if plain and value.ndim and value.numel() and value.dtype is not torch.bool:
            yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, str(key))
    elif isinstance(value, (list, tuple)):
        fields = getattr(value, "_fields", None)  # a named tuple
        for place, item in enumerate(value):
            yield from _tensors(item, fields[place] if fields else name)
    elif hasattr(value, "__dataclass_fields__"):
        for key in value.__dataclass_fields__:
            yield from _tensors(getattr(value, key, None), key)


def _labels(inputs: Tensor, targets: Tensor | None) -> Tensor | None:
    if targets is None or targets.is_floating_point() or len(targets) != len(inputs):
        return None
    return targets.reshape(-1) if targets.numel() == len(targets) else None


def input_statistics(inputs: Tensor) -> Tensor:
    """Return float32[6]: mean, standard deviation, least, largest, share not finite, correlation.

    Over the finite numbers of `inputs` [B, …], of every k-th row where there are more than 2**16.
    The correlation is the largest magnitude between two of at most 64 features (evenly spaced
    places of a row) over the rows; nan for fewer than three rows, or where no two features vary.
    All nan for integers. On the device of `inputs`; nothing is waited for.

    >>> x = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    >>> [round(v, 3) for v in input_statistics(x).tolist()]
    [3.0, 1.633, 1.0, 6.0, 0.0, 1.0]
    """
    if not inputs.is_floating_point():
        return torch.full((len(INPUT_QUANTITIES),), math.nan, device=inputs.device)
    stride = max(1, -(-inputs.numel() // MOST))
    rows = inputs.detach()[::stride].float().reshape(-(-len(inputs) // stride), -1)
    if rows.is_cpu and math.isfinite(rows.sum().item()):  # half the time, where nobody waits for it
        low, high = rows.aminmax()
        numbers = [rows.mean(), rows.std(correction=0), low, high, torch.zeros(())]
        return torch.stack([*numbers, _correlation(rows)])
    finite = rows.isfinite()
    count = finite.sum()
    whole = torch.where(finite, rows, 0.0)
    mean = whole.sum(dtype=torch.float64) / count
    centred = torch.where(finite, rows - mean.float(), 0.0)
    std = (centred.square().sum(dtype=torch.float64) / count).sqrt()
    low = torch.where(finite, rows, math.inf).amin()
    high = torch.where(finite, rows, -math.inf).amax()
    numbers = [mean, std, low, high, 1 - count / rows.numel(), _correlation(whole)]
    return torch.stack([number.float() for number in numbers])


def feature_statistics(inputs: Tensor) -> Tensor:
    """Return float32[128]: the mean of each feature of a table [B, at most 64], then each deviation.

    nan for inputs of another shape, for integers, where there are fewer than two rows, and for the
    places behind the last feature. A feature with a number that is not finite has no finite mean.

    >>> feature_statistics(torch.tensor([[1.0, 10.0], [3.0, 50.0]]))[[0, 1, 64, 65]].tolist()
    [2.0, 30.0, 1.0, 20.0]
    """
    told = torch.full((2, FEATURES), math.nan, device=inputs.device)
    table = inputs.ndim == 2 and inputs.is_floating_point() and len(inputs) > 1
    if table and 0 < inputs.shape[1] <= FEATURES:
        rows = inputs.detach()[:: max(1, -(-inputs.numel() // MOST))].float()
        told[0, : rows.shape[1]] = rows.mean(0)
        told[1, : rows.shape[1]] = rows.std(0, correction=0)
    return told.flatten()


def _correlation(rows: Tensor) -> Tensor:
    size = rows.shape[1]
    nothing = torch.full((), math.nan, device=rows.device)
    if len(rows) < 3 or size < 2:
        return nothing
    chosen = rows[:, :: max(1, size // FEATURES)][:, :FEATURES]
    centred = chosen - chosen.mean(0)
    norms = centred.norm(dim=0)
    # what does not vary beyond rounding has no correlation
    varies = norms > 1e-6 * chosen.norm(dim=0)
    unit = centred / torch.where(varies, norms, 1.0)
    pairs = (unit.T @ unit).abs()
    pairs = torch.where(varies[:, None] & varies, pairs, 0.0).fill_diagonal_(0.0)
    return torch.where(varies.sum() > 1, pairs.amax().clamp(max=1.0), nothing)


def label_counts(labels: Tensor) -> Tensor:
    """Return float32[4096]: how often each class occurs; negative labels (ignored ones) are left out.

    >>> label_counts(torch.tensor([0, 2, 2, -100]))[:3].tolist()
    [1.0, 0.0, 2.0]
    """
    counts = torch.zeros(BINS, device=labels.device)
    kept = (labels >= 0).float()
    return counts.index_add_(0, labels.long().remainder(BINS), kept)


def label_order(counts: Tensor, running: Tensor) -> Tensor:
    """Return float32[2]: how mixed the labels of a batch are, and the share of the largest class.

    `counts` and `running` are `label_counts` of the batch and of all batches so far, this one too.
    The first number is the entropy of the batch's labels over what a batch of its size drawn from
    the running distribution has: H − (classes − 1)/(2B) (Miller 1955), at least a tenth of H.
    About 1 for a shuffled data set, near 0 where batches hold one class after the other; nan while
    one class was seen. The second is the running share of the most frequent class.

    >>> mixed, one = torch.tensor([4.0, 4.0]), torch.tensor([8.0, 0.0])
    >>> [round(label_order(counts, mixed * 8)[0].item(), 2) for counts in (mixed, one)]
    [1.1, 0.0]
    """
    whole = _entropy(running)
    classes = (running > 0).sum()
    expected = torch.maximum(whole - (classes - 1) / (2 * counts.sum()), 0.1 * whole)
    order = torch.where(classes > 1, _entropy(counts) / expected, math.nan)
    return torch.stack([order, running.amax() / running.sum()])


def _entropy(counts: Tensor) -> Tensor:
    return torch.special.entr(counts / counts.sum()).sum()
