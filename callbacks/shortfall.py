"""The shortfall: what a budget cannot pay, in words, and the budget that could."""

from __future__ import annotations

import math


def crowded(share: float, fixed: float, step_seconds: float) -> tuple[str, float]:
    """Say that following each step takes all that the budget allows; times in seconds.

    Returns the words, and the budget that makes room.

    >>> crowded(0.02, 0.0001, 0.002)[0][:50]
    'steps are so short (2 ms) that following each of t'
    """
    taken = fixed / step_seconds
    room = min(1.0, math.ceil(200 * taken) / 100)
    words = (
        f"steps are so short ({shown(step_seconds)}) that following each of them takes "
        f"{100 * taken:.1f} % of the time; at budget={share:g} layers are hardly ever "
        f"measured; budget={room:g} makes room"
    )
    return words, room


def too_dear(share: float, cost: float, allowed: float, steps: int, step_seconds: float) -> str:
    """Say that a run of so many steps cannot pay one sample; times in seconds.

    >>> too_dear(0.02, 0.6, 0.3, 1000, 0.01)[-24:]
    'budget=0.04 would pay it'
    """
    needed = math.inf if allowed <= 0 else math.ceil(100 * share * cost / allowed) / 100
    hint = f"budget={needed:g} would pay it" if needed <= 1 else "train longer"
    return (
        f"one sample costs about {shown(cost)}, and {steps} steps of {shown(step_seconds)} allow "
        f"{shown(allowed)} for it at budget={share:g}; {hint}"
    )


def shown(seconds: float) -> str:
    """Return a time in seconds or milliseconds, to two digits.

    >>> shown(0.6), shown(0.0021)
    ('0.6 s', '2.1 ms')
    """
    return f"{seconds:.2g} s" if seconds >= 0.1 else f"{seconds * 1000:.2g} ms"
