"""Lineage: what becomes of a run's findings in a later one that names it as its parent.

A fold sees one run. So whoever has judged both compares them, and writes what came of it into the
log of the parent, as an event of kind `outcome`: a replay of the parent finds the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

from ..store import Event, Finding, Home, Judgement, Meta, Recommendation, UnknownRunError
from ..store.schemas import Json, plain
from .changes import Change, between, is_recommended
from .inhibition import SEVERITIES
from .outcomes import SHORTEST
from .rule import Rule
from .rules import RULES
from .thresholds import Thresholds, load

KIND = "outcome"


class Lineage:
    """The runs of a home that answer others: `look` once one of them was judged further."""

    def __init__(self, home: Home, rules: Sequence[Rule] = RULES) -> None:
        self.home = home
        self._numbers = numbers_of(rules)
        self._announced: set[tuple[str, str]] = set()
        self._parents: dict[str, str | None] = {}
        """Of each run that was looked at, the one that it names: what it told may have come first."""
        self._sought: set[str] = set()

    def look(self, run: str, meta: Meta, now: float, heirs: Iterable[str] = ()) -> int:
        """Write into a parent's log what is known now, once; returns how many outcomes that were.

        `heirs`: the runs that have told `run` that they answer it, whichever daemon judged them.
        """
        told = 0
        self._parents[run] = meta.parent
        if meta.parent and meta.parent != run:
            self._announce(meta.parent, run, now)
            told = self._tell(meta.parent, run, now)
        # the second of three is a child and a parent
        known = {*heirs, *self._came_before(run, now)} - {run}
        return told + sum(self._tell(run, heir, now) for heir in sorted(known))

    def _came_before(self, run: str, now: float) -> list[str]:
        """Tell a run, once, of those that name it and were taken in before it, and return these."""
        if run in self._sought:
            return []
        self._sought.add(run)
        here = [name for name, _ in self.home.run_ids() if name != run]
        for name in here:
            if name not in self._parents:
                with contextlib.suppress(UnknownRunError):  # deleted a moment ago
                    self._parents[name] = self.home.meta(name).parent
        heirs = [name for name in here if self._parents.get(name) == run]
        for heir in heirs:
            self._announce(run, heir, now)
        return heirs

    def _announce(self, parent: str, child: str, now: float) -> None:
        """Tell a parent of its child: it may be judged later than that, and by another daemon."""
        if (parent, child) in self._announced:
            return
        name = f"heir-{child}"
        try:
            self.home.meta(parent)  # an event would make a run of what is none
            if all(event.id != name for _, event in self.home.events(parent)):
                body = {"run": child}
                self.home.add_event(parent, Event("heir", 0, 1, 0, now, body, name))
        except UnknownRunError:  # recorded elsewhere, deleted, or not taken in yet
            return
        self._announced.add((parent, child))

    def _tell(self, parent: str, child: str, now: float) -> int:
        try:
            kept, judged = self.home.judgement(parent), self.home.judgement(child)
            found = list(answers(kept, child, judged, self._numbers, now))
            told = {event.id for _, event in self.home.events(parent)} if found else set()
        except UnknownRunError:  # recorded elsewhere, or deleted
            return 0
        new = [event for event in found if event.id not in told]
        for event in new:
            self.home.add_event(parent, event)
        return len(new)


def numbers_of(rules: Iterable[Rule]) -> dict[str, Thresholds]:
    """Return the numbers of rules, by their id."""
    return {rule.id: load(rule.id, None, rule.numbers) for rule in rules}


def answers(
    parent: Judgement,
    child: str,
    judged: Judgement,
    numbers: Mapping[str, Thresholds],
    now: float = 0.0,
) -> Iterable[Event]:
    """Yield an `outcome` event for each finding of a parent whose advice a later run follows.

    Args:
        parent: how the earlier run was judged; findings that it ended with are followed.
        child: id of the later run.
        judged: how that was judged so far.
        numbers: those of each rule.
        now: epoch s of the events.
    """
    before, after = _settings(parent.state), _settings(judged.state)
    place, here = parent.state.get("place") or {}, judged.state.get("place") or {}
    if not after or not here:
        return
    grave = {item.rule for item in parent.findings if item.severity == "critical"}
    for finding in parent.findings:
        rule = numbers.get(finding.rule)
        change = _taken(finding, before, after, here)
        if finding.state != "firing" or finding.closed or rule is None or change is None:
            continue
        outcome = _outcome(finding, int(place.get("step", 0)), judged, rule, grave)
        body = {
            "finding": finding.id,
            "outcome": outcome,
            "run": child,
            "parameter": change.parameter,
            "from": change.before,
            "to": change.after,
            "step": change.step,
            "attempt": change.attempt,
        }
        name = f"{KIND}-{child}-{finding.id}-{(outcome or 'open').replace(' ', '-')}"
        at = int(place.get("step", 0)), int(place.get("attempt", 1))
        yield Event(KIND, *at, 0, now, plain(body), name)


def _settings(state: Mapping[str, Json]) -> dict[str, Json]:
    """Return what the attempt that a fold's state stands in has told of its settings."""
    number = str((state.get("place") or {}).get("attempt", 1))
    return dict(((state.get("ranks") or {}).get(number) or {}).get("settings") or {})


