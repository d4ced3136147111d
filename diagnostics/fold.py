"""The fold: judging as one pure function of a state and an ordered log of frames and events.

No Redis, no clock, no torch. The state holds scalars only; windows are rebuilt from the raw
frames behind the cursor, so a restarted daemon goes on with the findings it would have had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..store import Event, Finding, Frame, Meta, Schema
from ..store.schemas import Json, dumps, plain
from .engine import Engine
from .facts import Facts
from .log import GRID, Log
from .obstacles import Obstacles
from .rule import Context, Rule, Verdict, unknown
from .rules import RULES
from .settings import ANSWERS, Settings, whole
from .thresholds import Thresholds, switched_off
from .windows import KEPT_STEPS, History, Window

VERSION = 1
KEPT_GAPS = 20


@dataclass(slots=True)
class Place:
    """Where the fold stands: the last point judged, and where the windows begin."""

    attempt: int = 0
    step: int = 0
    start: int = 0
    since: int = 0
    why_since: str = ""
    events: str = "0-0"
    points: int = 0
    missed: list[list[int]] = field(default_factory=list)
    """[attempt, first step, last step] of samples that were lost, or not kept any more."""


class Fold:
    """A run being judged. `push` takes the log in, `judge` goes as far as it is complete."""

    def __init__(
        self,
        run: str,
        meta: Meta,
        schemas: Mapping[str, Schema],
        *,
        rules: Sequence[Rule] = RULES,
    ) -> None:
        self.run, self.meta, self.schemas = run, meta, dict(schemas)
        self.rules = rules
        self.place = Place()
        self.settings = Settings(profile=meta.task)
        self.facts = Facts()
        self.obstacles = Obstacles()
        self.engine = Engine(run)
        self.memory: dict[str, dict[str, Json]] = {}
        self.history = History()
        self.log = Log(world_size=meta.world_size)
        self._thresholds: dict[str, Thresholds] = {}
        self._own = {rule.id: rule.numbers for rule in rules if rule.numbers is not None}

    # ---- state -----------------------------------------------------------------------------

    @property
    def cursor(self) -> str:
        """Where the fold has read to, as text; a later place is never the same text."""
        place = self.place
        return f"{place.attempt}:{place.step}:{place.events}"

    def state(self) -> dict[str, Json]:
        """Return everything but findings and windows, as JSON of scalars."""
        waiting = [event.to_json() for *_, event in self.log.events]
        body = {
            "version": VERSION,
            "place": {name: getattr(self.place, name) for name in Place.__slots__},
            "settings": vars(self.settings),
            "facts": self.facts.to_json(),
            "obstacles": self.obstacles.to_json(),
            "rules": self.engine.to_json(),
            "memory": self.memory,
            "waiting": waiting,
            "ranks": {
                str(number): {"world": a.world, "excluded": a.excluded, "last": a.last}
                for number, a in self.log.attempts.items()
                if number >= self.place.attempt
            },
            "late": self.log.late,
        }
        return json.loads(dumps(body))

    def restore(self, state: Mapping[str, Json], findings: Iterable[Finding]) -> None:
        """Go on from a state; the raw frames behind its place come by `rebuild`."""
        if state.get("version") != VERSION:
            return
        self.place = Place(**state["place"])
        self.settings = Settings(**state["settings"])
        self.facts = Facts.from_json(state["facts"])
        self.obstacles = Obstacles.from_json(state.get("obstacles", {}))
        self.engine = Engine.restore(self.run, state["rules"], list(findings))
        self.memory = dict(state.get("memory") or {})
        known = {rule.id for rule in self.rules}
        for finding in self.engine.findings:
            if finding.state == "firing" and finding.rule not in known:
                finding.stale = True  # a reader's own rule that is not judged by any more
        self.log = Log(world_size=self.meta.world_size, late=state["late"])
        for number, body in state["ranks"].items():
            attempt = self.log.attempt(int(number))
            attempt.world, attempt.last = body["world"], body["last"]
            attempt.excluded = {int(rank): step for rank, step in body["excluded"].items()}
        self.log.add_events(Event.from_json(body) for body in state["waiting"])
        self._thresholds.clear()

    def rebuild(self, frames: Iterable[Frame]) -> None:
        """Fill the windows from raw frames at or behind the place; others are let go."""
        past = Log(world_size=self.meta.world_size)
        place = self.place
        past.add_frames(
            (
                f
                for f in frames
                if f.attempt == place.attempt and place.step - KEPT_STEPS < f.step <= place.step
            ),
            done=(0, -1),
        )
        excluded = self.log.attempt(place.attempt).excluded
        self.history = History()
        for group in past.take(place.attempt, place.step):
            live = [f for f in group if f.step <= excluded.get(f.rank, f.step)]
            if live:
                self._learn(live)

    # ---- the log ---------------------------------------------------------------------------

    def push(self, frames: Iterable[Frame] = (), events: Iterable[Event] = ()) -> None:
        """Take in frames and events, in any portions; events in the order of their stream.

        What a person says of a finding counts at once: it changes no judgement, and a run that
        has ended has no further point at which it could count.
        """
        events = list(events)
        self.log.add_events(event for event in events if event.kind not in ANSWERS)
        answers = [event for event in events if event.kind in ANSWERS]
        for event in answers:
            self.settings.heed(event)
        if answers:
            self.settings.mark(self.engine.findings)
        self.log.add_frames(frames, done=(self.place.attempt, self.place.step))

    def judge(
        self,
        *,
        until: int | None = None,
        most: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Judge every point that is complete, at most `most`; returns how many were judged."""
        judged = 0
        while most is None or judged < most:
            point = self.log.next_point(self.place.attempt, until)
            if point is None:
                following = self.log.following(self.place.attempt)
                if following is None:
                    break
                self._begin_attempt(following)
                continue
            self._judge_point(point)
            judged += 1
            if progress is not None:
                progress(point)
        return judged

    def findings(self) -> list[Finding]:
        """Return the findings, root causes first, most severe first."""
        return self.engine.ordered()

    def coverage(self) -> tuple[list[str], dict[str, str]]:
        """Return the rules that are judged now, and of the others why they are not."""
        judged: list[str] = []
        missing: dict[str, str] = {}
        off = switched_off(self.settings.profile)
        for rule in self.rules:
            entry = self.engine.entry(rule.id)
            span = self.thresholds(rule.id).span
            if rule.id in off:
                missing[rule.id] = f"switched off in the task profile {self.settings.profile}"
            elif entry.known is not None and entry.known >= self.place.step - span:
                judged.append(rule.id)
            else:
                missing[rule.id] = entry.why or "no recent sample"
        return judged, missing

    def thresholds(self, rule: str) -> Thresholds:
        """Return a rule's numbers, with what was overridden."""
        if rule not in self._thresholds:
            self._thresholds[rule] = self.settings.thresholds(rule, self._own.get(rule))
        return self._thresholds[rule]

    def marks(self) -> dict[int, int]:
        """Return the step up to which each rank that is waited for has sent all."""
        number, begun = self.place.attempt, self.place.step
        marks = self.log.attempt(number).watermarks
        return {rank: marks.get(rank, begun) for rank in self.log.live(number)}

    def lagging(self) -> dict[int, int]:
        """Return the marks of the ranks that keep steps of others from being judged."""
        marks = self.marks()
        furthest = max(marks.values(), default=0)
        return {rank: mark for rank, mark in marks.items() if mark < furthest}

    def knows_its_schemas(self) -> bool:
        """Tell whether every waiting frame can be read."""
        waiting = {frame.schema for frame in self.log.waiting()}
        return waiting <= self.schemas.keys()

    # ---- one point -------------------------------------------------------------------------

    def _begin_attempt(self, number: int) -> None:
        self.place.attempt, self.place.step = number, 0
        frames = self.log.attempt(number).frames
        first = min(frames, default=1)
        self.place.step = self.place.start = self.place.since = first - 1
        self.place.why_since = "a new attempt began"
        self.history = History()
        self.facts.begin_attempt(first)
        self.obstacles.begin_attempt(first)
        self.engine.begin_attempt()
        self.memory = {}
        for rule in self.rules:
            self.engine.entry(rule.id)  # now: an event before the first point shall find them all

    def _judge_point(self, point: int) -> None:
        before = self.place.step
        for event in self.log.take_events(self.place.attempt, point):
            self._obey(event)
        for group in self.log.take(self.place.attempt, point):
            self._learn(group)
        self.place.step = point
        self.place.points += 1
        window = Window(self.history, point, self.place.since)
        self.facts.learn(self.history, before, window, self.thresholds("lr_too_high"))
        self.obstacles.learn(self.history, before, point)
        for rule in self.rules:
            if rule.remember is not None:
                context = self._context(rule, self.thresholds(rule.id))
                self.memory[rule.id] = plain(rule.remember(window, context))
            self._apply(rule, window)
        self.settings.mark(self.engine.findings)

    def _learn(self, group: Sequence[Frame]) -> None:
        """Take the frames of one family at one step, unless they are a part of a sum."""
        schema = self.schemas.get(group[0].schema)
        if schema is not None and group[0].family != "train":
            adds_up = any(column.ranks not in ("same", "each") for column in schema.columns)
            if adds_up and len(group) < self.log.expected(group[0].attempt, group[0].step):
                return
        self.history.add(group, self.schemas)

    def _apply(self, rule: Rule, window: Window) -> None:
        numbers, entry = self.thresholds(rule.id), self.engine.entry(rule.id)
        if rule.id in switched_off(self.settings.profile):
            return
        if entry.evaluated is not None and window.step - entry.evaluated < numbers.cadence:
            return
        sample = window.last_step(rule.family)
        waits = sample <= entry.sample and window.step - sample <= numbers.span
        if waits:
            return  # nothing new since the last evaluation, and that one is still young
        entry.sample = sample
        verdict = self._verdict(rule, window, numbers)
        self.engine.advance(rule.id, verdict, numbers, self.place.attempt, window.step)

    def _verdict(self, rule: Rule, window: Window, numbers: Thresholds) -> Verdict:
        begins = self.place.start + numbers.warm_up
        if window.step <= begins:
            return unknown(f"judged from step {begins + GRID:,} on")
        if rule.from_start and self.facts.unkept:
            return unknown(
                f"needs the run's beginning; its samples up to step {self.facts.unkept:,} are not "
                "kept any more"
            )
        if window.last_step(rule.family) <= window.step - numbers.span:
            return unknown(f"no sample of {rule.family} in the last {numbers.span:,} steps")
        return rule.judge(window, self._context(rule, numbers))

    def _context(self, rule: Rule, numbers: Thresholds) -> Context:
        return Context(
            meta=self.meta,
            facts=self.facts,
            thresholds=numbers,
            rates=self.thresholds("lr_too_high"),
            start=self.place.start,
            states=self.engine.states(),
            memory=self.memory.get(rule.id, {}),
            obstacles=self.obstacles,
        )

    # ---- events ----------------------------------------------------------------------------

    def _obey(self, event: Event) -> None:
        if event.kind == "lr" and event.attempt == self.place.attempt:
            self._restart(event.step, "the learning rate changed its course")
        elif event.kind == "gap" and event.attempt == self.place.attempt:
            self._miss(event)
        elif event.kind == "probe_off":
            self.obstacles.heed(event)
        elif event.kind == "excluded":
            self._restart(event.step, f"rank {event.body.get('rank')} left")
        elif event.kind == "checkpoint":
            self.facts.checkpointed(event)
        elif event.kind == "action":
            self._restart(event.step, f"{event.body.get('parameter')} was changed")
            numbers = {rule.id: self.thresholds(rule.id) for rule in self.rules}
            self.engine.quieten(numbers, event.step)
        elif event.kind == "profile":
            self.settings.profile = str(event.body.get("task", self.settings.profile))
        elif event.kind == "override":
            self.settings.override(str(event.body.get("key")), event.body.get("value"), self._own)
            self._thresholds.clear()

    def _miss(self, event: Event) -> None:
        """Go on behind steps whose samples are lost, or not kept any more."""
        last = whole(event.body.get("to"), event.step)
        first = whole(event.body.get("from"), last)
        self.place.missed = _joined(self.place.missed, [event.attempt, first, last])[-KEPT_GAPS:]
        if event.body.get("beginning"):
            self.facts.unkept = last
        self._restart(last, "samples were lost")

    def _restart(self, step: int, why: str) -> None:
        self.place.since, self.place.why_since = max(self.place.since, step), why
        self.engine.restart_windows(f"{why} at step {step:,}: windows begin anew")


