"""Ranges: what each number of a rule may be set to, so that a slip is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..store import ConfigError
from .windows import KEPT_STEPS

SEVERITIES = ("info", "warning", "critical", "off")
MANY = 1_000_000_000
TIMES = 1000
"""A number may be set to so many times its default, and no more."""


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from `low` to `high`, whole ones only where they count something.

    >>> str(Range(1, 4, whole=True)), str(Range(0, 1))
    ('a whole number from 1 to 4', 'a number from 0 to 1')
    """

    low: float
    high: float
    whole: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {_said(self.low)} to {_said(self.high)}"

    def holds(self, value: Any) -> bool:
        """Tell whether a value is in the range; a whole number may have more digits than a float holds.

        >>> Range(0, 1).holds(10**400)
        False
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        # compared first: what lies between two floats can be made one
        return self.low <= value <= self.high and (not self.whole or float(value).is_integer())


SHARED_RANGES = {
    "warm_up": Range(0, MANY, whole=True),
    "window": Range(1, KEPT_STEPS, whole=True),
    "span": Range(1, KEPT_STEPS, whole=True),
    "k": Range(1, 1000, whole=True),
    "n": Range(1, 1000, whole=True),
    "clear": Range(0, 1),
    "cool_down": Range(0, MANY, whole=True),
    "min_samples": Range(1, KEPT_STEPS, whole=True),
    "cadence": Range(1, KEPT_STEPS, whole=True),
}

EXCEPTIONS: dict[str, Range] = {}
"""Numbers of a rule's own whose range its default does not tell: `<rule>.<name>`."""


def allowed(rule: str, name: str, body: Mapping[str, Any]) -> Range | None:
    """Return the range of a number of a rule; None for its severity, which is a word.

    What is no shared number tells its range by its default: below 1 it is a share, a quantile or
    a factor that lowers, and stays one; else it is anything above 0, up to a thousand times that.

    >>> str(allowed("plateau", "fire", {"fire": 0.01}))
    'a number from 0 to 1'
    """
    if name == "severity":
        return None
    if f"{rule}.{name}" in EXCEPTIONS:
        return EXCEPTIONS[f"{rule}.{name}"]
    if name == "k":
        return Range(1, max(body["n"], 1), whole=True)
    if name in SHARED_RANGES:
        return SHARED_RANGES[name]
    default = abs(float(body[name]))
    high = 1.0 if default < 1 else TIMES * default
    return Range(-high, 0) if body[name] < 0 else Range(0, high)


def checked(rule: str, name: str, value: Any, defaults: Mapping[str, Any]) -> Any:
    """Return a value that a number of a rule may be set to.

    `defaults`: the rule's section, with what else is set of it. Raises ConfigError with the key,
    the value and what is allowed.
    """
    key, ask = f"{rule}.{name}", "`otoscope rules` shows the defaults"
    limits = allowed(rule, name, defaults)
    if limits is None:
        if value in SEVERITIES:
            return value
        raise ConfigError(f"{key} must be one of {', '.join(SEVERITIES)}, got {value!r:.60}; {ask}")
    if not limits.holds(value):
        why = f" (k of the last n = {defaults['n']} evaluations)" if name == "k" else ""
        raise ConfigError(f"{key} must be {limits}{why}, got {value!r:.60}; {ask}")
    return int(value) if limits.whole else float(value)


def _said(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"
