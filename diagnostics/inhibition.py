"""Inhibition: which rule is the root cause of which, so that only the root is shown."""

from __future__ import annotations

from collections.abc import Sequence

from ..store import Finding

OF_LONG_STEPS = (
    "exploding_gradients",
    "dead_units",
    "saturated_activations",
    "vanishing_gradients",
    "activation_drift",
    "stale_second_moment",
    "loss_scale_collapse",
    "loss_spike",
    "oscillating_loss",
    "nonlinear_step",
    "missing_warmup",
    "update_imbalance",
    "wrong_head",
    "non_finite",
    "plateau",
)
"""What steps that are too long for the loss at hand do to a run, whatever made them so."""

CAUSES: dict[str, tuple[str, ...]] = {
    "input_problem": (
        "symmetric_weights",
        "bad_initialization",
        "lr_too_high",
        "ill_conditioned",
        "batch_too_small",
        "lr_too_low",
        *OF_LONG_STEPS,
    ),
    "rank_desync": ("batch_too_small", "batch_too_large", "oscillating_loss", "plateau"),
    "symmetric_weights": (
        "bad_initialization",
        "dead_units",
        "saturated_activations",
        "vanishing_gradients",
        "frozen_layer",
        "update_imbalance",
        "wrong_head",
        "lr_too_low",
        "plateau",
        "lr_too_high",
        "exploding_gradients",
        "loss_spike",
        "oscillating_loss",
        "nonlinear_step",
    ),
    "bad_initialization": (
        "lr_too_high",
        "exploding_gradients",
        "dead_units",
        "saturated_activations",
        "vanishing_gradients",
        "activation_drift",
        "loss_scale_collapse",
        "nonlinear_step",
        "missing_warmup",
        "update_imbalance",
        "frozen_layer",
        "non_finite",
        "plateau",
        "lr_too_low",
        "loss_spike",
        "oscillating_loss",
        "wrong_head",
        "overfitting",
    ),
    "lr_too_high": OF_LONG_STEPS,
    # with Adam a large gradient does harm only where the second moment lags behind it
    "stale_second_moment": (
        "exploding_gradients",
        "loss_spike",
        "oscillating_loss",
        "nonlinear_step",
    ),
    "exploding_gradients": (
        "non_finite",
        "loss_scale_collapse",
        "loss_spike",
        "dead_units",
        "vanishing_gradients",
        "activation_drift",
        "oscillating_loss",
        "plateau",
    ),
    "activation_drift": ("loss_scale_collapse", "saturated_activations"),
    "missing_warmup": ("loss_spike",),
    "outlier_batch": ("loss_spike",),
    "loss_scale_collapse": ("plateau",),
    "loss_spike": ("oscillating_loss", "plateau"),
    "dead_units": (
        "saturated_activations",
        "vanishing_gradients",
        "frozen_layer",
        "update_imbalance",
        "wrong_head",
        "lr_too_low",
        "plateau",
    ),
    "saturated_activations": (
        "vanishing_gradients",
        "frozen_layer",
        "update_imbalance",
        "lr_too_low",
        "plateau",
    ),
    "clipping_too_tight": ("wrong_head", "lr_too_low", "frozen_layer", "plateau"),
    "wrong_head": (
        "vanishing_gradients",
        "overfitting",
        "batch_too_small",
        "lr_too_low",
        "plateau",
    ),
    "vanishing_gradients": (
        "frozen_layer",
        "update_imbalance",
        "lr_too_low",
        "batch_too_small",
        "plateau",
    ),
    "lr_too_low": ("frozen_layer", "plateau"),
    "frozen_layer": ("update_imbalance", "plateau"),
    "batch_too_small": ("oscillating_loss", "plateau"),
    "ill_conditioned": ("oscillating_loss", "plateau"),
    "oscillating_loss": ("plateau",),
    "nonlinear_step": ("plateau",),
    "stalled": ("straggler", "throughput_drop"),
    "straggler": ("input_bound", "throughput_drop"),
    "input_bound": ("throughput_drop",),
    "memory_growth": ("throughput_drop",),
}
"""Root cause → what it causes, deepest first. `non_finite` besides causes all that starts after it.

Without a circle: a test holds that.
"""

SEVERITIES = ("critical", "warning", "info")

