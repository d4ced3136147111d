"""What a Lightning Trainer tells of the run: its length, clipping, loss scale, checkpoints."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

from .describing import cpu_count, workers_of
from .stepping import LossFn


def loss_of(trainer: Any, pl_module: Any) -> tuple[LossFn | None, str]:
    """Return what runs the module's own loss again, or None and why there is no such thing."""
    try:
        from .undisturbed import lightning_loss
    except ImportError as error:
        return None, f"no loss to run again: {error}"
    return lightning_loss(trainer, pl_module)


def is_sharded(trainer: Any) -> bool:
    """Tell whether the strategy spreads each parameter over several processes."""
    name = type(trainer.strategy).__name__
    return any(word in name for word in ("FSDP", "DeepSpeed", "ModelParallel"))


def accumulates(trainer: Any, pl_module: Any) -> bool:
    """Tell whether every step of the fit has several micro-batches, but for a partial window."""
    scheduled = any("AccumulationScheduler" in type(c).__name__ for c in trainer.callbacks)
    automatic = pl_module.automatic_optimization
    return bool(automatic and not scheduled and int(trainer.accumulate_grad_batches) > 1)


def meta_of(trainer: Any, pl_module: Any) -> dict[str, Any]:
    """Return the fields of Meta that the Trainer knows."""
    loader = getattr(trainer, "train_dataloader", None)
    sampler_size = getattr(loader, "batch_size", None)
    try:
        samples = len(loader.dataset)  # type: ignore[union-attr]
    except (TypeError, AttributeError, NotImplementedError):
        samples = None
    algorithm = trainer.gradient_clip_algorithm
    clips = trainer.gradient_clip_val is not None
    return {
        "precision": str(trainer.precision),
        "training_samples": samples,
        "gradient_clip_val": trainer.gradient_clip_val,
        "gradient_clip_algorithm": str(getattr(algorithm, "value", algorithm or "norm"))
        if clips
        else None,
        "accumulate_grad_batches": int(trainer.accumulate_grad_batches),
        "batch_size": sampler_size if isinstance(sampler_size, int) else None,
        "num_workers": workers_of(loader),
        "cpu_count": cpu_count(_local_world(trainer)),
        "world_size": int(trainer.world_size),
        "classes": _classes(pl_module),
        "config": {"loop": "lightning"}
        | ({"schedules": found} if (found := schedules_of(trainer)) else {})
        | ({} if pl_module.automatic_optimization else {"optimization": "manual"}),
    }


def schedules_of(trainer: Any) -> list[str]:
    """Return the names of the schedules that the Trainer steps."""
    configs = getattr(trainer, "lr_scheduler_configs", None) or []
    return [type(config.scheduler).__name__ for config in configs]


def _local_world(trainer: Any) -> int:
    return max(1, int(trainer.world_size) // max(1, int(trainer.num_nodes)))


def _classes(pl_module: Any) -> int | None:
    found = getattr(pl_module, "num_classes", None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def max_steps_of(trainer: Any) -> int | None:
    """Return the optimizer steps that the fit will take, None where nobody knows."""
    asked = trainer.max_steps if trainer.max_steps and trainer.max_steps > 0 else None
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    if epochs is None or epochs < 0 or not math.isfinite(batches):
        return asked
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * epochs
    return steps if asked is None else min(asked, steps)


def clips_in_its_own_way(trainer: Any, pl_module: Any) -> bool:
    """Tell whether gradients may change before the step in a way that only the outcome tells of."""
    if not pl_module.automatic_optimization:
        return False
    by_norm = clip_norm_of(trainer, pl_module) is not None
    return _changes_gradients(pl_module) or bool(trainer.gradient_clip_val and not by_norm)


def _changes_gradients(pl_module: Any) -> bool:
    hooks = {"configure_gradient_clipping", "on_before_optimizer_step"}
    own = [
        vars(c) for c in type(pl_module).__mro__ if "lightning" not in c.__module__.split(".")[0]
    ]
    return any(hooks & set(held) for held in (vars(pl_module), *own))


def clip_norm_of(trainer: Any, pl_module: Any) -> float | None:
    """Return the largest norm that the Trainer's own clipping lets pass, None where it has none."""
    if not pl_module.automatic_optimization or not trainer.gradient_clip_val:
        return None
    if _changes_gradients(pl_module):
        return None
    algorithm = trainer.gradient_clip_algorithm
    by_norm = str(getattr(algorithm, "value", algorithm or "norm")) == "norm"
    return float(trainer.gradient_clip_val) if by_norm else None


def scale_left(trainer: Any, optimizer: Any) -> Any:
    """Return the loss scale that is still in the gradients: fused optimizers undo it themselves."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return 1.0
    scale = getattr(scaler, "_scale", None)
    return 1.0 if scale is None else scale


def stopped_early(trainer: Any) -> bool:
    """Tell whether something asked the Trainer to stop before its length was done."""
    if not trainer.should_stop:
        return False
    steps, epochs = trainer.max_steps, trainer.max_epochs
    # Lightning writes "no limit" as -1 or None
    all_steps = steps is not None and 0 <= steps <= trainer.global_step
    all_epochs = epochs is not None and 0 <= epochs <= trainer.current_epoch
    return not (all_steps or all_epochs)


def reason_of(trainer: Any) -> str:
    """Return why a fit ended that nothing cut off."""
    return "stopped early" if stopped_early(trainer) else "end of training"


def interrupted(trainer: Any) -> Callable[[], bool]:
    """Return what tells whether a fit was cut off; it does not keep the Trainer alive.

    Where another callback raises in its own `on_exception`, nobody tells the callbacks behind it.
    """
    known = weakref.ref(trainer)

    def is_over() -> bool:
        seen = known()
        status = None if seen is None else seen.state.status
        return seen is None or getattr(status, "value", status) == "interrupted"

    return is_over
