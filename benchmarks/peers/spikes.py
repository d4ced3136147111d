"""Spike detectors of language-model trainers: OLMo's, ZClip's and Megatron's, as they are published."""

from __future__ import annotations

import math

import numpy as np

from .alert import Alert, episodes
from .trace import Floats, Trace


def olmo(trace: Trace, length: int = 128, sigma: float = 6.0) -> list[Alert]:
    """OLMo-core's SkipStepOptimizer: a step is skipped whose loss or gradient norm is 6 σ off.

    Over the last 128 steps before it, from step max(20, 64) on; mean and (unbiased) deviation,
    both sides. Source: allenai/OLMo-core, optim/skip_step_optimizer.py.
    """
    alerts = []
    for name, kind in (("loss", "loss spike"), ("grad_norm", "gradient spike")):
        steps = _far_off(trace.get(name), length, sigma)
        alerts += episodes(kind, f"{name} over {sigma:g} sigma", steps)
    return alerts


def _far_off(values: Floats, length: int, sigma: float) -> list[int]:
    told = []
    for place in range(max(20, length // 2) - 1, len(values)):
        before = values[max(0, place - length) : place]
        with np.errstate(all="ignore"):  # what is not finite compares false, as there
            score = abs(values[place] - before.mean()) / before.std(ddof=1)
        # "skip unless the score is at most sigma": a score that is NaN skips
        if not score <= sigma:
            told.append(place + 1)
    return told


def zclip(
    trace: Trace, alpha: float = 0.97, threshold: float = 2.5, warmup: int = 25
) -> list[Alert]:
    """ZClip, z-score mode with adaptive scaling: a gradient norm over 2.5 running deviations is clipped.

    Mean and variance are exponential averages of what was let through, begun with 25 steps.
    Source: bluorion-com/ZClip, zclip/zclip.py; Kumar et al. 2025. Its second, fixed clip at 1 is
    no detector and is left out.
    """
    norms = trace.get("grad_norm")
    if len(norms) <= warmup:
        return []
    with np.errstate(all="ignore"):
        mean, variance = float(norms[:warmup].mean()), float(norms[:warmup].var())
        told = []
        for place in range(warmup, len(norms)):
            norm, std = float(norms[place]), math.sqrt(variance) if variance >= 0 else math.nan
            score = (norm - mean) / (std + 1e-6)
            if score > threshold:
                told.append(place + 1)
                norm = mean + threshold * std / (score / threshold)
            mean = alpha * mean + (1 - alpha) * norm
            variance = alpha * variance + (1 - alpha) * (norm - mean) ** 2
    return episodes("gradient spike", f"z over {threshold:g}", told)


def megatron(trace: Trace, factor: float = 10.0, samples: int = 100) -> list[Alert]:
    """Megatron-LM's result validation: loss or gradients of ten times the largest of the first 100.

    Values that are not finite are left to its own check of NaN and Inf, which ends the run.
    Source: NVIDIA/Megatron-LM, core/rerun_state_machine.py (`is_unexpectedly_large`) and
    pretrain_gpt.py (`--check-for-spiky-loss`, `--check-for-large-grads`).
    """
    alerts = []
    for name, kind in (("loss", "loss spike"), ("grad_norm", "gradient spike")):
        values = np.abs(trace.get(name))
        finite = np.isfinite(values)
        first = np.flatnonzero(finite)[:samples]
        if len(first) == samples:
            large = finite & (values >= factor * values[first].max())
            large[: first[-1] + 1] = False
            alerts += episodes(kind, f"{name} over {factor:g} x", np.flatnonzero(large) + 1)
    bad = ~np.isfinite(trace.get("loss"))
    bad |= np.isinf(trace.get("grad_norm"))
    return alerts + episodes("not finite", "NaN or Inf", np.flatnonzero(bad) + 1, "critical")
