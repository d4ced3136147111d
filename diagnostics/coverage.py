"""Coverage: which rules are judged at a fold's place, and why others, or parts of some, are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .thresholds import switched_off

if TYPE_CHECKING:
    from .fold import Fold

OF_THE_RECORDING = {"stalled", "lost_samples"}
"""Rules that need no sample of the training itself."""
OF_A_LOG = {
    *("non_finite", "lr_too_high", "exploding_gradients", "loss_spike", "outlier_batch"),
    *("oscillating_loss", "plateau", "overfitting"),
}
"""Rules of the catalogue that can judge a log of others: by losses, rates, gradient norms and scores."""


def coverage(fold: Fold) -> tuple[list[str], dict[str, str]]:
    """Return the rules that are judged now, and why others, or parts of some, are not."""
    judged: list[str] = []
    missing: dict[str, str] = {}
    off = switched_off(fold.settings.profile)
    of_others = fold.settled.config.get("loop") == "log"
    for rule in fold.rules:
        entry = fold.engine.entry(rule.id)
        span = fold.thresholds(rule.id).span
        if rule.id in off:
            missing[rule.id] = f"switched off in the task profile {fold.settings.profile}"
        elif fold.thresholds(rule.id).severity == "off":
            missing[rule.id] = f"switched off by {rule.id}.severity"
        elif of_others and rule.id not in OF_A_LOG and rule.numbers is None:
            missing[rule.id] = "a log does not hold what it looks at"
        elif entry.known is not None and entry.known >= fold.place.step - span:
            judged.append(rule.id)
            if entry.partly:
                missing[rule.id] = f"in part: {entry.partly}"
        else:
            missing[rule.id] = entry.why or "no recent sample"
    if set(judged) <= OF_THE_RECORDING:  # that alone says nothing of a training
        missing |= dict.fromkeys(judged, "only what was recorded is known so far")
        judged = []
    return judged, missing