REACH = 200
"""Steps: what began so long before its root cause was seen may still be caused by it."""

HOLD = 100
"""Steps that an effect waits for its pending root cause, and no longer: that one may want for samples."""

LONG_REACH = {"lr_too_high": 2000}
"""Units die within a few steps of too high a rate, long before the loss tells."""


BEFORE = {
    ("stale_second_moment", "loss_spike"),
    ("stale_second_moment", "exploding_gradients"),
}
"""Cause and effect where a cause that is seen later is none: bad batches throw loss and gradients up at
once, and only then is the second moment behind."""

FROM_THEN_ON = {
    ("loss_spike", "stale_second_moment"),
    ("loss_spike", "saturated_activations"),
}
"""Cause and effect beside those of CAUSES, where the effect began at the same step or behind it: what a stretch of
bad batches threw up, or left behind."""

DEPTH = {rule: depth for depth, rule in enumerate(CAUSES)}


def parents(rule: str) -> tuple[str, ...]:
    """Return the rules that may be the cause of a rule, the first ones first.

    >>> parents("non_finite")
    ('input_problem', 'bad_initialization', 'lr_too_high', 'exploding_gradients')
    """
    return tuple(cause for cause, effects in CAUSES.items() if rule in effects)


def is_cause(cause: Finding, effect: Finding) -> bool:
    """Tell whether one firing finding is the root of another.

    One that is mere information hides nothing that asks for action.
    """
    if cause.id == effect.id or cause.attempt != effect.attempt:
        return False
    if cause.severity == "info" and effect.severity != "info":
        return False
    if cause.rule == "non_finite":
        return effect.first_step >= cause.first_step and effect.rule != "non_finite"
    if (cause.rule, effect.rule) in FROM_THEN_ON:
        return effect.first_step >= cause.first_step
    if effect.rule in CAUSES.get(cause.rule, ()):
        if (cause.rule, effect.rule) in BEFORE and cause.first_step >= effect.first_step:
            return False
        return effect.first_step >= cause.first_step - LONG_REACH.get(cause.rule, REACH)
    return False


def hang(findings: Sequence[Finding], effect: Finding) -> None:
    """Hang a finding that has just fired under its root cause, where one is firing.

    Of several it is the one that stands first in CAUSES: the deepest.
    """
    firing = [item for item in findings if item.state == "firing" and is_cause(item, effect)]
    for cause in sorted(firing, key=lambda item: DEPTH.get(item.rule, -1)):
        root = root_of(findings, cause)
        if root.id != effect.id:
            _adopt(root, effect)
            return


def gather(findings: Sequence[Finding], cause: Finding) -> None:
    """Hang what is firing already under a root cause that has just fired, or under its own root."""
    held = {name for other in findings if _holds(other) for name in other.caused}
    root = root_of(findings, cause)
    for effect in findings:
        free = effect.id not in held and effect.id != root.id
        if effect.state == "firing" and free and is_cause(cause, effect):
            _adopt(root, effect)


def release(findings: Sequence[Finding], ended: Finding) -> None:
    """Hang what a cause that is over has left behind under the deepest of it that still fires.

    It asks for attention itself now (`store.findings.hidden_ids`): so that it does so once.
    """
    left = [item for item in findings if item.id in ended.caused and item.state == "firing"]
    for cause in sorted(left, key=lambda item: DEPTH.get(item.rule, len(DEPTH))):
        gather(findings, cause)


def root_of(findings: Sequence[Finding], finding: Finding) -> Finding:
    """Return the finding under which another one hangs, itself where it hangs under none.

    One that is over holds nothing any more, unless a person closed it.
    """
    for other in findings:
        if finding.id in other.caused and _holds(other):
            return other
    return finding


def _holds(finding: Finding) -> bool:
    return finding.state == "firing" or finding.closed


def caused_ids(findings: Sequence[Finding]) -> set[str]:
    """Return the ids of all findings that hang under another."""
    return {name for finding in findings for name in finding.caused}


def _adopt(root: Finding, effect: Finding) -> None:
    for name in (effect.id, *effect.caused):
        if name not in root.caused and name != root.id:
            root.caused.append(name)
    effect.caused = []
    if SEVERITIES.index(effect.severity) < SEVERITIES.index(root.severity):
        root.severity = effect.severity  # what it does is as bad as what it did
