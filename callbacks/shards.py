"""Shards: what a rank holds of a tensor, and how much of that counts where ranks are added up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this rank holds of a tensor, without a collective: all of it, or its shard."""
    held = tensor.detach()
    return held.to_local() if hasattr(held, "to_local") else held  # type: ignore[operator]


def is_sharded(model: torch.nn.Module) -> bool:
    """Tell whether a rank holds a part of the model's parameters alone, as under FSDP (1 or 2).

    >>> is_sharded(torch.nn.Linear(2, 1))
    False
    """
    return any(hasattr(p, "placements") for p in model.parameters()) or any(
        # flat shards, which tell nothing of themselves; the class takes a second to import
        type(module).__name__ == "FullyShardedDataParallel"
        and getattr(getattr(module, "sharding_strategy", None), "name", "") != "NO_SHARD"
        for module in model.modules()
    )


def shares(tensors: Sequence[torch.Tensor], world_size: int) -> list[float]:
    """Return how much of each local part counts, so that the sum over ranks counts all once.

    A shard counts wholly, a tensor that `n` ranks hold alike for 1/n: hybrid sharding keeps every
    shard several times, and parameters that were left out of the sharding are on every rank.

    >>> shares([torch.ones(3)], world_size=4)
    [1.0]
    """
    if not any(hasattr(tensor, "placements") for tensor in tensors):
        return [1.0] * len(tensors)  # flat shards, which tell nothing of themselves
    return [_share(tensor, world_size) for tensor in tensors]


def _share(tensor: torch.Tensor, world_size: int) -> float:
    if not hasattr(tensor, "placements"):
        return 1 / world_size
    mesh = tensor.device_mesh  # type: ignore[attr-defined]
    alike = world_size / mesh.size()
    for axis, placement in enumerate(tensor.placements):  # type: ignore[attr-defined]
        if placement.is_partial():
            return math.nan  # a norm of summands is no summand of a norm
        if placement.is_replicate():
            alike *= mesh.size(axis)
    return 1 / alike
