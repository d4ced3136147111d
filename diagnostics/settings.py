"""Settings: what a person set while a run trained, as its events tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..store import ConfigError, Event, Finding
from ..store.schemas import Json
from .null_rates import gone_by_itself
from .thresholds import Thresholds, checked_key, load

ANSWERS = ("acknowledged", "normal", "snoozed", "outcome", "heir")
"""What is said of a finding, by a person or by a later run that answers this one. It changes no judgement."""

KEPT_HEIRS = 20

OUTCOMES = ("helped", "no effect", "worse", None)

Own = Mapping[str, Mapping[str, Any]]
"""The numbers of a reader's own rules, by their id."""


@dataclass
class Settings:
    """Task profile, thresholds that were set, and which findings are to be quiet.

    `project` are those of otoscope.toml, `overrides` those of the run alone, which come over them;
    `refused` says of each that cannot be why.
    """

    profile: str = ""
    overrides: dict[str, Json] = field(default_factory=dict)
    project: dict[str, Json] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    normal: list[str] = field(default_factory=list)
    snoozed: dict[str, int] = field(default_factory=dict)
    answered: dict[str, dict[str, Json]] = field(default_factory=dict)
    """Of each finding whose advice a later run took, by its id: the change, the run, the outcome."""
    heirs: list[str] = field(default_factory=list)
    """Later runs that name this one as their parent, the last ones of them."""

    def thresholds(self, rule: str, own: Mapping[str, Any] | None = None) -> Thresholds:
        """Return a rule's numbers, its own or those of rules.toml, with what was set laid over."""
        if not self.project and not self.overrides:
            return load(rule, None, own)
        try:
            return load(rule, {**self.project, **self.overrides}, own)
        except ConfigError as error:  # taken in by a version that allowed it
            self.refused[rule] = str(error)
            return load(rule, None, own)

    def in_force(self) -> dict[str, Json]:
        """Return the numbers that are not the defaults."""
        return {**self.project, **self.overrides}

    def heed(self, event: Event) -> None:
        """Take in an answer to a finding, or that a later run gives some."""
        if event.kind == "heir":
            self.heirs = [*self.heirs, str(event.body.get("run"))][-KEPT_HEIRS:]
            return
        finding = str(event.body.get("finding"))
        if event.kind == "outcome":
            told = _told(event.body)
            self.answered = {**self.answered, finding: told} if told else self.answered
            return
        if event.kind == "snoozed":
            self.snoozed[finding] = whole(event.body.get("until_step"), 0)
        elif finding not in self.acknowledged:
            self.acknowledged.append(finding)
        if event.kind == "normal" and finding not in self.normal:
            self.normal.append(finding)

    def override(self, key: str, value: Json, own: Own | None = None) -> None:
        """Lay a number over a rule's own for this run; None takes it back."""
        overrides = {name: item for name, item in self.overrides.items() if name != key}
        if value is not None:
            overrides[key] = value
        if self._is_sound(key, {**self.project, **overrides}, own):
            self.overrides = overrides

    def adopt(self, numbers: Mapping[str, Json], own: Own | None = None) -> None:
        """Take the numbers of otoscope.toml, in place of those that it held before."""
        self.project, self.refused = {}, {}
        by_rule: dict[str, dict[str, Json]] = {}
        for key in sorted(numbers, key=lambda key: (key.endswith(".k"), key)):  # k behind its n
            by_rule.setdefault(key.partition(".")[0], {})[key] = numbers[key]
        for told in by_rule.values():
            first = next(iter(told))
            if self._is_sound(first, {**self.project, **told, **self.overrides}, own, told):
                self.project |= told
                continue
            for key, value in told.items():
                alone = {**self.project, key: value}
                if self._is_sound(key, {**alone, **self.overrides}, own):
                    self.project = alone

    def _is_sound(
        self, key: str, told: Mapping[str, Json], own: Own | None, keys: Iterable[str] = ()
    ) -> bool:
        try:
            rule, _ = checked_key(key, own)
            for other in keys:
                checked_key(other, own)
            load(rule, told, (own or {}).get(rule))
        except ConfigError as error:
            self.refused[key] = str(error)
            return False
        self.refused.pop(key, None)
        return True

    def mark(self, findings: Iterable[Finding]) -> None:
        """Write onto the findings what was said of them."""
        quiet = set(self.acknowledged)
        for finding in findings:
            finding.acknowledged = finding.id in quiet or finding.rule in quiet
            finding.snoozed_until_step = self.snoozed.get(finding.id)
            told = self.answered.get(finding.id)
            if told is not None:
                finding.outcome = told["outcome"]
                finding.followed = {
                    name: value for name, value in told.items() if name != "outcome"
                }
                finding.gone_by_itself = gone_by_itself(finding.rule)

    def normal_by_rule(self) -> dict[str, int]:
        """Return of each rule how many of its findings a person called normal."""
        counts: dict[str, int] = {}
        for finding in self.normal:
            rule = finding.partition(":")[0]
            counts[rule] = counts.get(rule, 0) + 1
        return counts


def _told(body: Mapping[str, Json]) -> dict[str, Json] | None:
    """Return what an `outcome` event tells, None of one that is nonsense: anyone may write one."""
    told = {name: body.get(name) for name in ("outcome", "run", "parameter", "from", "to")}
    named = isinstance(told["run"], str) and isinstance(told["parameter"], str)
    if not named or told["outcome"] not in OUTCOMES:
        return None
    return {**told, "step": whole(body.get("step"), 0), "attempt": whole(body.get("attempt"), 1)}


def whole(value: Json, otherwise: int) -> int:
    """Return a whole number out of an event's body, which anyone may have written.

    >>> whole("soon", 3), whole(12, 3)
    (3, 12)
    """
    return int(value) if isinstance(value, (int, float)) else otherwise
