"""The account: what everything here has earned and spent, in seconds of wall time."""

from __future__ import annotations

import math

from .claim import Claim

LOAN_SECONDS = 0.025
LOAN_STEPS = 60
"""So much may be taken on credit in the first steps: a run shall have a beginning, on a loaded machine
too. Then nothing is sampled until it is paid back."""

DEAR_PART = 4 / 9
DEAR_WEIGHT = 4.0
"""All dear probes together get at most this part of the budget, those that weigh less than this
together less of it: more of them shall not starve the measuring of layers."""

SPARE = 1.1
"""A sample, and what every step costs, are booked at so many times what they cost. A run's own clock is
right to some tenths of what is allowed, and its end is paid by nobody: so the whole stays below what was
stated, not at it."""

SHORT_SECONDS = 2.0
"""A run that is over sooner need not pay the credit back."""
FADING_SECONDS = 1.0
"""Over so many more seconds, what is promised may use less and less of it."""
START_SHARE = 0.1
"""Part of the budget that pays back what the start has cost, where the run's length is not known."""


class Account:
    """The half of a budget that knows amounts: credit, debts, what each probe is allowed."""

    def __init__(self, share: float, max_steps: int | None = None) -> None:
        self.share = share
        self.max_steps = max_steps
        self.claims: dict[str, Claim] = {}
        self.step_seconds = math.nan
        self.elapsed = 0.0
        self.fixed_seconds = 0.0
        self.start_seconds = 0.0
        """What it took to hook into the model and to begin, once."""
        self._ended: list[tuple[float, float]] = []
        self._fixed = math.nan
        self._start = 0
        self._fastest = math.inf
        self._known_parts: dict[str, float] = {}
        self._roomy = 0.0
        """Seconds so far, each as much as `room` was then: a rate that changes later changes nothing of
        what was earned."""

    @property
    def spent(self) -> float:
        """Seconds that everything has cost so far."""
        self.catch_up()
        sampled = sum(claim.seconds for claim in self.claims.values())
        return self.start_seconds + self.fixed_seconds + sampled / SPARE

    @property
    def overhead(self) -> float:
        """Share of the time so far that was ours."""
        spent = self.spent
        return spent / self.elapsed if self.elapsed > 0 else 0.0

    def ended(self, seconds: float, fixed: float) -> None:
        """Take note of a step, for `catch_up` to enter; most steps change nothing that is asked for.

        Entered together, steps cost a third: between two matrix products the caches hold none of it.
        """
        self._ended.append((seconds, fixed))

    def catch_up(self) -> None:
        """Enter the steps that were only noted, in their order."""
        if self._ended:
            ended, self._ended = self._ended, []
            for seconds, fixed in ended:
                self.stepped(seconds, fixed)

    def stepped(self, seconds: float, fixed: float) -> None:
        """Enter a step: its wall time, ours included, and what every step costs of our own.

        A time slice that another process took is no cost of ours: 8 ms against 30 µs of work, on
        a loaded machine. So a step counts at most twice what is usual.
        """
        self.elapsed += seconds
        self._fastest = min(self._fastest, seconds)
        self._roomy += seconds * self.room()
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
        self.claims[name].seconds += SPARE * seconds

    def missing(self, claim: Claim, step: int) -> tuple[float, float]:
        """Return the seconds that a cheap probe lacks for a sample, and the share that is earned."""
        dear = [other for other in self.claims.values() if other.dear]
        nominal, room = sum(self.nominal(other) for other in dear), self.room()
        set_aside = nominal * room
        others = [other for other in self.claims.values() if not (other.dear or other.once)]
        cheap = sum(other.seconds for other in others)
        cost = 0.0 if math.isnan(claim.cost) else claim.cost
        loan = self._loan(self.share - set_aside, step - self._start)
        fixed = SPARE * self.fixed_seconds
        wanted = fixed + cheap + cost + self._overdrawn(dear, set_aside) + self._start_owed()
        earned = self.share * self.elapsed - nominal * self._roomy
        return wanted - earned - loan, (self.share - nominal) * room

    def _loan(self, share: float, done: int) -> float:
        """Return the seconds that may be taken on credit now: what the rest of the run pays back."""
        if done > LOAN_STEPS:
            return 0.0
        # the first steps are slow: how long the run takes is told by the fastest so far
        whole = 0.0 if self.max_steps is None else self._fastest * self.max_steps
        if whole < SHORT_SECONDS or done <= 5:
            return LOAN_SECONDS
        ahead = max(0.0, whole - self.elapsed)
        left = share - self._fixed_share()
        return min(LOAN_SECONDS, max(0.0, ahead * left))

    def _never_owed(self) -> float:
        """Return the seconds of the credit that a run of this length need not pay back."""
        whole = self._whole()
        if not whole > 0:
            return 0.0
        return LOAN_SECONDS * min(1.0, max(0.0, 1 - (whole - SHORT_SECONDS) / FADING_SECONDS))

    def _start_owed(self) -> float:
        """Return what of the start is to be paid by now: bit by bit, for it must not cost samples."""
        return min(self._start_cost(), self._start_rate() * self.elapsed)

    def _start_cost(self) -> float:
        """Return what the start has cost in all: hooking in, and what is measured once."""
        once = [claim.seconds for claim in self.claims.values() if claim.once and not claim.dear]
        return SPARE * self.start_seconds + sum(once)

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

    def dear_missing(self, claim: Claim) -> tuple[float, float]:
        """Return the seconds that a dear probe lacks, and the share that it earns.

        Where the length of the run is known its first sample is paid by all of it.
        """
        share = self.nominal(claim) * self.room()
        if not self.step_seconds > 0:
            return math.inf, share
        cost = claim.guess * self.step_seconds if math.isnan(claim.cost) else claim.usual
        earned = self.earned(claim) + (cost if claim.hastened else 0.0)
        if self.max_steps is not None:
            whole = share * self._whole()
            earned = whole if claim.samples == 0 else min(earned + cost, whole)
        return claim.seconds + cost - earned, share

    def earned(self, claim: Claim) -> float:
        """Return the seconds that a dear probe has earned by now."""
        return self.nominal(claim) * self._roomy

    def room(self) -> float:
        """Return what following each step leaves of the budget, as a share of it: all probes bear it alike."""
        if not self.step_seconds > 0 or not self.share > 0:
            return 1.0
        return max(0.0, 1 - self._fixed_share() / self.share)

    def _fixed_share(self) -> float:
        """Return the share of the wall time that every step costs, with what is kept to spare."""
        return SPARE * self._fixed / self.step_seconds if self.step_seconds > 0 else 0.0

    def nominal(self, claim: Claim) -> float:
        """Return a probe's part of the budget by weight alone; 0 where it is off."""
        return self.share * self.parts().get(claim.name, 0.0)

    def parts(self) -> dict[str, float]:
        """Return the part of each probe that is on, by weight; they add up to 1."""
        if not self._known_parts:
            asking = [claim for claim in self.claims.values() if claim.open]
            dear = sum(claim.weight for claim in asking if claim.dear)
            cheap = sum(claim.weight for claim in asking if not claim.dear)
            part = DEAR_PART * min(1.0, dear / DEAR_WEIGHT) if cheap else 1.0
            for claim in asking:
                share = part / dear if claim.dear else (1 - part) / cheap
                self._known_parts[claim.name] = claim.weight * share
        return self._known_parts

    def allowances(self) -> dict[str, float]:
        """Return each probe's share of the wall time: by weight, what one leaves to the others."""
        parts = self.parts()
        asking = [self.claims[name] for name in parts]
        most = {claim.name: self._most(claim) for claim in asking}
        left = self.share - self._fixed_share()
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
