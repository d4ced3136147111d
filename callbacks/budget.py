"""The budget: when each probe is due, so that all of them together cost no more than was allowed.

With step time t and allowance a, a probe of cost c runs every ceil(c / (a t)) steps. What the
recorder spends in every step is taken off first; what is left is shared out by weight, and what
one probe does not need goes to the others. An account holds the total: a probe that is due waits
while more was spent than earned.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median

LOAN_SECONDS = 0.010
LOAN_STEPS = 300
"""Early samples may be taken on credit, paid back by this step: a run shall have a beginning."""

DEAR_STEPS = 40.0
"""Guess, in steps, of what a dear probe's sample costs before one was taken."""


@dataclass(slots=True)
class Claim:
    """What one probe may spend: its weight in the budget, and what its samples have cost."""

    name: str
    weight: float = 1.0
    dear: bool = False
    first: int = 1
    every: int | None = None
    least: int = 1
    next_step: int = 1
    samples: int = 0
    seconds: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=7))
    off: str | None = None

    @property
    def cost(self) -> float:
        """Seconds of one sample, NaN before the first; the first, a warm-up, soon leaves."""
        return median(self.recent) if self.recent else math.nan

    def paid(self, seconds: float) -> None:
        self.samples += 1
        self.seconds += seconds
        self.recent.append(seconds)


