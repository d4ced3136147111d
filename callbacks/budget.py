"""The budget: when each probe is due, so that all of them together cost no more than was allowed.

With step time t and allowance a, a probe of cost c runs every ceil(c / (a t)) steps. What the
recorder spends in every step is taken off first; what is left is shared out by weight, and what
one probe does not need goes to the others. An account holds the total: a probe that is due waits
while more was spent than earned.

Dear probes run the model. Their part is set aside, so that the cheap ones cannot use it up, and no
two of them sample in one step, nor with fewer steps between than their pool of batches holds.
"""

from __future__ import annotations

import math

from .claim import DEAR_STEPS, Claim, aligned
from .shortfall import crowded, too_dear

LOAN_SECONDS = 0.025
LOAN_STEPS = 60
"""So much may be taken on credit in the first steps: a run shall have a beginning, on a loaded machine
too. Then nothing is sampled until it is paid back."""

DEAR_PART = 4 / 9
DEAR_WEIGHT = 4.0
"""All dear probes together get at most this part of the budget, those that weigh less than this
together less of it: more of them shall not starve the measuring of layers."""

POOL = 4
"""Batches that a dear probe may look at; so many steps lie between two of them."""

EARLY_SAMPLES = 6
EARLY_WAIT = 10
EARLY_GRID = 10
"""A cheap probe's first samples are no further apart than this, where the account allows them, and
lie on a grid: what several probes need of a step is then measured once for all of them."""

RECONSIDERED = 50
"""A cheap probe asks at least so often, in steps: a slow spell must not keep it away for long."""
SHORT_SECONDS = 2.0
"""A run that is over sooner need not pay the credit back."""
START_SHARE = 0.1
"""Part of the budget that pays back what the start has cost, where the run's length is not known."""
LONGEST_WAIT = 1000
"""Steps after which a probe that the budget has no room for asks again."""


