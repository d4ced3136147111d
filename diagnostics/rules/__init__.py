"""The rules of the catalogue, one file each; the order is that of judging, root causes first."""

from __future__ import annotations

from types import ModuleType

from ..rule import Rule
from . import (
    activation_drift,
    bad_initialization,
    batch_too_large,
    batch_too_small,
    clipping_too_tight,
    dead_units,
    exploding_gradients,
    frozen_layer,
    ill_conditioned,
    input_bound,
    input_problem,
    loss_scale_collapse,
    loss_spike,
    lost_samples,
    lr_too_high,
    lr_too_low,
    memory_growth,
    missing_warmup,
    non_finite,
    nonlinear_step,
    oscillating_loss,
    outlier_batch,
    overfitting,
    plateau,
    rank_desync,
    saturated_activations,
    stale_second_moment,
    stalled,
    straggler,
    symmetric_weights,
    throughput_drop,
    update_imbalance,
    vanishing_gradients,
    wrong_head,
)

MODULES: tuple[ModuleType, ...] = (
    non_finite,
    input_problem,
    symmetric_weights,
    bad_initialization,
    lr_too_high,
    exploding_gradients,
    stale_second_moment,
    loss_scale_collapse,
    missing_warmup,
    dead_units,
    saturated_activations,
    vanishing_gradients,
    nonlinear_step,
    loss_spike,
    batch_too_small,
    ill_conditioned,
    oscillating_loss,
    clipping_too_tight,
    lr_too_low,
    frozen_layer,
    plateau,
    batch_too_large,
    wrong_head,
    activation_drift,
    update_imbalance,
    overfitting,
    input_bound,
    straggler,
    memory_growth,
    throughput_drop,
    rank_desync,
    outlier_batch,
    stalled,
    lost_samples,
)

RULES: tuple[Rule, ...] = tuple(
    Rule(
        module.__name__.rpartition(".")[2],
        module.FAMILY,
        module.judge,
        module.__doc__ or "",
        from_start=getattr(module, "FROM_START", False),
        remember=getattr(module, "remember", None),
    )
    for module in MODULES
)
