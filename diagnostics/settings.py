"""Settings: what a person set while a run trained, as its events tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..store import ConfigError, Event, Finding
from ..store.schemas import Json
from .thresholds import Thresholds, known_key, load

ANSWERS = ("acknowledged", "normal", "snoozed")
"""What a person says of a finding. It changes no judgement."""


@dataclass
class Settings:
    """Task profile, thresholds that were overridden, and which findings are to be quiet."""

    profile: str = ""
    overrides: dict[str, Json] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    normal: list[str] = field(default_factory=list)
    snoozed: dict[str, int] = field(default_factory=dict)

    def thresholds(self, rule: str, own: Mapping[str, Any] | None = None) -> Thresholds:
        """Return a rule's numbers, its own or those of rules.toml, with what was overridden."""
        return load(rule, self.overrides, own)

    def heed(self, event: Event) -> None:
        """Take in an answer to a finding."""
        finding = str(event.body.get("finding"))
        if event.kind == "snoozed":
            self.snoozed[finding] = whole(event.body.get("until_step"), 0)
        elif finding not in self.acknowledged:
            self.acknowledged.append(finding)
        if event.kind == "normal":
            self.normal.append(finding)

    def override(
        self, key: str, value: Json, own: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Lay a number over a rule's own; None takes it back, what is no number is let be."""
        if not known_key(key, own):
            return
        overrides = {name: item for name, item in self.overrides.items() if name != key}
        if value is not None:
            overrides[key] = value
        try:
            rule = key.partition(".")[0]
            load(rule, overrides, (own or {}).get(rule))
        except ConfigError:
            return
        self.overrides = overrides

    def mark(self, findings: Iterable[Finding]) -> None:
        """Write onto the findings what was said of them."""
        for finding in findings:
            named = {finding.id, finding.rule}
            finding.acknowledged = bool(named & set(self.acknowledged))
            finding.snoozed_until_step = self.snoozed.get(finding.id)


def whole(value: Json, otherwise: int) -> int:
    """Return a whole number out of an event's body, which anyone may have written.

    >>> whole("soon", 3), whole(12, 3)
    (3, 12)
    """
    return int(value) if isinstance(value, (int, float)) else otherwise
