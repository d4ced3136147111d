"""Outcomes: a finding whose advice was taken is followed for two windows, then marked.

`helped`: it is gone, and nothing worse came; `no effect`: it stands, or came back; `worse`: it grew,
or a critical finding came with the change. What cannot be judged by then stays open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from ..store import Finding
from ..store.schemas import Json, plain
from .changes import Change, firing, is_recommended, names
from .engine import Engine
from .inhibition import SEVERITIES
from .null_rates import gone_by_itself
from .thresholds import Thresholds

SHORTEST = 100
"""Steps that a window has at least: some rules look at three samples."""

GREW = 1.5
"""A strength of so many times that at the change is worse."""


@dataclass
class Follow:
    """A finding that is followed: since and until which step, and how strong it was at the change."""

    rule: str
    attempt: int
    since: int
    until: int
    strength: float
    severity: str
    carried: bool = False
    """Whether the finding is of the attempt before: the rule must be quiet in this one."""


class Outcomes:
    """The findings of a run that are followed, by their id."""

    def __init__(self, follows: Mapping[str, Follow] | None = None) -> None:
        self.follows = dict(follows or {})

    def to_json(self) -> dict[str, Json]:
        """Return the findings that are followed as a JSON object."""
        return {name: plain(asdict(follow)) for name, follow in self.follows.items()}

    @classmethod
    def from_json(cls, body: Mapping[str, Json]) -> Outcomes:
        """Read what `to_json` wrote."""
        return cls({name: Follow(**item) for name, item in body.items()})

    def begin(
        self, change: Change, engine: Engine, thresholds: Callable[[str], Thresholds | None]
    ) -> bool:
        """Follow the findings that had recommended a change; returns whether there is one."""
        begun = False
        for finding in engine.findings:
            # one that a change resolved may be gone before the change was seen
            stood = finding.state == "firing" or finding.last_step > change.step
            ours = finding.attempt == change.attempt and not finding.closed
            if stood and ours and is_recommended(change, finding.recommendation):
                self._follow(finding, change, engine, thresholds(finding.rule))
                begun = True
            elif ours and names(finding.recommendation, change.parameter):
                engine.outdate(finding.id)
        return begun

    def begin_attempt(
        self,
        changes: list[Change],
        rolled_back: Change,
        engine: Engine,
        thresholds: Callable[[str], Thresholds | None],
    ) -> None:
        """Follow what fired when the attempt before it ended and was answered by this one.

        Called before the engine begins anew; `rolled_back` is where the weights went back to.
        """
        self.follows = {}
        for finding in firing(engine.findings):
            advice = finding.recommendation
            taken = [change for change in changes if is_recommended(change, advice)]
            back = rolled_back.after < finding.first_step
            if back and advice is not None and advice.parameter == "rollback":
                taken = [*taken, rolled_back]
            if taken:
                self._follow(finding, taken[0], engine, thresholds(finding.rule), carried=True)

    def _follow(
        self,
        finding: Finding,
        change: Change,
        engine: Engine,
        numbers: Thresholds | None,
        *,
        carried: bool = False,
    ) -> None:
        if numbers is None:
            return
        step = max(change.step, finding.first_step) if carried else change.step
        until = step + 2 * max(numbers.window, SHORTEST) + numbers.cool_down
        strength = engine.entry(finding.rule).strength
        self.follows[finding.id] = Follow(
            finding.rule, change.attempt, change.step, until, strength, finding.severity, carried
        )
        finding.outcome = None
        finding.followed = plain(
            {
                "parameter": change.parameter,
                "from": change.before,
                "to": change.after,
                "step": change.step,
                "attempt": change.attempt,
            }
        )
        finding.gone_by_itself = gone_by_itself(finding.rule)

    def drop(self, rule: str) -> None:
        """Follow no finding of a rule any more: it is not judged."""
        self.follows = {name: item for name, item in self.follows.items() if item.rule != rule}

    def look(self, engine: Engine, step: int) -> None:
        """Mark the findings of which a point tells what became of them."""
        if not self.follows:
            return
        by_id = {finding.id: finding for finding in engine.findings}
        for name, follow in list(self.follows.items()):
            finding = by_id.get(name)
            if finding is None:
                del self.follows[name]
                continue
            finding.outcome, done = _judged(follow, finding, engine, step)
            if done:
                del self.follows[name]
                if finding.outcome != "helped":
                    engine.outdate(name)  # what it advised was done


def _judged(follow: Follow, finding: Finding, engine: Engine, step: int) -> tuple[str | None, bool]:
    """Return the outcome as far as a point tells it, and whether it is final."""
    later = [
        item
        for item in engine.findings
        if item.attempt == follow.attempt and item.first_step > follow.since
    ]
    if any(item.severity == "critical" and item.rule != follow.rule for item in later):
        return "worse", True
    again = [item for item in later if item.rule == follow.rule and item.id != finding.id]
    if again:
        return _still(follow, again[-1].severity, engine), True
    entry, over = engine.entry(follow.rule), step >= follow.until
    if follow.carried:
        calm = entry.state == "fine" and entry.known is not None and entry.known >= follow.until
        return ("helped", True) if over and calm else (None, False)
    if finding.state == "resolved":
        return "helped", over
    if over and not finding.stale:
        return _still(follow, finding.severity, engine), True
    return None, False


def _still(follow: Follow, severity: str, engine: Engine) -> str:
    graver = SEVERITIES.index(severity) < SEVERITIES.index(follow.severity)
    grew = engine.entry(follow.rule).strength > GREW * follow.strength > 0
    return "worse" if graver or grew else "no effect"
