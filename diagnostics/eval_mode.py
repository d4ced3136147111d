"""The net in eval mode against the net that trains: what running moments of BatchNorm do to a loss."""

from __future__ import annotations

import numpy as np

from ..store import Evidence, Recommendation
from .rule import Case, Context, Verdict, breach, fine, unknown
from .windows import Window
from .words import number


def another_in_eval_mode(window: Window, context: Context) -> Verdict | None:
    """Breach where the loss in eval mode is far over that in training mode; None without BatchNorm."""
    numbers, scale = context.thresholds, context.facts.loss_scale
    off = context.obstacles.why_off("modes")
    trained = window.samples("modes", "train_loss", span=numbers.span)
    evaluated = window.samples("modes", "eval_loss", span=numbers.span)
    if not (off or window.last_step("modes") >= 0 or _has_batch_norms(window, context)):
        return None
    known = np.isfinite(trained.values) & np.isfinite(evaluated.values)
    known &= trained.steps > context.start + numbers["follow"]
    if not known.any():
        why = f"its probe is off: {off}" if off else f"from step {numbers['follow']:,.0f} on"
        return unknown(f"BatchNorm's loss in eval mode was not compared ({why})")
    one, other = (s.values[known][-numbers.min_samples :] for s in (trained, evaluated))
    margin = np.maximum(np.abs(one) * numbers["differ"], numbers["of_start"] * scale)
    margin = np.maximum(margin, 1e-12)
    # of a loss that is no less than zero as a factor; one that may lie under it has none
    over = np.where(one >= 0, other / (one + margin), (other - one) / margin)
    strength = float(over.min())
    if strength <= 1:
        return fine(strength)
    if len(one) < numbers.min_samples and strength < numbers["alone"]:
        return unknown("BatchNorm's loss in eval mode was compared once, and once is not enough")
    last = trained.steps[known]
    stays = last[-1] - last[0] >= numbers["settle"]
    if not stays and float(other[-1]) < numbers["lost"] * context.facts.loss_start:
        return fine(0.9)  # it knows something, and moments may be on their way
    step = int(trained.steps[known][-1])
    return breach(strength, _case(context, float(one[-1]), float(other[-1]), step))


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
                f'model.set_submodule("{layer}", torch.nn.GroupNorm(8, '
                f'model.get_submodule("{layer}").num_features))'
                for layer in layers[:8]
            ),
            effect="the same net in training and in validation",
            verify="both losses within a tenth of each other in the next samples",
            risk="needs channels that 8 divides; without the batch's noise it may need more weight "
            "decay",
        ),
        may_be_normal="Just after a jump of the learning rate, until the running moments follow.",
        layers=tuple(layers),
    )