def _taken(
    finding: Finding,
    before: Mapping[str, Json],
    after: Mapping[str, Json],
    here: Mapping[str, Json],
) -> Change | None:
    """Return the setting of the later run that goes where a finding's advice pointed, if any does."""
    advice = finding.recommendation
    if advice is None:
        return None
    start, number = int(here.get("start", 0)), int(here.get("attempt", 1))
    # a schedule may have lowered the rate since: what counts is the one that was found too high
    rate = advice.current if advice.parameter == "lr" else None
    ended = float(rate) if isinstance(rate, (int, float)) else None
    changes = between(before, after, number, start, ended)
    shown = next((change for change in changes if is_recommended(change, advice)), None)
    return shown or _applied(advice, after.get("applied"), number, start)


def _applied(advice: Recommendation, told: Json, attempt: int, step: int) -> Change | None:
    """Return what a script says to have applied of the advice, unedited, where it says so.

    Settings do not show an activation, or how weights were drawn.
    """
    applied = [item for item in told if isinstance(item, Mapping)] if isinstance(told, list) else []
    first = {"parameter": advice.parameter, "current": advice.current, "proposed": advice.proposed}
    for part in (first, *advice.alternatives, *advice.also):
        name, proposed = part.get("parameter"), plain(part.get("proposed"))
        for item in applied:
            if name == item.get("parameter") and proposed == item.get("proposed"):
                return Change(str(name), part.get("current"), proposed, attempt, step)
    return None


def _outcome(
    finding: Finding,
    reached: int,
    judged: Judgement,
    numbers: Thresholds,
    grave: set[str],
) -> str | None:
    """Return what became of a finding by the step up to which a later run was judged.

    `reached`: how far the earlier run came; `grave`: its rules with critical findings.
    """
    place = judged.state["place"]
    start, here = int(place["start"]), int(place["step"])
    begun = max(start, finding.first_step)
    until = begun + 2 * max(numbers.window, SHORTEST) + numbers.cool_down
    if start < finding.first_step:  # both went through the same steps
        until = min(until, max(reached, begun))
    later = [
        item
        for item in judged.findings
        if item.attempt == place["attempt"] and start < item.first_step <= until
    ]
    others = {item.rule for item in later if item.severity == "critical"} - {finding.rule}
    if others - grave:
        return "worse"
    again = [item for item in later if item.rule == finding.rule]
    if again:
        graver = SEVERITIES.index(again[-1].severity) < SEVERITIES.index(finding.severity)
        return "worse" if graver else "no effect"
    entry = (judged.state.get("rules") or {}).get(finding.rule) or {}
    known = entry.get("known")
    fresh = known is not None and known >= max(begun, until - numbers.span)
    return "helped" if here >= until and fresh and entry["state"] == "fine" else None


def answered(findings: Iterable[Finding], child: str) -> list[dict[str, Json]]:
    """Return which of a parent's findings a run answers, and what became of them, as JSON."""
    return [
        answer_of(finding, {**finding.followed, "outcome": finding.outcome})
        for finding in findings
        if finding.followed is not None and finding.followed.get("run") == child
    ]


def answer_of(finding: Finding, told: Mapping[str, Json]) -> dict[str, Json]:
    """Return a finding of a parent with what was changed for it, and what came of that, as JSON."""
    change = {name: told.get(name) for name in ("parameter", "from", "to", "outcome")}
    return {"finding": finding.id, "run": finding.run, "title": finding.title, **change}
