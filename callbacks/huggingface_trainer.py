"""What Hugging Face's Trainer tells of a run: its arguments, its saved state, a model's output."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..store.keys import RUN_ID
from .describing import cpu_count
from .recorder import Origin

STATE = "Otoscope"
"""Name of our state among the callbacks' in a checkpoint's trainer_state.json."""


def loss_again(model: nn.Module, batch: Any) -> torch.Tensor:
    """Run the model on the keywords that it was called with, and return its loss."""
    if batch is None:
        raise TypeError("the model was called with positional arguments; keywords are needed")
    loss = loss_in(model(**batch))
    if loss is None:
        raise TypeError("the model's output holds no loss")
    return loss


def loss_in(output: Any) -> torch.Tensor | None:
    """Return the loss in a model's output, None where it holds none.

    >>> loss_in({"logits": torch.zeros(2, 3), "loss": torch.tensor(0.5)})
    tensor(0.5000)
    """
    if isinstance(output, Mapping):
        loss = output.get("loss")
    else:
        loss = output[0] if isinstance(output, (tuple, list)) and output else None
    return loss if isinstance(loss, torch.Tensor) and loss.numel() == 1 else None


def inside(module: nn.Module) -> nn.Module:
    """Return the module that wrappers of torch and Accelerate are around."""
    while True:
        inner = getattr(module, "_orig_mod", None) or (
            module.module if type(module).__name__ == "DistributedDataParallel" else None
        )
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def precision_of(args: Any) -> str:
    """Return the precision by Lightning's name for it."""
    return "bf16-mixed" if args.bf16 else "16-mixed" if args.fp16 else "32-true"


def origin_of(state: Any) -> Origin:
    """Return where a resumed training goes on, from what its checkpoint holds of ours."""
    kept = (state.stateful_callbacks or {}).get(STATE)
    found = kept.get("attributes", {}) if isinstance(kept, dict) else {}
    run, attempt, step = (found.get(key) for key in ("run_id", "attempt", "step"))
    if state.global_step <= 0 or not isinstance(run, str) or not RUN_ID.match(run):
        return Origin()
    if not (isinstance(attempt, int) and isinstance(step, int)):
        return Origin()
    if not (0 <= attempt < 2**53 and 0 <= step < 2**53):
        return Origin()
    return Origin(run, attempt + 1, step, from_attempt=attempt)


def meta_of(args: Any, loader: Any) -> dict[str, Any]:
    """Return the fields of Meta that the Trainer's arguments tell."""
    try:
        samples = len(loader.dataset)
    except (TypeError, AttributeError, NotImplementedError):
        samples = None
    clip = float(args.max_grad_norm or 0.0)
    return {
        "precision": precision_of(args),
        "training_samples": samples,
        "gradient_clip_val": clip or None,
        "gradient_clip_algorithm": "norm" if clip else None,
        "accumulate_grad_batches": int(args.gradient_accumulation_steps),
        "batch_size": int(args.per_device_train_batch_size),
        "num_workers": int(args.dataloader_num_workers),
        "cpu_count": cpu_count(int(os.environ.get("LOCAL_WORLD_SIZE") or 1)),
        "world_size": int(args.world_size),
        "config": {"loop": "transformers"},
    }
