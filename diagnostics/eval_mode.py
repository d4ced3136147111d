"""The net in eval mode against the net that trains: what BatchNorm's running moments do to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..store import Evidence, Recommendation
from ..store.schemas import Json
from .facts import BLOCK
from .medians import median_of
from .rule import Case, Context, Verdict, breach, fine, unknown
from .windows import Samples, Window
from .words import count, listing, number, percent

REFUTES = 0.5
"""Strength under which a measured loss in eval mode says that slow moments do no harm here."""
WELL = 0.25
"""A validation loss within so much of the training loss is that of the same net."""
MOMENTUM = 0.1
"""The framework's own."""
GROUPS = 8


def another_in_eval_mode(
    window: Window, context: Context, validated: Samples | None = None
) -> Verdict | None:
    """Breach where the net in eval mode is another one than that which trains; None without BatchNorm.

    Its batch norms are in eval mode while it trains, and normalize nothing. Or its loss in eval mode is
    far over that in training mode; or its running moments follow so slowly that most of what they are at
    the end of the run is what they began with, which needs no sample. `validated`: the last validation
    losses, which may bear it out, or refute it.
    """
    idle = _idle(window, context)
    if idle:
        return breach(2.0, _idle_case(window, idle))
    measured = _compared(window, context, validated)
    slow = _too_slow(window, context)
    if measured is None and slow is None:
        return None
    if measured is not None and measured.kind == "breach":
        return measured
    refuted = measured is not None and measured.kind == "fine" and measured.strength < REFUTES
    if slow is None or refuted or _is_well(window, context, validated):
        return measured
    return breach(slow.left / context.thresholds["stays"], _slow_case(window, context, slow))


def _idle(window: Window, context: Context) -> list[str]:
    """Return batch norms that are in eval mode while the net trains, and have never seen a batch.

    Those that were trained before are frozen on purpose, as in fine-tuning.
    """
    if context.meta.task == "finetune":
        return []
    seen = window.samples("head", "in_eval", span=context.thresholds.span).finite.values
    if len(seen) < context.thresholds.min_samples or seen[-1] < 1 or seen[-2] < 1:
        return []
    return list(_fresh(window, context)) if context.start == 0 else []


def _compared(window: Window, context: Context, validated: Samples | None) -> Verdict | None:
    """Breach where the loss in eval mode was measured to be far over that in training mode."""
    numbers, scale = context.thresholds, context.facts.loss_scale
    off = context.obstacles.why_off("modes")
    trained = window.samples("modes", "train_loss", span=numbers.span)
    evaluated = window.samples("modes", "eval_loss", span=numbers.span)
    if not (off or window.last_step("modes") >= 0 or _has_batch_norms(window, context)):
        return None
    follow = context.start + numbers["follow"]
    known = np.isfinite(trained.values) & np.isfinite(evaluated.values) & (trained.steps > follow)
    if not known.any():
        why = f"its probe is off: {off}" if off else f"from step {follow:,.0f} on"
        return unknown(f"BatchNorm's loss in eval mode was not compared ({why})")
    one, other = (s.values[known][-numbers.min_samples :] for s in (trained, evaluated))
    margin = np.maximum(np.abs(one) * numbers["differ"], numbers["of_start"] * scale)
    margin = np.maximum(margin, 1e-12)
    # of a loss that is no less than zero as a factor; one that may lie under it has none
    over = np.where(one >= 0, other / (one + margin), (other - one) / margin)
    strength = float(over.min())
    if strength <= 1:
        return fine(strength)
    start = context.facts.loss_start  # a loss that may lie under zero is lost as far over it
    limit = start - (1 - numbers["lost"]) * abs(start)
    lost = float(other.min()) >= limit  # of small batches it leaps, and comes back
    alone = lost and (strength >= numbers["alone"] or _as_bad(validated, limit))
    alone |= bool(context.standing("wrong_head"))
    if len(one) < numbers.min_samples and not alone:
        return unknown("BatchNorm's loss in eval mode was compared once, and once is not enough")
    last = trained.steps[known]
    if last[-1] - last[0] < numbers["settle"] and not lost:
        return fine(0.9)  # it knows something, and moments may be on their way
    step = int(trained.steps[known][-1])
    return breach(strength, _case(context, float(one[-1]), float(other[-1]), step))


