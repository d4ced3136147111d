"""The family `validation`: the user's own metrics under their own names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..store import Column, Schema


def validation_sample(
    metrics: Mapping[str, Any], epoch: float = math.nan
) -> tuple[Schema, np.ndarray]:
    """Return the schema of the metrics that are single numbers, and their values, float32[n].

    >>> schema, values = validation_sample({"val_loss": 0.5, "confusion": torch.zeros(3, 3)}, 2)
    >>> schema.names, values.tolist()
    (['val_loss', 'epoch'], [0.5, 2.0])
    """
    numbers = {str(name): _number(value) for name, value in metrics.items()}
    rows = {name: value for name, value in sorted(numbers.items()) if value is not None}
    rows.pop("epoch", None)
    schema = Schema("validation", (*(Column(name, name) for name in rows), Column.of("epoch")))
    with np.errstate(over="ignore"):
        return schema, np.array([*rows.values(), epoch], dtype=np.float32)


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor):
        return float(value.detach().item()) if value.numel() == 1 else None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
