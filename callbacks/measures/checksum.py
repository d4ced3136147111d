"""Checksums: small whole numbers that are equal where tensors are equal, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PRIME = 16_777_213
"""Largest prime under 2**24: every remainder is a float32 without rounding."""
MOST = 2**16
"""Numbers of a batch that are looked at: its first rows."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksums(tensors: Sequence[Tensor], groups: Sequence[int] | Tensor, count: int) -> Tensor:
    """Return float32[count]: a whole number under 2**24 of the bits of each group of tensors.

    `groups` names the group of each tensor, int64[tensors] where the tensors are: numbers would be
    copied to a device, and waited for. Bits are added up as integers, which no order of adding
    changes: the same on every device. Two unlike groups agree once in 16 million. On the device of
    the first tensor; nothing is waited for.

    >>> a, b = torch.ones(3), torch.tensor([1.0, 1.0, 1.0000001])
    >>> (checksums([a], [0], 1) == checksums([b], [0], 1)).item()
    False
    """
    device = tensors[0].device if tensors else torch.device("cpu")
    total = torch.zeros(count, dtype=torch.int64, device=device)
    if not tensors:
        return total.float()
    sums = [_sum(tensor) for tensor in tensors]
    whole = torch.stack([one.to(device, non_blocking=True) for one in sums])
    places = torch.arange(len(sums), dtype=torch.int64, device=device)
    # what moved from one tensor into another is not equal
    total.index_add_(0, torch.as_tensor(groups, device=device), whole * (2 * places + 1))
    return total.remainder(PRIME).float()


def batch_checksum(inputs: Tensor) -> Tensor:
    """Return float32[1]: a whole number under 2**24 of the first rows of a batch; nan without rows.

    >>> x = torch.arange(6).reshape(3, 2)
    >>> batch_checksum(x).equal(batch_checksum(x.flip(0)))
    False
    """
    if not inputs.ndim or inputs.layout is not torch.strided:
        return torch.full((1,), torch.nan, device=inputs.device)
    row = max(1, inputs[:1].numel())
    bits = _bits(inputs[: max(1, MOST // row)]).reshape(-1)[:MOST].long()
    places = torch.arange(len(bits), dtype=torch.int64, device=bits.device)
    return (bits * (2 * places + 1)).sum().remainder(PRIME).float().reshape(1)


def _sum(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor's bits, eight bytes at a time, an int64 scalar on its device.

    Sums of int32 in int64 take eight times as long as those of as many bytes in int64.
    """
    flat = _bits(tensor).reshape(-1)
    size = flat.element_size()
    if flat.storage_offset() * size % 8:
        flat = flat.clone()  # a slice of a buffer, which cannot be seen as int64 where it lies
    whole = flat.numel() * size // 8 * 8 // size
    total = flat[:whole].view(torch.int64).sum()
    return total if whole == flat.numel() else total + flat[whole:].sum(dtype=torch.int64)


def _bits(tensor: Tensor) -> Tensor:
    """Return the bits of a tensor as integers of its own size, without a copy."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.view(_BITS[tensor.element_size()])
