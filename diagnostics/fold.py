"""The fold: judging as one pure function of a state and an ordered log of frames and events.

No Redis, no clock, no torch. The state holds scalars only; windows are rebuilt from the raw
frames behind the cursor, so a restarted daemon goes on with the findings it would have had.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ..store import Event, Finding, Frame, Meta, Schema
from ..store.schemas import Json, plain
from .changes import Change, StepSize, between, with_settings
from .coverage import coverage
from .engine import Engine
from .facts import Facts
from .fold_state import behind, restore, state_of
from .heeding import change_step_size, obey
from .log import GRID, Log
from .obstacles import Obstacles
from .outcomes import Outcomes
from .place import Place
from .rule import Context, Later, Rule, Verdict, told, unknown
from .rules import RULES
from .settings import ANSWERS, Settings
from .stalls import heed_stalls
from .thresholds import Thresholds, switched_off
from .windows import History, Window

FAILED = unknown("its rule failed; the log of Otoscope says where")

NOTHING: Mapping[str, Json] = MappingProxyType({})
"""What a rule remembers that does not."""

_log = logging.getLogger("otoscope")


class Fold:
    """A run being judged. `push` takes the log in, `judge` goes as far as it is complete.

    A rule that raises is not judged, and the others go on; `strict` lets it raise, for tests.
    """

    strict = False

    def __init__(
        self,
        run: str,
        meta: Meta,
        schemas: Mapping[str, Schema],
        *,
        rules: Sequence[Rule] = RULES,
        project: Mapping[str, Json] | None = None,
    ) -> None:
        self.run, self.meta, self.schemas = run, meta, dict(schemas)
        self.settled = meta
        """What the run told of itself, as it was in the attempt that is judged."""
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
        self._numbers: tuple[str, list[Thresholds | None]] | None = None  # in a task profile
        self._contexts: dict[str, Context] = {}
        self._known: dict[str, Any] = {}
        self._failed: set[str] = set()
        self._sums: dict[str, bool] = {}
        """Of each schema, whether some column is a sum over the ranks."""
        self.own_numbers = {rule.id: rule.numbers for rule in rules if rule.numbers is not None}
        self.outcomes = Outcomes()
        self.step_size = StepSize()
        self.stamps: list[Event] = []
        """`counted` events to commit: of requests that were read late, where they counted."""
        if project:
            self.settings.adopt(project, self.own_numbers)

    # ---- state -----------------------------------------------------------------------------

    @property
    def cursor(self) -> str:
        """Where the fold has read to, as text; a later place is never the same text."""
        place = self.place
        return f"{place.attempt}:{place.step}:{place.events}"

    def state(self) -> dict[str, Json]:
        """Return everything but findings and windows, as JSON of scalars."""
        return state_of(self)

    def restore(self, state: Mapping[str, Json], findings: Iterable[Finding]) -> None:
        """Go on from a state; the raw frames behind its place come by `rebuild`."""
        restore(self, state, findings)

    def rebuild(self, frames: Iterable[Frame]) -> None:
        """Fill the windows from raw frames at or behind the place; others are let go."""
        self.history = History()
        for group in behind(self, frames):
            self._learn(group)

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
        self._heed_requests()
        while most is None or judged < most:
            point = self.log.next_point(self.place.attempt, until)
            if point is None:
                following = self.log.following(self.place.attempt)
                if following is None:
                    heed_stalls(self, until)
                    break
                self._begin_attempt(following)
                continue
            self._judge_point(point)
            self._heed_requests()
            judged += 1
            if progress is not None:
                progress(point)
        return judged

    def judge_now(self, name: str, step: int) -> None:
        """Judge one rule between two points: a clock has decided something at a step."""
        for rule, numbers in zip(self.rules, self._in_force(), strict=True):
            if rule.id == name and numbers is not None:
                window = Window(self.history, self.place.step, self.place.since)
                verdict = rule.judge(window, self._context(rule, numbers))
                self.engine.advance(rule.id, verdict, numbers, self.place.attempt, step)
                self.settings.mark(self.engine.findings)

    def findings(self) -> list[Finding]:
        """Return the findings, root causes first, most severe first."""
        return self.engine.ordered()

    @property
    def ended(self) -> bool:
        """Whether the attempt that is judged is over, and was judged to its end."""
        last = self.log.attempt(self.place.attempt).last
        return last is not None and self.place.step >= last

    def coverage(self) -> tuple[list[str], dict[str, str]]:
        """Return the rules that are judged now, and why others, or parts of some, are not."""
        return coverage(self)

    def thresholds(self, rule: str) -> Thresholds:
        """Return a rule's numbers, with what was overridden."""
        if rule not in self._thresholds:
            self._thresholds[rule] = self.settings.thresholds(rule, self.own_numbers.get(rule))
        return self._thresholds[rule]

    def numbers_of(self, rule: str) -> Thresholds | None:
        """Return a rule's numbers; None of one that is not judged by any more."""
        return self.thresholds(rule) if any(rule == item.id for item in self.rules) else None

    def forget_thresholds(self) -> None:
        """Read every rule's numbers anew: some were set."""
        self._thresholds.clear()
        self._contexts.clear()
        self._numbers = None

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
        earlier = self.log.attempt(self.place.attempt).settings
        frames = self.log.attempt(number).frames
        first = min(frames, default=1)
        settings = self.log.attempt(number).settings
        if self.place.attempt:
            rates = Window(self.history, self.place.step).samples("train", "lr").finite.values
            ended = float(rates[-1]) if len(rates) else None
            changes = between(earlier, settings, number, first - 1, ended)
            back = Change("rollback", self.place.step, first - 1, number, first - 1)
            self.outcomes.begin_attempt(changes, back, self.engine, self.numbers_of)
        self.place.attempt = number
        self.place.step = self.place.start = self.place.since = first - 1
        self.place.why_since = "a new attempt began"
        self.settle()
        self.history = History()
        self.facts.begin_attempt(first)
        self.obstacles.begin_attempt(first)
        self.engine.begin_attempt()
        self.memory, self.step_size = {}, StepSize()
        self._contexts.clear()
        for rule in self.rules:
            self.engine.entry(rule.id)  # now: an event before the first point shall find them all

    def settle(self) -> None:
        """Take the attempt's own settings over those that the run's meta holds, its latest ones."""
        settings = self.log.attempt(self.place.attempt).settings
        self.settled, self._known = with_settings(self.meta, settings), {}

    def _heed_requests(self) -> None:
        """Let what people asked for count that is due behind the place; stamp what came late."""
        place = self.place
        if not place.attempt:
            return
        for event in self.log.take_requests(place.attempt, place.step):
            if self.log.is_late(event, place.attempt, place.step):
                self.stamps.append(
                    Event(
                        "counted",
                        place.step,
                        place.attempt,
                        body={"event": event.id},
                        id=f"counted-{event.id}",
                    )
                )
            obey(self, event)
            self.settings.mark(self.engine.findings)

    def _judge_point(self, point: int) -> None:
        before = self.place.step
        for event in self.log.take_events(self.place.attempt, point):
            obey(self, event)
        for group in self.log.take(self.place.attempt, point):
            self._learn(group)
        self.place.step = point
        self.place.points += 1
        self._learn_step_size(before, point)
        window = Window(self.history, point, self.place.since)
        self.facts.learn(self.history, before, window, self.thresholds("lr_too_high"))
        self.obstacles.learn(self.history, before, point)
        for rule, numbers in zip(self.rules, self._in_force(), strict=True):
            if rule.remember is not None:
                context = self._context(rule, self.thresholds(rule.id))
                memory = context.memory
                kept = self._guarded(rule, rule.remember, window, context, memory)
                # to compare is dear where a rule remembers something of each layer
                if kept is not memory and kept != memory:
                    self.memory[rule.id] = plain(kept)
            if numbers is not None:
                self._apply(rule, window, numbers)
        self.outcomes.look(self.engine, point)
        self.settings.mark(self.engine.findings)

    def _learn_step_size(self, before: int, point: int) -> None:
        samples = self.history.column("train", "samples", before, point).finite
        change = self.step_size.learn(samples.values, before, samples.median)
        if change is not None:
            change_step_size(self, *change)

    def _learn(self, group: Sequence[Frame]) -> None:
        """Take the frames of one family at one step, unless they are a part of a sum."""
        schema = self.schemas.get(group[0].schema)
        if schema is not None and group[0].family != "train":
            if schema.hash not in self._sums:
                ways = {column.ranks for column in schema.columns}
                self._sums[schema.hash] = not ways <= {"same", "each"}
            if self._sums[schema.hash] and len(group) < self.log.expected(
                group[0].attempt, group[0].step
            ):
                return
        self.history.add(group, self.schemas)

    def _in_force(self) -> list[Thresholds | None]:
        """Return each rule's numbers, None of a rule that is switched off; a point changes none of it."""
        profile = self.settings.profile
        if self._numbers is None or self._numbers[0] != profile:
            off = switched_off(profile)
            found = {rule.id: self.thresholds(rule.id) for rule in self.rules}
            off |= {name for name, numbers in found.items() if numbers.severity == "off"}
            self._numbers = profile, [None if r.id in off else found[r.id] for r in self.rules]
        return self._numbers[1]

    def _apply(self, rule: Rule, window: Window, numbers: Thresholds) -> None:
        entry = self.engine.entry(rule.id)
        if entry.evaluated is not None and window.step - entry.evaluated < numbers.cadence:
            return
        sample = window.last_step(rule.family)
        waits = sample <= entry.sample and window.step - sample <= numbers.span
        begins = self.place.start + numbers.warm_up
        never = sample < 0 and rule.numbers is None  # then the catalogue's own can say why
        if waits and not (never and entry.lacks_a_reason(begins, window.step)):
            return  # nothing new since the last evaluation, and that one is still young
        if window.step > begins:
            entry.sample = sample  # else the first look behind the warm-up still finds it new
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
        context = self._context(rule, numbers)
        verdict = self._guarded(rule, rule.judge, window, context, FAILED)
        case = verdict.case
        if isinstance(case, Later) and self.engine.wants(rule.id, case):
            made = self._guarded(rule, lambda *_: told(case), window, context, None)
            return FAILED if made is None else replace(verdict, case=made)
        return verdict

    def _guarded(
        self, rule: Rule, function: Any, window: Window, context: Context, otherwise: Any
    ) -> Any:
        try:
            return function(window, context)
        except Exception:  # the guard at the border: one rule must not stop the others
            if self.strict:
                raise
            if rule.id not in self._failed:
                _log.exception("rule %s failed at step %d of %s", rule.id, window.step, self.run)
            self._failed.add(rule.id)
            return otherwise

    def _context(self, rule: Rule, numbers: Thresholds) -> Context:
        """Return what a rule is told besides its window; the same one until some of it is another."""
        kept, memory = self._contexts.get(rule.id), self.memory.get(rule.id, NOTHING)
        if kept is None or kept.memory is not memory or kept.meta is not self.settled:
            kept = self._contexts[rule.id] = Context(
                meta=self.settled,
                facts=self.facts,
                thresholds=numbers,
                rates=self.thresholds("lr_too_high"),
                start=self.place.start,
                states=self.engine.states(),
                memory=memory,
                obstacles=self.obstacles,
                known=self._known,
            )
        return kept


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
