"""The trigger: tells when a look at the model is worth most, from losses and gradient norms alone."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

BLOCK = 16
"""Losses whose median stands for them: single batches are noise."""

RISE = 1.3
"""A loss over so many times its best block has turned round."""

SPIKE = 8.0
"""A gradient norm over so many times the median of those before it; healthy runs reach 3 to 5."""

NORMS = 32
FLAT_BLOCKS = 12
"""Blocks, some 200 steps, over which the loss must fall."""
FLAT = 0.01
COOL_DOWN = 200
"""Steps between two calls: what was seen once need not be measured again at once."""


class Trigger:
    """Watches the losses (and, where they were measured, gradient norms) of a run, step by step.

    `observe` says "rise" where the loss turned round (over 1.3 times its best), "spike" at a
    gradient norm far beyond the last ones, "flat" where the loss does not fall any more, once a
    stretch, else None. What is not finite is no reason: there is nothing left to measure.

    >>> trigger = Trigger()
    >>> trigger.observe(300, [1.0] * 32), trigger.observe(332, [2.0] * 16)
    (None, 'rise')
    """

    def __init__(self) -> None:
        self._block: list[float] = []
        self._blocks: deque[float] = deque(maxlen=FLAT_BLOCKS)
        self._best = math.inf
        self._spread = 0.0
        self._norms: deque[float] = deque(maxlen=NORMS)
        self._is_flat = False
        self._called = -COOL_DOWN

    def observe(
        self, step: int, losses: Sequence[float], norms: Sequence[float] = ()
    ) -> str | None:
        """Take what came up to a step, and return why to look now."""
        why: str | None = None
        for norm in norms:
            why = "spike" if self._is_spike(norm) else why
        for loss in losses:
            if math.isfinite(loss):
                self._block.append(loss)
                if len(self._block) == BLOCK:
                    why = self._close_block() or why
        if why is None or step - self._called < COOL_DOWN:
            return None
        self._called = step
        return why

    def _is_spike(self, norm: float) -> bool:
        if not math.isfinite(norm):
            return False
        usual = median(self._norms) if len(self._norms) >= NORMS // 4 else math.inf
        self._norms.append(min(norm, SPIKE * usual))
        return norm > SPIKE * usual > 0

    def _close_block(self) -> str | None:
        ordered, self._block = sorted(self._block), []
        middle = (ordered[BLOCK // 2 - 1] + ordered[BLOCK // 2]) / 2
        rise = self._best > 0 and middle > max(RISE * self._best, self._best + self._spread)
        if middle < self._best:
            self._best, self._spread = middle, ordered[3 * BLOCK // 4] - ordered[BLOCK // 4]
        self._blocks.append(middle)
        if rise:
            return "rise"
        was_flat, self._is_flat = self._is_flat, self._has_stalled()
        return "flat" if self._is_flat and not was_flat else None

    def _has_stalled(self) -> bool:
        """Tell whether the later half of the last blocks lies no lower than the earlier one."""
        if len(self._blocks) < FLAT_BLOCKS:
            return False
        blocks = list(self._blocks)
        before, now = median(blocks[: FLAT_BLOCKS // 2]), median(blocks[FLAT_BLOCKS // 2 :])
        return abs(before - now) < FLAT * abs(before)