def _joined(gaps: Sequence[list[int]], new: list[int]) -> list[list[int]]:
    """Return gaps with a further one, each [attempt, first, last]; those that touch are one.

    >>> _joined([[1, 1, 4], [1, 9, 9]], [1, 5, 7])
    [[1, 1, 7], [1, 9, 9]]
    """
    joined: list[list[int]] = []
    for gap in sorted([*gaps, new]):
        if joined and joined[-1][0] == gap[0] and gap[1] <= joined[-1][2] + 1:
            joined[-1] = [gap[0], joined[-1][1], max(joined[-1][2], gap[2])]
        else:
            joined.append(gap)
    return joined


def fold(
    state: Mapping[str, Json] | None,
    log: Iterable[Frame | Event],
    *,
    run: str,
    meta: Meta,
    schemas: Mapping[str, Schema],
    findings: Iterable[Finding] = (),
    past: Iterable[Frame] = (),
) -> tuple[dict[str, Json], list[Finding]]:
    """Return state and findings after a log, from the state and findings before it.

    `past`: the raw frames behind the state's place, from which the windows are rebuilt.
    """
    folded = Fold(run, meta, schemas)
    if state:
        folded.restore(state, findings)
        folded.rebuild(past)
    items = list(log)
    folded.push(
        [item for item in items if isinstance(item, Frame)],
        [item for item in items if isinstance(item, Event)],
    )
    folded.judge()
    return folded.state(), folded.findings()
