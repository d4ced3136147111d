"""Changes of a setting, and whether one is what a finding had recommended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np

from ..store import Finding, Meta, Recommendation
from ..store.meta import ATTEMPT_SETTINGS
from ..store.schemas import Json
from .medians import median_of

JUMP = 1.2
"""A learning rate that moved by less in one step follows its schedule."""

STEADY = 3
"""Points in a row at which steps must have another size before it counts as changed."""

ALIKE = 0.8
"""Share of a point's steps that must have one size; else it differs from step to step by design."""


@dataclass(frozen=True, slots=True)
class Change:
    """A parameter of DIAGNOSES' list that has another value from a step of an attempt on."""

    parameter: str
    before: Json
    after: Json
    attempt: int
    step: int


def is_recommended(change: Change, advice: Recommendation | None) -> bool:
    """Tell whether a change goes where a recommendation pointed, or one of those beside it.

    >>> advice = Recommendation("lr", current=0.1, proposed=0.03)
    >>> is_recommended(Change("lr", 0.1, 0.05, 1, 300), advice)
    True
    >>> is_recommended(Change("lr", 0.1, 0.2, 1, 300), advice)
    False
    """
    return any(
        name == change.parameter and _goes_there(change, current, proposed)
        for name, current, proposed in _told(advice)
    )


def names(advice: Recommendation | None, parameter: str) -> bool:
    """Tell whether a recommendation, or one of those beside it, is about a setting.

    >>> names(Recommendation("lr", current=0.1, proposed=0.03), "batch_size")
    False
    """
    return any(name == parameter for name, _, _ in _told(advice))


def _told(advice: Recommendation | None) -> list[tuple[str, Json, Json]]:
    """Return parameter, current and proposed value of all that is advised."""
    if advice is None:
        return []
    told = [(advice.parameter, advice.current, advice.proposed)]
    told += [
        (str(other.get("parameter")), other.get("current"), other.get("proposed"))
        for other in (*advice.also, *advice.alternatives)
    ]
    for _, _, proposed in list(told):
        then = proposed.get("then") if isinstance(proposed, Mapping) else None
        told += [(name, None, value) for name, value in dict(then or {}).items()]
    return told


def _goes_there(change: Change, current: Json, proposed: Json) -> bool:
    before, after = change.before, change.after
    if not (_is_number(proposed) and _is_number(after)):
        return before != after
    start = current if _is_number(current) else before
    if not (_is_number(start) and _is_number(before)):
        return True  # from no clipping at all to some
    return (after - before) * (proposed - start) > 0


def _is_number(value: Json) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def told_settings(settings: Mapping[str, Json]) -> dict[str, Json]:
    """Return the settings of an attempt under the names that recommendations use."""
    optimizers = settings.get("optimizers")
    first = optimizers[0] if isinstance(optimizers, list) and optimizers else {}
    first = first if isinstance(first, Mapping) else {}
    told = {name: first[name] for name in ("lr", "betas", "weight_decay") if name in first}
    if first.get("name") is not None:
        told["optimizer"] = first["name"]
    names = ("gradient_clip_val", "accumulate_grad_batches", "batch_size", "precision")
    return told | {name: settings[name] for name in names if name in settings}


def between(
    old: Mapping[str, Json],
    new: Mapping[str, Json],
    attempt: int,
    step: int,
    ended: float | None = None,
) -> list[Change]:
    """Return what differs between the settings of two attempts, as far as both told of it.

    `ended`: the learning rate that the earlier one had come to, which a schedule may have lowered.
    """
    before, after = told_settings(old), told_settings(new)
    if ended is not None and "lr" in before:
        before["lr"] = ended
    return [
        Change(name, before[name], after[name], attempt, step)
        for name in before
        if name in after and _differ(name, before[name], after[name])
    ]


def _differ(name: str, before: Json, after: Json) -> bool:
    if name == "lr" and _is_number(before) and _is_number(after):
        return max(before, after) > JUMP * min(before, after)
    return before != after


def of_event(body: Mapping[str, Json], attempt: int, step: int) -> Change | None:
    """Return the change that an `lr` event tells of; None where a schedule merely goes its way."""
    before, after = body.get("from"), body.get("to")
    if body.get("optimizer", 0) not in (0, None) or body.get("group", 0) not in (0, None):
        return None
    if not (_is_number(before) and _is_number(after) and before > 0 and after > 0):
        return None
    if max(before, after) < JUMP * min(before, after):
        return None
    return Change("lr", before, after, attempt, step)


def with_settings(meta: Meta, settings: Mapping[str, Any]) -> Meta:
    """Return what a run told of itself as it was in an attempt that told its own settings."""
    known = {name: value for name, value in settings.items() if name in ATTEMPT_SETTINGS}
    if known.get("batch_size") is None:
        known.pop("batch_size", None)  # not known yet when the attempt began
    return replace(meta, **known) if known else meta


def is_setting(name: str, value: Json) -> bool:
    """Tell whether a value is one that a setting which may change within an attempt can have.

    >>> is_setting("gradient_clip_val", None), is_setting("batch_size", 0), is_setting("lr", 0.1)
    (True, False, False)
    """
    if name == "gradient_clip_val":
        return value is None or (_is_number(value) and value >= 0)
    return name in ("batch_size", "accumulate_grad_batches") and type(value) is int and value >= 1


@dataclass
class StepSize:
    """The usual number of samples in a step, to see it change."""

    usual: float | None = None
    other: float | None = None
    points: int = 0
    first: int = 0

    def learn(
        self, samples: np.ndarray, step: int, median: float | None = None
    ) -> tuple[float, float, int] | None:
        """Take a point's steps; returns (before, after, step) once the size has changed for good.

        `median`: of the samples, where it is known.

        >>> size = StepSize()
        >>> sizes = [64, 64, 128, 128, 128]
        >>> [size.learn(np.full(10, n), 10 * i) for i, n in enumerate(sizes)][-1]
        (64.0, 128.0, 20)
        """
        if median is None:
            median = median_of(samples) if len(samples) else 0.0
        if not median > 0 or np.count_nonzero(samples == median) < ALIKE * len(samples):
            return None  # the last batch of an epoch is short
        if self.usual is None or abs(median - self.usual) <= 0.1 * self.usual:
            self.usual = median if self.usual is None else self.usual
            self.other, self.points = None, 0
            return None
        if self.other is None or abs(median - self.other) > 0.1 * self.other:
            self.other, self.points, self.first = median, 0, step
        self.points += 1
        if self.points < STEADY:
            return None
        before, self.usual = self.usual, median
        self.other, self.points = None, 0
        return before, median, self.first

    def expect(self, times: float) -> None:
        """Take steps of so many times the size for usual from now on: somebody told of them."""
        if self.usual is not None:
            self.usual *= times
        self.other, self.points = None, 0


def firing(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that stand."""
    return [finding for finding in findings if finding.state == "firing"]