class Budget:
    """Decides which probes sample in a step, from measured costs alone; it reads no clock.

    `share` is the largest part of the wall time that everything together may take, in (0, 1].

    >>> budget = Budget(0.02)
    >>> budget.claim("norm")
    >>> for step in range(1, 1001):
    ...     if budget.due(step):
    ...         budget.paid("norm", 0.001, step)
    ...     budget.stepped(0.010, 0.0)
    >>> budget.claims["norm"].samples  # 1 ms every 5 steps of 10 ms is two percent
    199
    """

    def __init__(self, share: float, max_steps: int | None = None) -> None:
        self.share = share
        self.max_steps = max_steps
        self.claims: dict[str, Claim] = {}
        self.step_seconds = math.nan
        self.elapsed = 0.0
        self.fixed_seconds = 0.0
        self.start_seconds = 0.0
        """What it took to hook into the model and to begin, once."""
        self.dear_from = math.inf
        """Step from which a dear probe may sample; its batches are kept from shortly before."""
        self._fixed = math.nan
        self._start = 0
        self._next = 0
        self._apart = self._dear_step = 0
        self._fastest = math.inf
        self._known_parts: dict[str, float] = {}
        self._aside = 0.0
        """Share of the wall time that is set aside for dear probes."""
        self._roomy = 0.0
        """Seconds so far, each as much as it left of what is set aside: step by step, for a rate that
        changes later changes nothing of what was earned."""

    def begin(self, step: int, max_steps: int | None = None) -> None:
        """Begin at a step, with the length of the run where it is known.

        What was due at the n-th step is due n steps from there. With a known length a dear probe
        may take its first sample early, as long as the rest of the run pays it back.
        """
        self.max_steps = None if max_steps is None else max(0, max_steps - step)
        self._start = self._next = step
        for claim in self.claims.values():
            claim.first += step
            claim.next_step = claim.first
        self._look_ahead()

    def claim(
        self,
        name: str,
        *,
        weight: float = 1.0,
        dear: bool = False,
        first: int = 1,
        every: int | None = None,
        least: int = 1,
        aligned: bool = False,
        guess: float = DEAR_STEPS,
    ) -> None:
        """Enter a probe: `every` fixes its interval, `least` bounds the one that is chosen.

        `aligned` lets it sample at multiples of a power of two only, so that ranks of unequal pace,
        which cannot ask each other, sample at the same steps. `guess`: steps that a dear probe's
        first sample may cost.
        """
        self.claims[name] = Claim(
            name, weight, dear, first, every, least, aligned, guess, next_step=first
        )
        self._known_parts.clear()
        self._next = 0
        self._look_ahead()

    def off(self, name: str, why: str) -> None:
        """Take a probe out of the budget."""
        self.claims[name].off = why
        self._known_parts.clear()
        self._look_ahead()

    def _look_ahead(self) -> None:
        dear = [claim.next_step for claim in self.claims.values() if claim.dear and claim.open]
        self.dear_from = min(dear, default=math.inf)

    @property
    def spent(self) -> float:
        """Seconds that everything has cost so far."""
        sampled = sum(claim.seconds for claim in self.claims.values())
        return self.start_seconds + self.fixed_seconds + sampled

    @property
    def overhead(self) -> float:
        """Share of the time so far that was ours."""
        return self.spent / self.elapsed if self.elapsed > 0 else 0.0

    def stepped(self, seconds: float, fixed: float) -> None:
        """Enter a step: its wall time, ours included, and what every step costs of our own.

        A time slice that another process took is no cost of ours: 8 ms against 30 µs of work, on
        a loaded machine. So a step counts at most twice what is usual.
        """
        self.elapsed += seconds
        self._fastest = min(self._fastest, seconds)
        self._roomy += seconds * self._room()
        if not self.step_seconds > 0:
            # the first step loads code and is no measure; a step costs some 30 µs of our own
            self.step_seconds, self._fixed = seconds, max(min(fixed, 50e-6), 1e-9)
            self.fixed_seconds += fixed
            return
        self.fixed_seconds += min(fixed, 2 * self._fixed)
        # moves by steps of one size, as a median does, so that slices taken away do not lift it
        self._fixed *= 1.1 if fixed > self._fixed else 1 / 1.1
        # the first steps are slow; a pause for a checkpoint is no step either
        pace = 0.3 if seconds < self.step_seconds else 0.03
        self.step_seconds += pace * (min(seconds, 3 * self.step_seconds) - self.step_seconds)

    def spent_on(self, name: str, seconds: float) -> None:
        """Enter a cost that belongs to a probe and to no sample of it."""
        self.claims[name].seconds += seconds

    def paid(self, name: str, seconds: float, step: int, *, again: bool = False) -> None:
        """Enter what a sample has cost, and set when the next is due; `again`: in the next step."""
        claim = self.claims[name]
        claim.paid(seconds)
        claim.hastened = False
        wait = 1 if again else self.interval(name)
        free = claim.every is None
        claim.next_step = aligned(step, wait) if free and claim.aligned else step + wait
        sparse = free and 2 * wait > EARLY_GRID
        if sparse and claim.samples < EARLY_SAMPLES and not claim.dear:
            claim.next_step = -(-claim.next_step // EARLY_GRID) * EARLY_GRID
        self._next = 0
        self._look_ahead()

    def interval(self, name: str) -> int:
        """Return the steps between two samples of a probe."""
        claim = self.claims[name]
        if claim.every is not None:
            return claim.every
        if math.isnan(claim.cost) or not self.step_seconds > 0:
            return claim.least
        allowed = self.allowances().get(name, 0.0) * self.step_seconds
        steps = math.ceil(claim.cost / allowed - 1e-3) if allowed > 0 else LONGEST_WAIT
        # the first costs are those of a warm-up: ask again soon, the account holds the total
        most = EARLY_WAIT if claim.samples < EARLY_SAMPLES else RECONSIDERED
        most = 100_000 if claim.dear else most
        return max(claim.least, min(most, steps))

    def due(self, step: int) -> list[str]:
        """Return the probes that sample in a step, at most one dear one."""
        if step < self._next:  # in most steps nothing is due, and this line is all that runs
            return []
        names: list[str] = []
        for claim in self._in_turn():
            if step < claim.next_step:
                continue
            if claim.dear and claim.every is None and step < self._apart:
                claim.next_step = self._apart
                continue
            wait = 0 if claim.every is not None else self._wait(claim, step)
            if wait:
                claim.next_step = aligned(step, wait) if claim.aligned else step + wait
                continue
            if not claim.dear:
                names.append(claim.name)
            elif self._dear_step < step:  # else it stays due, and its turn comes
                self._dear_step, self._apart = step, step + POOL
                names.append(claim.name)
        waiting = [claim.next_step for claim in self.claims.values() if claim.open]
        self._next = max(step + 1, min(waiting, default=step + LONGEST_WAIT))
        self._look_ahead()
        return names

    def _in_turn(self) -> list[Claim]:
        """Return the probes that are on; of the dear ones first the one that has waited longest."""
        asking = [self.claims[name] for name in self._parts()]
        dear = sorted((c for c in asking if c.dear), key=lambda claim: claim.next_step)
        return [claim for claim in asking if not claim.dear] + dear

    def hasten(self, step: int) -> None:
        """Bring the next sample of each dear probe forward: something happened that is worth it.

        It may be taken before it is earned, once; a longer wait afterwards pays it back. A probe
        that is still in debt, or that has not sampled yet, does not hurry.
        """
        soon = step + POOL
        for claim in self.claims.values():
            if not (claim.dear and claim.open and claim.samples) or claim.every is not None:
                continue
            # where the length is known a sample is always one ahead of what was earned
            ahead = 0.0 if self.max_steps is None else claim.usual
            if claim.next_step > soon and claim.seconds <= self._earned(claim) + ahead:
                claim.hastened, claim.next_step = True, soon
                soon += POOL
        self._next = 0
        self._look_ahead()

    def hopeless(self, step: int) -> list[tuple[str, str]]:
        """Return (probe, why) for dear probes that this run is too short to pay for."""
        rows: list[tuple[str, str]] = []
        if self.max_steps is None or not self.step_seconds > 0:
            return rows
        for claim in self.claims.values():
            if claim.dear and claim.open and not claim.samples and claim.every is None:
                cost = claim.guess * self.step_seconds
                part = self._nominal(claim) * self._room()
                allowed = part * self.step_seconds * self.max_steps
                if step >= claim.first and cost > allowed:
                    why = too_dear(self.share, cost, allowed, self.max_steps, self.step_seconds)
                    rows.append((claim.name, why))
        return rows

    def crowded(self) -> tuple[str, float] | None:
        """Say so, and what would do, where every step's own cost leaves the probes next to nothing."""
        if not self.step_seconds > 0 or self._fixed < 0.8 * self.share * self.step_seconds:
            return None
        return crowded(self.share, self._fixed, self.step_seconds)

    def _wait(self, claim: Claim, step: int) -> int:
        """Return the steps until a probe that is due can be paid: 0 where it can be now."""
        missing, rate = self._dear_missing(claim) if claim.dear else self._missing(claim, step)
        if missing <= 0:
            return 0
        earned = rate * self.step_seconds
        return min(LONGEST_WAIT, math.ceil(missing / earned)) if earned > 0 else LONGEST_WAIT

    def _missing(self, claim: Claim, step: int) -> tuple[float, float]:
        """Return the seconds that a cheap probe lacks for a sample, and the share that is earned."""
        dear = [other for other in self.claims.values() if other.dear]
        set_aside = sum(self._nominal(other) for other in dear)
        share = self.share - set_aside
        others = [other for other in self.claims.values() if not (other.dear or other.once)]
        cheap = sum(other.seconds for other in others)
        cost = 0.0 if math.isnan(claim.cost) else claim.cost
        loan = self._loan(share, step - self._start)
        wanted = self.fixed_seconds + cheap + cost + self._overdrawn(dear, set_aside)
        return wanted + self._start_owed() - share * self.elapsed - loan, share

    def _loan(self, share: float, done: int) -> float:
        """Return the seconds that may be taken on credit now: what the rest of the run pays back."""
        if done > LOAN_STEPS:
            return 0.0
        # the first steps are slow: how long the run takes is told by the fastest so far
        whole = 0.0 if self.max_steps is None else self._fastest * self.max_steps
        if whole < SHORT_SECONDS or done <= 5:
            return LOAN_SECONDS
        ahead = max(0.0, whole - self.elapsed)
        left = share - self._fixed / self.step_seconds
        return min(LOAN_SECONDS, max(0.0, ahead * left))

    def _start_owed(self) -> float:
        """Return what of the start is to be paid by now: bit by bit, for it must not cost samples."""
        return min(self._start_cost(), self._start_rate() * self.elapsed)

    def _start_cost(self) -> float:
        """Return what the start has cost in all: hooking in, and what is measured once."""
        once = [claim.seconds for claim in self.claims.values() if claim.once and not claim.dear]
        return self.start_seconds + sum(once)

    def _start_rate(self) -> float:
        """Return the share of the wall time that pays back what the start has cost."""
        whole = self._whole()
        cost = self._start_cost()
        even = cost / whole if whole > SHORT_SECONDS else 0.0
        return max(START_SHARE * self.share, even) if cost > 0 else 0.0

    def _overdrawn(self, dear: list[Claim], set_aside: float) -> float:
        """Return what a dear sample took beyond all guesses: the cheap probes pay it back.

        Over the length of the run where it is known, else at once.
        """
        spent, whole = sum(claim.seconds for claim in dear), self._whole()
        if not spent:
            return 0.0
        over = max(0.0, spent - set_aside * max(self.elapsed, whole))
        return over * min(1.0, self.elapsed / whole) if whole > 0 else over

    def _whole(self) -> float:
        """Return the seconds of the whole run; 0 where its length is not known."""
        return 0.0 if self.max_steps is None else self.step_seconds * self.max_steps

    def _dear_missing(self, claim: Claim) -> tuple[float, float]:
        """Return the seconds that a dear probe lacks, and the share that it earns.

        Where the length of the run is known its first sample is paid by all of it.
        """
        share = self._nominal(claim) * self._room()
        if not self.step_seconds > 0:
            return math.inf, share
        cost = claim.guess * self.step_seconds if math.isnan(claim.cost) else claim.usual
        earned = self._earned(claim) + (cost if claim.hastened else 0.0)
        if self.max_steps is not None:
            whole = share * self._whole()
            earned = whole if claim.samples == 0 else min(earned + cost, whole)
        return claim.seconds + cost - earned, share

    def _earned(self, claim: Claim) -> float:
        """Return the seconds that a dear probe has earned by now."""
        return self._nominal(claim) * self._roomy

    def _room(self) -> float:
        """Return how much of the dear probes' part is left by what every step costs, in [0, 1]."""
        if not self.step_seconds > 0 or not self._aside > 0:
            return 1.0
        left = self.share - self._fixed / self.step_seconds
        return min(1.0, max(0.0, left / self._aside))

    def _nominal(self, claim: Claim) -> float:
        """Return a probe's part of the budget by weight alone; 0 where it is off."""
        return self.share * self._parts().get(claim.name, 0.0)

    def _parts(self) -> dict[str, float]:
        """Return the part of each probe that is on, by weight; they add up to 1."""
        if not self._known_parts:
            asking = [claim for claim in self.claims.values() if claim.open]
            dear = sum(claim.weight for claim in asking if claim.dear)
            cheap = sum(claim.weight for claim in asking if not claim.dear)
            part = DEAR_PART * min(1.0, dear / DEAR_WEIGHT) if cheap else 1.0
            for claim in asking:
                share = part / dear if claim.dear else (1 - part) / cheap
                self._known_parts[claim.name] = claim.weight * share
            self._aside = self.share * (part if dear else 0.0)
        return self._known_parts

    def allowances(self) -> dict[str, float]:
        """Return each probe's share of the wall time: by weight, what one leaves to the others."""
        parts = self._parts()
        asking = [self.claims[name] for name in parts]
        most = {claim.name: self._most(claim) for claim in asking}
        fixed = self._fixed / self.step_seconds if self.step_seconds > 0 else 0.0
        left = self.share - fixed
        if self._start_owed() < self._start_cost():
            left -= self._start_rate()
        left = max(0.0, left)
        shares: dict[str, float] = {}
        while asking:
            total = sum(parts[claim.name] for claim in asking)
            sated = [c for c in asking if most[c.name] <= left * parts[c.name] / total + 1e-12]
            if not sated:
                return shares | {c.name: left * parts[c.name] / total for c in asking}
            for claim in sated:
                shares[claim.name] = most[claim.name]
                left -= most[claim.name]
            asking = [claim for claim in asking if claim not in sated]
        return shares

    def _most(self, claim: Claim) -> float:
        """Return the share of the wall time that a probe can use at all."""
        if math.isnan(claim.cost) or not self.step_seconds > 0:
            return math.inf
        return claim.cost / (self.step_seconds * (claim.every or claim.least))
