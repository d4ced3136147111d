"""The loss of each batch in Lightning: what `training_step` returned, or what a manual loop went back from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Losses:
    """Keeps what a manual loop goes backward from, and tells each batch's loss."""

    def __init__(self) -> None:
        self._manual: list[Any] = []

    def went_back(self, loss: Any, scale: Any) -> None:
        """Keep a loss that a manual loop goes backward from; Lightning tells of it with its scale."""
        self._manual.append(loss.detach() / scale)

    def of(self, outputs: Any, *, automatic: bool, parts: int) -> Any:
        """Return the loss of a batch, None where nothing told of one.

        `outputs`: what the loop tells of the batch. `automatic`: whether Lightning goes backward by
        itself; it divides by `parts`, its accumulated batches, in a partial last window too. Of a
        manual loop that returned nothing the loss is the sum of those that it went back from.
        """
        told = type(outputs) is dict or isinstance(outputs, Mapping)  # nearly always a dict
        loss: Any = outputs.get("loss") if told else outputs
        if automatic:
            return loss if loss is None or parts == 1 else loss * parts
        manual, self._manual = self._manual, []
        return loss if loss is not None else sum(manual) if manual else None
