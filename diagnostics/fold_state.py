"""The state of a fold as JSON of scalars, and a fold that goes on from one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ..store import Event, Finding, Frame
from ..store.schemas import Json, plain
from .changes import StepSize
from .engine import Engine
from .facts import Facts
from .log import Log
from .obstacles import Obstacles
from .outcomes import Outcomes
from .place import Place
from .settings import Settings
from .windows import KEPT_STEPS

if TYPE_CHECKING:
    from .fold import Fold

VERSION = 1


def state_of(fold: Fold) -> dict[str, Json]:
    """Return everything but findings and windows, as JSON of scalars."""
    log, place = fold.log, fold.place
    waiting = sorted([*log.events, *log.requests], key=lambda item: item[2])
    names = {event.id for *_, event in waiting}
    body = {
        "version": VERSION,
        "place": {name: getattr(place, name) for name in Place.__slots__},
        "settings": vars(fold.settings),
        "facts": fold.facts.to_json(),
        "obstacles": fold.obstacles.to_json(),
        "rules": fold.engine.to_json(),
        "memory": fold.memory,
        "outcomes": fold.outcomes.to_json(),
        "step_size": vars(fold.step_size),
        "waiting": [event.to_json() for *_, event in waiting],
        "counted": {name: list(at) for name, at in log.counted.items() if name in names},
        "ranks": {
            str(number): {
                "world": a.world,
                "excluded": a.excluded,
                "last": a.last,
                "settings": a.settings,
            }
            for number, a in log.attempts.items()
            if number >= place.attempt
        },
        "late": log.late,
    }
    return plain(body)


def restore(fold: Fold, state: Mapping[str, Json], findings: Iterable[Finding]) -> None:
    """Let a fold go on from a state; the raw frames behind its place come by `rebuild`."""
    if state.get("version") != VERSION:
        return
    fold.place = Place(**state["place"])
    fold.settings = Settings(**state["settings"])
    fold.facts = Facts.from_json(state["facts"])
    fold.obstacles = Obstacles.from_json(state.get("obstacles", {}))
    fold.engine = Engine.restore(fold.run, state["rules"], list(findings))
    fold.memory = dict(state.get("memory") or {})
    fold.outcomes = Outcomes.from_json(state.get("outcomes") or {})
    fold.step_size = StepSize(**(state.get("step_size") or {}))
    known = {rule.id for rule in fold.rules}
    for finding in fold.engine.findings:
        if finding.state == "firing" and finding.rule not in known:
            finding.stale = True  # a reader's own rule that is not judged by any more
    fold.log = Log(world_size=fold.meta.world_size, late=state["late"])
    for number, body in state["ranks"].items():
        attempt = fold.log.attempt(int(number))
        attempt.world, attempt.last = body["world"], body["last"]
        attempt.excluded = {int(rank): step for rank, step in body["excluded"].items()}
        attempt.settings = dict(body.get("settings") or {})
    counted = state.get("counted") or {}
    fold.log.counted = {name: (int(at[0]), int(at[1])) for name, at in counted.items()}
    settings = {n: a.settings for n, a in fold.log.attempts.items()}
    fold.log.add_events(Event.from_json(body) for body in state["waiting"])
    for number, told in settings.items():
        fold.log.attempt(number).settings = told  # `started` may wait beside what it told
    fold.settle()
    fold.forget_thresholds()


def behind(fold: Fold, frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Yield those of the frames that windows reach at a fold's place, in the order of judging."""
    place, past = fold.place, Log(world_size=fold.meta.world_size)
    past.add_frames(
        (
            f
            for f in frames
            if f.attempt == place.attempt and place.step - KEPT_STEPS < f.step <= place.step
        ),
        done=(0, -1),
    )
    excluded = fold.log.attempt(place.attempt).excluded
    for group in past.take(place.attempt, place.step):
        live = [f for f in group if f.step <= excluded.get(f.rank, f.step)]
        if live:
            yield live
