"""The replicas probe: whether all processes hold the same weights, and each another batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.parameter import is_lazy

from ...store import Column
from ..measures.batches import batch_parts
from ..measures.checksum import batch_checksum, checksums
from .probe import Probe, ProbeOffError, Training

EVERY = 40
"""Steps between samples, the same on all ranks, which cannot ask each other and have unequal budgets.
A sample takes 0.2 ms a million weights and about 10 µs a tensor on one core: 0.04 to 0.4 % of the time
where steps take 2 ms or longer, 1.2 % of steps of 0.3 ms (measured in one process)."""
MOST_GROUPS = 16
"""Checksums of a sample; in a deeper model layers that follow each other share one."""


class Replicas(Probe):
    """Checksums of the weights of every rank, and of the batch that it trained on.

    Where gradients are averaged in every step the weights are equal bit by bit on all ranks, and
    batches are not. Buffers are left out: those of batch norm may differ; so are parameters that their
    framework calls a rank's own (DDP's ignored ones, experts, tensor-parallel slices). In a run of one process,
    and under sharded strategies, there is nothing to compare and nothing is measured.
    """

    def __init__(self, every: int | None = None) -> None:
        super().__init__(every=EVERY if every is None else every)
        self.family = "replicas"
        self.weight = 0.1
        self.sees_batch = True

    def on_every_rank(self, training: Training) -> bool:
        return True

    def is_on(self, training: Training) -> bool:
        return training.world_size > 1 and not training.sharded

    def attach(self, training: Training) -> Sequence[Column]:
        self._training = training
        layers: dict[str, list[torch.Tensor]] = {}
        apart = set(getattr(training.model, "_ddp_params_and_buffers_to_ignore", ()))
        for name, parameter in training.model.named_parameters():
            if name in apart or _is_of_one_rank(parameter):
                continue
            layers.setdefault(name.rpartition(".")[0] or name, []).append(parameter)
        if not layers:
            raise ProbeOffError("the model has no parameters that all ranks hold alike")
        size = math.ceil(len(layers) / MOST_GROUPS)
        self._parameters: list[tuple[torch.Tensor, int]] = [
            (parameter, place // size)
            for place, held in enumerate(layers.values())
            for parameter in held
        ]
        names = list(layers)[::size]
        self._count = len(names)
        self._groups = torch.empty(0, dtype=torch.int64)
        columns = [Column.of("checksum", layer=layer, ranks="each") for layer in names]
        return [*columns, Column.of("batch_checksum", ranks="each")]

    def sample(self, step: int) -> torch.Tensor:
        known = [(p, group) for p, group in self._parameters if not is_lazy(p)]
        weights = checksums([p for p, _ in known], self._grouped(known), self._count)
        return torch.cat([weights, self._batch().to(weights.device, non_blocking=True)])

    def _grouped(self, known: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
        """Return the group of each parameter, on their device: copied there once, as who does waits."""
        device = known[0][0].device if known else torch.device("cpu")
        if len(self._groups) != len(known) or self._groups.device != device:
            self._groups = torch.tensor([group for _, group in known], device=device).long()
        return self._groups

    def _batch(self) -> torch.Tensor:
        batches = self._training.batches()
        parts = batch_parts(batches[-1]) if batches else None
        return torch.full((1,), torch.nan) if parts is None else batch_checksum(parts.inputs)


def _is_of_one_rank(parameter: torch.Tensor) -> bool:
    """Tell what Megatron and DeepSpeed note of slices and of experts: no other rank holds the same."""
    sliced = getattr(parameter, "tensor_model_parallel", False)
    return bool(sliced) or getattr(parameter, "allreduce", True) is False