def _as_bad(validated: Samples | None, limit: float) -> bool:
    """Tell whether the last two validations know as little."""
    return validated is not None and len(validated) > 1 and min(validated.values[-2:]) >= limit


def _is_well(window: Window, context: Context, validated: Samples | None) -> bool:
    """Tell whether the last validation, which sees the net in eval mode, is as good as training."""
    losses = window.samples("train", "loss", count=BLOCK).finite.values
    if validated is None or not len(validated) or not len(losses):
        return False
    trained, scale = median_of(losses), context.facts.loss_scale
    return bool(validated.values[-1] <= trained + max(WELL * abs(trained), scale / 50))


@dataclass(frozen=True, slots=True)
class _Slow:
    """Batch norms whose running moments hardly move, and the share that is left of their start."""

    layers: tuple[str, ...]
    momentum: float
    left: float
    steps: int


def _too_slow(window: Window, context: Context) -> _Slow | None:
    """Return the batch norms that begin anew and do not arrive within the run; None without any.

    After n steps with a momentum of m a share (1 - m)^n of the first moments, 0 and 1, is left.
    """
    numbers, whole = context.thresholds, context.meta.max_steps
    if not whole or context.start > 0 or window.step <= numbers["settle"] / 4:
        return None
    momenta = _momenta(window, context)
    steps = int(whole) * max(1, int(context.meta.accumulate_grad_batches or 1))
    slow = {
        layer: m for layer, m in momenta.items() if (1 - m) ** steps > numbers["stays"] and m < 1
    }
    if not slow or steps < numbers["follow"]:
        return None
    lowest = min(slow.values())
    return _Slow(tuple(slow), lowest, (1 - lowest) ** steps, steps)


def _fresh(window: Window, context: Context) -> dict[str, float | None]:
    """Return the momentum of each batch norm whose running moments began at 0 and 1, if it has one."""

    def read() -> dict[str, float | None]:
        return {
            str(row["layer"]): row.get("momentum")
            for row in context.meta.parameters
            if row.get("fresh") is True
        }

    return window.history.once("fresh norms", (), read)


def _momenta(window: Window, context: Context) -> dict[str, float]:
    """Return the momentum of those that take a running mean, and not that of all batches."""
    found = _fresh(window, context).items()
    return {layer: float(value) for layer, value in found if value is not None}


def _has_batch_norms(window: Window, context: Context) -> bool:
    """Tell whether a layer is one; asked at every point, and what a run tells of itself stays."""
    return window.history.once("eval_mode", (), lambda: bool(batch_norms(context)))


def batch_norms(context: Context) -> list[str]:
    """Return the layers that are a batch norm by the name of their class, in the model's order."""
    layers = [
        str(entry["layer"])
        for entry in context.meta.parameters
        if entry.get("kind") == "norm" and "BatchNorm" in str(entry.get("module", ""))
    ]
    return list(dict.fromkeys(layers))


def _case(context: Context, trained: float, evaluated: float, step: int) -> Case:
    norms = [str(e["layer"]) for e in context.meta.parameters if e.get("kind") == "norm"]
    layers = batch_norms(context) or list(dict.fromkeys(norms))
    return Case(
        title="The net is another one in eval mode: the running moments of BatchNorm are far off",
        why="Validation, and whoever uses the net, do not see what was trained.",
        because=(
            Evidence(
                f"loss {number(evaluated)} in eval mode and {number(trained)} in training mode, of "
                "the same batch at the same weights",
                "modes",
                "eval_loss",
                step,
                evaluated,
                trained * (1 + context.thresholds["differ"]),
            ),
        ),
        recommendation=Recommendation(
            parameter="norm",
            current=dict.fromkeys(layers, "BatchNorm"),
            proposed=dict.fromkeys(layers, "GroupNorm"),
            basis="rule of thumb",
            formula="GroupNorm takes each sample's own moments, in both modes alike",
            snippet="\n".join(
                f'model.set_submodule("{layer}", torch.nn.GroupNorm({groups_of(channels)}, {channels}))'
                for layer, channels in _channels(context, layers[:8]).items()
            ),
            effect="the same net in training and in validation",
            verify="both losses within a tenth of each other in the next samples",
            risk="without the batch's noise it may need more weight decay",
        ),
        may_be_normal="Just after a jump of the learning rate, until the running moments follow.",
        layers=tuple(layers),
    )