class Budget:
    """Decides which probes sample in a step, from measured costs alone; it reads no clock.

    Args:
        share: largest part of the wall time that everything together may take, in (0, 1].
        max_steps: length of the run where it is known; then a dear probe may take its first
            sample early, as long as the rest of the run pays it back.
    """

    def __init__(self, share: float, max_steps: int | None = None) -> None:
        self.share = share
        self.max_steps = max_steps
        self.claims: dict[str, Claim] = {}
        self.step_seconds = math.nan
        self.elapsed = 0.0
        self.fixed_seconds = 0.0
        self._fixed = math.nan
        self._last_dear = -1
        self._start = 0

    def begin(self, step: int, max_steps: int | None = None) -> None:
        """Begin at a step: what was due at its n-th step is due n steps from there."""
        self.max_steps = None if max_steps is None else max(0, max_steps - step)
        self._start = step
        for claim in self.claims.values():
            claim.first += step
            claim.next_step = claim.first

    def claim(
        self,
        name: str,
        *,
        weight: float = 1.0,
        dear: bool = False,
        first: int = 1,
        every: int | None = None,
        least: int = 1,
    ) -> None:
        """Enter a probe; its first sample is due at the step `first`."""
        self.claims[name] = Claim(name, weight, dear, first, every, least, next_step=first)

    def off(self, name: str, why: str) -> None:
        """Take a probe out of the budget."""
        self.claims[name].off = why

    @property
    def spent(self) -> float:
        """Seconds that everything has cost so far."""
        return self.fixed_seconds + sum(claim.seconds for claim in self.claims.values())

    @property
    def overhead(self) -> float:
        """Share of the time so far that was ours."""
        return self.spent / self.elapsed if self.elapsed > 0 else 0.0

    def stepped(self, seconds: float, fixed: float) -> None:
        """Enter a step: its wall time, ours included, and what of it was spent in every step."""
        self.elapsed += seconds
        self.fixed_seconds += fixed
        if math.isnan(self.step_seconds):
            self.step_seconds, self._fixed = seconds, fixed
            return
        # the first steps are slow; a pause for a checkpoint is no step either
        pace = 0.3 if seconds < self.step_seconds else 0.03
        self.step_seconds += pace * (min(seconds, 3 * self.step_seconds) - self.step_seconds)
        self._fixed += 0.1 * (min(fixed, 3 * self._fixed) - self._fixed)

    def paid(self, name: str, seconds: float, step: int) -> None:
        """Enter what a sample has cost, and set when the next is due."""
        claim = self.claims[name]
        claim.paid(seconds)
        claim.next_step = step + self.interval(name)

    def spent_on(self, name: str, seconds: float) -> None:
        """Enter a cost that belongs to a probe and to no sample of it."""
        self.claims[name].seconds += seconds

    def interval(self, name: str) -> int:
        """Return the steps between two samples of a probe."""
        claim = self.claims[name]
        if claim.every is not None:
            return claim.every
        if math.isnan(claim.cost) or not self.step_seconds > 0:
            return claim.least
        allowed = self._allowances().get(name, 0.0) * self.step_seconds
        if allowed <= 0:
            return 1000
        return max(claim.least, min(100_000, math.ceil(claim.cost / allowed)))

    def due(self, step: int) -> list[str]:
        """Return the probes that sample in a step, at most one dear one."""
        names: list[str] = []
        for claim in self.claims.values():
            if claim.off is not None or step < claim.next_step:
                continue
            if not claim.dear:
                if claim.every is not None or self._in_credit(step):
                    names.append(claim.name)
            elif self._last_dear != step and self._can_pay(claim, step):
                self._last_dear = step
                names.append(claim.name)
        return names

    def hopeless(self, step: int) -> list[tuple[str, str]]:
        """Return (probe, why) for dear probes that this run is too short to pay for."""
        rows: list[tuple[str, str]] = []
        if self.max_steps is None or math.isnan(self.step_seconds):
            return rows
        for claim in self.claims.values():
            if not claim.dear or claim.off or claim.samples or claim.every or step < claim.first:
                continue
            nominal = self.share * claim.weight / self._weights()
            run = self.step_seconds * max(self.max_steps, 1)
            cost = DEAR_STEPS * self.step_seconds
            if cost > nominal * run:
                needed = math.ceil(100 * self.share * cost / (nominal * run)) / 100
                hint = f"budget={needed:g} would pay it" if needed <= 1 else "train longer"
                why = (
                    f"one sample costs about {_seconds(cost)}, and {self.max_steps} steps of "
                    f"{_seconds(self.step_seconds)} allow {_seconds(nominal * run)} for it at "
                    f"budget={self.share:g}; {hint}"
                )
                rows.append((claim.name, why))
        return rows

    def _weights(self) -> float:
        return sum(claim.weight for claim in self.claims.values() if claim.off is None)

    def _in_credit(self, step: int) -> bool:
        cheap = self.fixed_seconds + sum(c.seconds for c in self.claims.values() if not c.dear)
        loan = LOAN_SECONDS * max(0.0, 1 - (step - self._start) / LOAN_STEPS)
        return cheap <= (self.share - self._dear_part()) * self.elapsed + loan

    def _can_pay(self, claim: Claim, step: int) -> bool:
        if claim.every is not None:
            return True
        cost = DEAR_STEPS * self.step_seconds if math.isnan(claim.cost) else claim.cost
        if math.isnan(cost):
            return False
        earned = self._dear_share() * self.elapsed
        if claim.samples == 0 and self.max_steps is not None:
            earned = self._dear_share() * self.step_seconds * self.max_steps
        elif claim.samples and self.max_steps is not None:
            # a sample that the rest of the run cannot pay back would overdraw the whole
            earned = min(earned + cost, self._dear_share() * self.step_seconds * self.max_steps)
        return claim.seconds + cost <= earned

    def _dear_part(self) -> float:
        """Share of the wall time that is set aside for all dear probes."""
        return sum(self._allowances(only_dear=True).values())

    def _dear_share(self) -> float:
        dear = [c for c in self.claims.values() if c.dear and c.off is None]
        return self._dear_part() / max(1, len(dear))

    def _allowances(self, only_dear: bool = False) -> dict[str, float]:
        """Return each probe's share of the wall time: by weight, what one leaves to the others."""
        open_ = [claim for claim in self.claims.values() if claim.off is None]
        fixed = self._fixed / self.step_seconds if self.step_seconds > 0 else 0.0
        left = max(0.0, self.share - fixed)
        shares: dict[str, float] = {}
        while open_:
            total = sum(claim.weight for claim in open_)
            sated = [
                claim
                for claim in open_
                if self._largest(claim) <= left * claim.weight / total + 1e-12
            ]
            if not sated:
                shares |= {claim.name: left * claim.weight / total for claim in open_}
                break
            for claim in sated:
                shares[claim.name] = self._largest(claim)
                left -= shares[claim.name]
            open_ = [claim for claim in open_ if claim not in sated]
        if only_dear:
            return {name: share for name, share in shares.items() if self.claims[name].dear}
        return shares

    def _largest(self, claim: Claim) -> float:
        """Share of the wall time that a probe can use at all: one sample in every step."""
        if math.isnan(claim.cost) or not self.step_seconds > 0:
            return math.inf
        return claim.cost / (self.step_seconds * (claim.every or claim.least))


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value >= 0.1 else f"{value * 1000:.2g} ms"
