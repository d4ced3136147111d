"""The groups of the catalogue, in the order in which rules are listed for people."""

from __future__ import annotations

GROUPS = {
    "Numbers": (
        *("non_finite", "loss_scale_collapse", "exploding_gradients", "loss_spike"),
        *("outlier_batch", "stale_second_moment"),
    ),
    "Step size and curvature": (
        *("lr_too_high", "lr_too_low", "oscillating_loss", "plateau", "missing_warmup"),
        *("ill_conditioned", "nonlinear_step"),
    ),
    "Layers": (
        *("vanishing_gradients", "dead_units", "saturated_activations", "activation_drift"),
        *("frozen_layer", "symmetric_weights", "bad_initialization", "update_imbalance"),
    ),
    "Batch and noise": ("batch_too_small", "batch_too_large", "clipping_too_tight"),
    "Data and generalization": ("input_problem", "overfitting", "wrong_head"),
    "Machines": (
        *("straggler", "rank_desync", "input_bound", "stalled", "memory_growth"),
        *("throughput_drop", "lost_samples"),
    ),
}
"""Of each group its rules; the order of judging is another, that of `rules.MODULES`."""
