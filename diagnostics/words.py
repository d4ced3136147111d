"""Words: numbers and lists as people read them in a finding."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float) -> str:
    """Return a number with three digits that count.

    >>> number(0.034), number(1234.0), number(2.5e-7), number(0.1), number(2.0)
    ('0.034', '1,234', '2.5e-07', '0.1', '2')
    """
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if value == 0:
        return "0"
    if abs(value) >= 1000 and abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def rounded(value: float) -> float:
    """Return a proposed value with two digits that count: it is known no better.

    >>> rounded(0.033871)
    0.034
    """
    return float(f"{value:.2g}")


def percent(share: float) -> str:
    """Return a share as percent.

    >>> percent(0.005), percent(0.42)
    ('0.5 %', '42 %')
    """
    digits = 0 if abs(share) >= 0.0995 else 1
    return f"{100 * share:.{digits}f} %"


def interval(low: float, high: float) -> str:
    """Return a range; one number where both ends read alike.

    >>> interval(0.031, 0.037)
    '0.031–0.037'
    """
    return number(low) if number(low) == number(high) else f"{number(low)}–{number(high)}"


def listing(names: Sequence[str], most: int = 3) -> str:
    """Return names in words, at most so many of them.

    >>> listing(["a", "b"]), listing(["a", "b", "c", "d", "e"])
    ('`a` and `b`', '`a`, `b`, `c` and 2 more')
    """
    quoted = [f"`{name}`" for name in names]
    if len(quoted) > most:
        return f"{', '.join(quoted[:most])} and {len(quoted) - most} more"
    if len(quoted) < 2:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def count(n: int, noun: str) -> str:
    """Return a count with its noun.

    >>> count(1, "layer"), count(3, "layer")
    ('1 layer', '3 layers')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
