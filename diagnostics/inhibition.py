"""Inhibition: which rule is the root cause of which, so that only the root is shown."""

from __future__ import annotations

from collections.abc import Sequence

from ..store import Finding

CAUSES: dict[str, tuple[str, ...]] = {
    "lr_too_high": (
        "exploding_gradients",
        "dead_units",
        "non_finite",
        "plateau",
        "vanishing_gradients",
    ),
    "exploding_gradients": ("non_finite", "dead_units", "plateau"),
    "dead_units": ("vanishing_gradients", "plateau"),
    "vanishing_gradients": ("plateau",),
}
"""Root cause → what it causes. `non_finite` besides causes all that starts after it."""

REACH = 200
"""Steps: what began so long before its root cause was seen may still be caused by it."""

HOLD = 100
"""Steps that an effect waits for its pending root cause, and no longer: that one may want for samples."""

LONG_REACH = {"lr_too_high": 2000}
"""Units die within a few steps of too high a rate, long before the loss tells."""


def parents(rule: str) -> tuple[str, ...]:
    """Return the rules that may be the cause of a rule, the first ones first.

    >>> parents("plateau")
    ('lr_too_high', 'exploding_gradients', 'dead_units', 'vanishing_gradients')
    """
    return tuple(cause for cause, effects in CAUSES.items() if rule in effects)


def is_cause(cause: Finding, effect: Finding) -> bool:
    """Tell whether one firing finding is the root of another."""
    if cause.id == effect.id or cause.attempt != effect.attempt:
        return False
    if cause.rule == "non_finite":
        return effect.first_step >= cause.first_step and effect.rule != "non_finite"
    if effect.rule in CAUSES.get(cause.rule, ()):
        return effect.first_step >= cause.first_step - LONG_REACH.get(cause.rule, REACH)
    return False


def hang(findings: Sequence[Finding], effect: Finding) -> None:
    """Hang a finding that has just fired under its root cause, where one is firing."""
    for cause in findings:
        if cause.state == "firing" and is_cause(cause, effect):
            root = root_of(findings, cause)
            if root.id != effect.id:
                _adopt(root, effect)
                return


def gather(findings: Sequence[Finding], cause: Finding) -> None:
    """Hang what is firing already under a root cause that has just fired."""
    hidden = caused_ids(findings)
    for effect in findings:
        if effect.state == "firing" and effect.id not in hidden and is_cause(cause, effect):
            _adopt(cause, effect)


def root_of(findings: Sequence[Finding], finding: Finding) -> Finding:
    """Return the finding under which another one hangs, itself where it hangs under none."""
    for other in findings:
        if finding.id in other.caused:
            return other
    return finding


def caused_ids(findings: Sequence[Finding]) -> set[str]:
    """Return the ids of all findings that hang under another."""
    return {name for finding in findings for name in finding.caused}


def _adopt(root: Finding, effect: Finding) -> None:
    for name in (effect.id, *effect.caused):
        if name not in root.caused and name != root.id:
            root.caused.append(name)
    effect.caused = []