def groups_of(channels: int) -> int:
    """Return how many groups a GroupNorm has: the largest divisor up to 8 that leaves two to a group.

    >>> [groups_of(channels) for channels in (64, 12, 10, 7)]
    [8, 6, 5, 1]
    """
    fitting = [n for n in range(1, GROUPS + 1) if channels % n == 0 and channels // n >= 2]
    return max(fitting, default=1)


def _channels(context: Context, layers: list[str]) -> dict[str, int]:
    """Return the channels of norms: each has one weight a channel."""
    sizes: dict[str, int] = {}
    for row in context.meta.parameters:
        if row.get("layer") in layers:
            sizes.setdefault(str(row["layer"]), int(row.get("numel") or 1))
    return sizes


def _slow_case(window: Window, context: Context, slow: _Slow) -> Case:
    proposed: dict[str, Json] = {
        layer: {"kind": "BatchNorm", "momentum": MOMENTUM} for layer in slow.layers
    }
    current: dict[str, Json] = {
        layer: {"kind": "BatchNorm", "momentum": momentum}
        for layer, momentum in _momenta(window, context).items()
        if layer in proposed
    }
    return Case(
        title="The running moments of BatchNorm hardly move: in eval mode the net is another one",
        why="Validation, and whoever uses the net, do not see what was trained.",
        because=(
            Evidence(
                f"{listing(slow.layers, 2)} follow with a momentum of {number(slow.momentum)}: after "
                f"{count(slow.steps, 'step')} {percent(slow.left)} of them is still the mean of 0 and the "
                "variance of 1 that they began with",
                step=window.step,
                value=slow.left,
                threshold=context.thresholds["stays"],
            ),
        ),
        recommendation=Recommendation(
            parameter="norm",
            current=current,
            proposed=proposed,
            basis="derived",
            formula=f"(1 - momentum) ^ steps = (1 - {number(slow.momentum)}) ^ {slow.steps:,}; with the "
            f"framework's own, {MOMENTUM:g}, a percent is left after 44 steps",
            snippet="\n".join(
                f'model.get_submodule("{layer}").momentum = {MOMENTUM:g}'
                for layer in slow.layers[:8]
            ),
            effect="the same net in training and in validation",
            verify="both losses within a tenth of each other in the next samples",
            risk="moments of very small batches are noisy: where they are, GroupNorm has none",
        ),
        may_be_normal="Moments that are set by hand, or gathered anew after the training.",
        layers=slow.layers,
        onset=context.start + 1,
    )


def _idle_case(window: Window, layers: list[str]) -> Case:
    step = window.last_step("head")
    return Case(
        title="BatchNorm normalizes nothing: it is in eval mode while the net trains",
        why="Its running moments are as they began, a mean of 0 and a variance of 1, and nothing moves "
        "them: the layers behind it get what it gets.",
        because=(
            Evidence(
                f"all batch norms ({listing(layers, 2)}) are in eval mode in the step of the training, and "
                "had seen no batch before the run",
                "head",
                "in_eval",
                step,
                1.0,
                1.0,
            ),
        ),
        recommendation=Recommendation(
            parameter="inspect",
            current=None,
            proposed=[step],
            basis="from your run",
            formula="share of the batch norms that are in eval mode: 1",
            snippet="model.train()  # before the steps of each epoch: validation leaves it in eval mode",
            effect="each batch is normalized by its own moments, and running ones are gathered",
            verify="no batch norm in eval mode in the next sample",
            risk="none, but where they were frozen on purpose",
        ),
        may_be_normal="Batch norms that are switched off on purpose.",
        layers=tuple(layers),
    )
