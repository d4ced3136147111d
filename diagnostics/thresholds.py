"""Thresholds: every number of every rule, from rules.toml and what a user overrode."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, cast

from ..store import ConfigError
from ..store.schemas import Severity

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

    severity: Severity
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

    `own` are the numbers of a rule that does not stand in rules.toml.

    >>> load("non_finite").severity
    'critical'
    """
    body = numbers()[rule] if own is None else dict(own)
    for key, value in (overrides or {}).items():
        owner, _, name = key.partition(".")
        if owner == rule and name in body:
            body[name] = _like(body[name], value, key)
    own = {name: float(value) for name, value in body.items() if name not in SHARED}
    shared = {name: body[name] for name in SHARED}
    return Thresholds(**cast(Any, shared), own=own)


def known_key(key: str, own: Mapping[str, Mapping[str, Any]] | None = None) -> bool:
    """Tell whether `<rule>.<field>` names a number that can be overridden; `own`: see `load`.

    >>> known_key("plateau.fire"), known_key("plateau.nonsense")
    (True, False)
    """
    rule, _, name = key.partition(".")
    return name in {**numbers(), **(own or {})}.get(rule, {})


def _like(default: Any, value: Any, key: str) -> Any:
    if isinstance(default, str):
        return value if value in ("info", "warning", "critical") else default
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{key} must be a number, got {value!r}; `otoscope rules` shows the defaults"
        ) from None
    return int(number) if isinstance(default, int) else number
