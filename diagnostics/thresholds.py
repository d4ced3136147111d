"""Thresholds: every number of every rule, from rules.toml and what a user overrode."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any, Literal, cast

from ..store import ConfigError
from ..store.schemas import Severity
from .ranges import checked

SHARED = (
    "severity",
    "warm_up",
    "window",
    "span",
    "k",
    "n",
    "fire",
    "clear",
    "cool_down",
    "min_samples",
    "cadence",
)
"""The fields that every rule has; a rule's other numbers are read by their name."""


@dataclass(frozen=True)
class Thresholds:
    """The numbers of one rule; those of its own are read as `thresholds["name"]`."""

    severity: Severity | Literal["off"]
    warm_up: int
    window: int
    span: int
    k: int
    n: int
    fire: float
    clear: float
    cool_down: int
    min_samples: int
    cadence: int
    own: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.own[name]


@cache
def _file() -> Mapping[str, Any]:
    text = (
        resources.files(__package__ or __name__).joinpath("rules.toml").read_text(encoding="utf-8")
    )
    return tomllib.loads(text)


def numbers() -> dict[str, dict[str, Any]]:
    """Return the sections of rules.toml, one a rule, in the file's order."""
    return {name: dict(body) for name, body in _file().items() if name != "profiles"}


@cache
def switched_off(profile: str) -> frozenset[str]:
    """Return the rules that do not apply in a task profile.

    >>> "plateau" in switched_off("gan")
    True
    """
    return frozenset(_file()["profiles"].get(profile, ()))


def profiles() -> list[str]:
    """Return the known task profiles."""
    return list(_file()["profiles"])


def load(
    rule: str,
    overrides: Mapping[str, Any] | None = None,
    own: Mapping[str, Any] | None = None,
) -> Thresholds:
    """Return a rule's numbers with the overrides `<rule>.<field>` laid over them.

    `own` are the numbers of a rule that does not stand in rules.toml. A severity of `off`
    switches the rule off.

    Raises ConfigError where a number is set to what it cannot be.

    >>> load("non_finite").severity
    'critical'
    """
    body = _section(rule, own)
    told = {
        key.partition(".")[2]: value
        for key, value in (overrides or {}).items()
        if key.partition(".")[0] == rule
    }
    # k is held against n: whoever sets both at once means both
    for name in sorted(set(told) & set(body), key=lambda name: name == "k"):
        body[name] = checked(rule, name, told[name], body)
    checked(rule, "k", body["k"], body)
    own = {name: float(value) for name, value in body.items() if name not in SHARED}
    shared = {name: body[name] for name in SHARED}
    return Thresholds(**cast(Any, shared), own=own)


def _section(rule: str, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return dict(_file()[rule] if own is None else own)


def checked_key(key: str, own: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[str, str]:
    """Return rule and number of a key `<rule>.<number>`; `own`: numbers of a reader's own rules.

    Raises ConfigError that names the nearest known key.
    """
    rule, _, name = key.partition(".")
    sections = {**numbers(), **(own or {})}
    if rule not in sections:
        near = get_close_matches(rule, sections, 1, 0.5)
        told = f"did you mean {near[0]}?" if near else "`otoscope rules` lists them"
        raise ConfigError(f"there is no rule {rule!r} (got {key!r}); {told}")
    if name not in sections[rule]:
        near = get_close_matches(name, sections[rule], 1, 0.4)
        known = f"did you mean {rule}.{near[0]}?" if near else f"it has {', '.join(sections[rule])}"
        raise ConfigError(f"rule {rule} has no number {name!r} (got {key!r}); {known}")
    return rule, name
