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
from collections.abc import Sequence

from .account import LOAN_STEPS, SPARE, Account
from .claim import DEAR_STEPS, Claim, aligned
from .shortfall import crowded, too_dear
from .trigger import COOL_DOWN

POOL = 4
"""Batches that a dear probe may look at; so many steps lie between two of them."""

EARLY_SAMPLES = 6
EARLY_WAIT = 10
EARLY_GRID = 10
"""A cheap probe's first samples are no further apart than this, where the account allows them, and
lie on a grid: what several probes need of a step is then measured once for all of them."""

RECONSIDERED = 50
"""A cheap probe asks at least so often, in steps: a slow spell must not keep it away for long."""
HURRIED, HURRIED_APART, FEWEST = 4, 5, 2
"""Samples, and steps between them, that an eager probe takes where something happened: one batch that
stands out is none of a new kind. Fewer where these are too dear, but no fewer than the last of them."""
HURRIED_SHARE = 0.2
"""They may cost so much of what the steps between two such events earn, at most; those that are promised
of what the run earns in all, where its length is known, else of what it has earned so far."""

LONGEST_WAIT = 1000
"""Steps after which a probe that the budget has no room for asks again."""


class Budget(Account):
    """Decides which probes sample in a step, from measured costs alone; it reads no clock.

    `share` is the largest part of the wall time that everything together may take, in (0, 1].

    >>> budget = Budget(0.02)
    >>> budget.claim("norm")
    >>> for step in range(1, 1001):
    ...     if budget.due(step):
    ...         budget.paid("norm", 0.001, step)
    ...     budget.stepped(0.010, 0.0)
    >>> budget.claims["norm"].samples  # 1 ms every 5 steps of 10 ms is two percent, 6 leave some to spare
    166
    """

    def __init__(self, share: float, max_steps: int | None = None) -> None:
        super().__init__(share, max_steps)
        self.dear_from = math.inf
        """Step from which a dear probe may sample; its batches are kept from shortly before."""
        self.next_step = 0
        """Step before which nothing is due."""
        self._apart = self._dear_step = 0

    def begin(self, step: int, max_steps: int | None = None) -> None:
        """Begin at a step, with the length of the run where it is known.

        What was due at the n-th step is due n steps from there. With a known length a dear probe
        may take its first sample early, as long as the rest of the run pays it back.
        """
        self.max_steps = None if max_steps is None else max(0, max_steps - step)
        self._start = self.next_step = step
        for claim in self.claims.values():
            claim.first += step
            claim.next_step = claim.first
            claim.promised = [(step + at, count) for at, count in claim.promised]
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
        eager: bool = False,
        promised: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Enter a probe: `every` fixes its interval, `least` bounds the one that is chosen.

        `aligned` lets it sample at multiples of a power of two only, so that ranks of unequal pace,
        which cannot ask each other, sample at the same steps. `guess`: steps that a dear probe's
        first sample may cost. `eager`: a cheap one that `hasten` hurries, too. `promised`: (step,
        samples) that a cheap one takes from a step of the run on, although it may be in debt.
        """
        self.catch_up()
        self.claims[name] = Claim(
            name, weight, dear, first, every, least, aligned, guess, eager=eager, next_step=first
        )
        self.claims[name].promised = [] if every is not None or aligned else list(promised)
        self._known_parts.clear()
        self.next_step = 0
        self._look_ahead()

    def off(self, name: str, why: str) -> None:
        """Take a probe out of the budget."""
        self.catch_up()
        self.claims[name].off = why
        self._known_parts.clear()
        self._look_ahead()

    def _look_ahead(self) -> None:
        dear = [claim.next_step for claim in self.claims.values() if claim.dear and claim.open]
        self.dear_from = min(dear, default=math.inf)

    def paid(self, name: str, seconds: float, step: int, *, again: bool = False) -> None:
        """Enter what a sample has cost, and set when the next is due; `again`: in the next step."""
        self.catch_up()
        claim = self.claims[name]
        claim.paid(SPARE * seconds)
        claim.hastened = False
        claim.hurried = max(0, claim.hurried - 1)
        wait = 1 if again else HURRIED_APART if claim.hurried else self.interval(name)
        free = claim.every is None
        claim.next_step = aligned(step, wait) if free and claim.aligned else step + wait
        sparse = free and 2 * wait > EARLY_GRID
        if sparse and claim.samples < EARLY_SAMPLES and not claim.dear:
            claim.next_step = -(-claim.next_step // EARLY_GRID) * EARLY_GRID
        self.next_step = 0
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
        if step < self.next_step:  # in most steps nothing is due, and this line is all that runs
            return []
        self.catch_up()
        self._keep_promises(step)
        names: list[str] = []
        for claim in self._in_turn():
            if step < claim.next_step:
                continue
            if claim.dear and claim.every is None and step < self._apart:
                claim.next_step = self._apart
                continue
            wait = 0 if claim.every is not None or claim.hurried else self._wait(claim, step)
            if wait:
                claim.next_step = aligned(step, wait) if claim.aligned else step + wait
                continue
            if not claim.dear:
                names.append(claim.name)
            elif self._dear_step < step:  # else it stays due, and its turn comes
                self._dear_step, self._apart = step, step + POOL
                names.append(claim.name)
        opened = [claim for claim in self.claims.values() if claim.open]
        waiting = [claim.next_step for claim in opened]
        waiting += [claim.promised[0][0] for claim in opened if claim.promised]
        self.next_step = max(step + 1, min(waiting, default=step + LONGEST_WAIT))
        self._look_ahead()
        return names

    def _in_turn(self) -> list[Claim]:
        """Return the probes that are on; of the dear ones first the one that has waited longest."""
        asking = [self.claims[name] for name in self.parts()]
        dear = sorted((c for c in asking if c.dear), key=lambda claim: claim.next_step)
        return [claim for claim in asking if not claim.dear] + dear

    def hasten(self, step: int) -> None:
        """Bring the next sample of each dear probe forward: something happened that is worth it.

        It may be taken before it is earned, once; a longer wait afterwards pays it back. A probe
        that is still in debt, or that has not sampled yet, does not hurry. An eager one takes some
        samples at once, where they are cheap beside what the run earns until the next such event.
        """
        self.catch_up()
        earned = self.share * COOL_DOWN * (self.step_seconds if self.step_seconds > 0 else 0.0)
        for claim in self.claims.values():
            if claim.eager and claim.every is None:
                self._hurry(claim, HURRIED, claim.cheapest, earned, step + 1)
        soon = step + POOL
        for claim in self.claims.values():
            if not (claim.dear and claim.open and claim.samples) or claim.every is not None:
                continue
            # where the length is known a sample is always one ahead of what was earned
            ahead = 0.0 if self.max_steps is None else claim.usual
            if claim.next_step > soon and claim.seconds <= self.earned(claim) + ahead:
                claim.hastened, claim.next_step = True, soon
                soon += POOL
        self.next_step = 0
        self._look_ahead()

    def _hurry(self, claim: Claim, samples: int, cost: float, earned: float, step: int) -> None:
        """Let a probe take some samples from a step on, as many of them as are cheap beside what is earned."""
        if not claim.open or not claim.samples or samples < 1:
            return
        most = int(HURRIED_SHARE * earned / cost) if cost > 0 else samples
        count = min(samples, most)
        if count >= min(samples, FEWEST):
            claim.hurried, claim.next_step = count, min(claim.next_step, step)

    def _keep_promises(self, step: int) -> None:
        """Let probes look as they promised, as far as what is left of the run pays it back.

        The fewest looks that tell anything it need not pay, where they are a small part of what it earns.
        """
        for claim in self.claims.values():
            while claim.promised and claim.promised[0][0] <= step:
                _, samples = claim.promised.pop(0)
                if claim.open and not claim.samples:  # what it costs only a first sample tells
                    claim.hurried, claim.next_step = 1, min(claim.next_step, step)
                    claim.promised.insert(0, (step + HURRIED_APART, samples - 1))
                    break
                if step - self._start <= LOAN_STEPS:  # those of the start count what was taken
                    samples -= claim.samples
                whole = max(self.elapsed, self._whole())
                payable = max(self._payable(), min(samples, FEWEST) * claim.cheapest)
                earned = min(self.share * whole, payable / HURRIED_SHARE + 1e-12)
                self._hurry(claim, samples, claim.cheapest, earned, step)

    def _payable(self) -> float:
        """Return the seconds that the run can still pay until its end; inf where that is not known."""
        if self.max_steps is None or not self.step_seconds > 0:
            return math.inf
        ahead = max(0.0, self._whole() - self.elapsed)
        free = max(0.0, self.share - self._fixed_share())
        earned = self.share * self.elapsed + free * ahead
        return max(0.0, earned + self._never_owed() - SPARE * self.spent)

    def hopeless(self, step: int) -> list[tuple[str, str]]:
        """Return (probe, why) for dear probes that this run is too short to pay for."""
        self.catch_up()
        rows: list[tuple[str, str]] = []
        if self.max_steps is None or not self.step_seconds > 0:
            return rows
        for claim in self.claims.values():
            if claim.dear and claim.open and not claim.samples and claim.every is None:
                cost = claim.guess * self.step_seconds
                part = self.nominal(claim) * self.room()
                allowed = part * self.step_seconds * self.max_steps
                if step >= claim.first and cost > allowed:
                    why = too_dear(self.share, cost, allowed, self.max_steps, self.step_seconds)
                    rows.append((claim.name, why))
        return rows

    def crowded(self) -> tuple[str, float] | None:
        """Say so, and what would do, where every step's own cost leaves the probes next to nothing."""
        self.catch_up()
        if not self.step_seconds > 0 or self._fixed_share() < 0.8 * self.share:
            return None
        return crowded(self.share, self._fixed, self.step_seconds)

    def _wait(self, claim: Claim, step: int) -> int:
        """Return the steps until a probe that is due can be paid: 0 where it can be now."""
        missing, rate = self.dear_missing(claim) if claim.dear else self.missing(claim, step)
        if missing <= 0:
            return 0
        earned = rate * self.step_seconds
        return min(LONGEST_WAIT, math.ceil(missing / earned)) if earned > 0 else LONGEST_WAIT
