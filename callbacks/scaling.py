"""The loss scale: what a GradScaler has multiplied the loss with, and so every gradient."""

from __future__ import annotations

import math
from typing import Any

import torch

Scale = float | torch.Tensor


def scale_now(scaler: Any) -> Scale:
    """Return the loss scale of the coming step: 1 without a scaler, or where it is switched off.

    On a device it is a copy that nobody has waited for, since `update` writes into the original.

    >>> scale_now(None), scale_now(torch.amp.GradScaler("cpu", init_scale=8.0))
    (1.0, 8.0)
    """
    if scaler is None or not getattr(scaler, "_enabled", True):
        return 1.0
    scale = getattr(scaler, "_scale", None)
    if scale is None:  # made when the first loss is scaled
        return float(getattr(scaler, "_init_scale", 1.0))
    return float(scale) if scale.device.type == "cpu" else scale.detach().clone()


def has_shrunk(scaler: Any, before: Scale) -> bool:
    """Tell whether a scaler met an infinity and let the step out: it halves its scale then.

    A fused optimizer is called all the same, and steps nothing. Not told on a device that we would
    have to wait for.
    """
    scale = getattr(scaler, "_scale", None)
    if scale is None or isinstance(before, torch.Tensor) or scale.device.type != "cpu":
        return False
    return float(scale) < before


def shown_scale(scaler: Any, scale: Scale) -> float:
    """Return what is recorded of a scale: NaN without a scaler, and where we would have to wait.

    >>> shown_scale(None, 1.0)
    nan
    """
    return math.nan if scaler is None or isinstance(scale, torch.Tensor) else scale
