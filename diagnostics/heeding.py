"""Heeding: what events do to a fold; one whose body is nonsense changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..store import Event
from .changes import Change, is_setting, of_event
from .place import KEPT_GAPS
from .settings import whole
from .stalls import heed_stall
from .thresholds import profiles, switched_off

if TYPE_CHECKING:
    from .fold import Fold

LOST = "lost_samples"
CLOSED_STEPS = 500
"""Steps for which a rule keeps quiet whose finding a person closed."""


def obey(fold: Fold, event: Event) -> None:
    """Let an event count at the fold's place."""
    place, body = fold.place, event.body
    ours = event.attempt == place.attempt
    if event.kind == "lr" and ours:
        if body.get("from") == body.get("to"):
            return  # a schedule that has come to rest: steps are what they were
        restart(fold, event.step, "the learning rate changed its course")
        change = of_event(body, event.attempt, event.step)
        if change is not None and _follows(fold, change):
            _quieten(fold, event.step)
    elif event.kind == "gap" and ours:
        _miss(fold, event)
    elif event.kind == "probe_off":
        fold.obstacles.heed(event)
    elif event.kind == "excluded":
        restart(fold, event.step, f"rank {body.get('rank')} left")
    elif event.kind == "checkpoint":
        fold.facts.checkpointed(event)
    elif event.kind == "action":
        _act(fold, event)
    elif event.kind == "profile":
        _change_profile(fold, str(body.get("task", "")))
    elif event.kind == "override":
        fold.settings.override(str(body.get("key")), body.get("value"), fold.own_numbers)
        fold.forget_thresholds()
    elif event.kind == "project":
        numbers = body.get("numbers")
        fold.settings.adopt(numbers if isinstance(numbers, dict) else {}, fold.own_numbers)
        fold.forget_thresholds()
    elif event.kind in ("stalled", "finished") and ours:
        heed_stall(fold, event)
    elif event.kind == "note" and ours and isinstance(body.get("budget"), (int, float)):
        fold.memory[LOST] = {**fold.memory.get(LOST, {}), "budget": body["budget"]}
    elif event.kind == "closed":
        fold.outcomes.follows.pop(str(body.get("finding")), None)
        fold.engine.close(str(body.get("finding")), place.step, place.step + CLOSED_STEPS)


def restart(fold: Fold, step: int, why: str) -> None:
    """Let the windows begin anew behind a step."""
    fold.place.since, fold.place.why_since = max(fold.place.since, step), why
    fold.engine.restart_windows(f"{why} at step {step:,}: windows begin anew")


def change_step_size(fold: Fold, before: float, after: float, step: int) -> None:
    """Let a change of the batch size count: windows begin anew, what had asked for it is followed."""
    restart(fold, step, f"the batch size changed from {before:g} to {after:g}")
    for name, old in (
        ("batch_size", fold.settled.batch_size),
        ("accumulate_grad_batches", fold.settled.accumulate_grad_batches),
    ):
        if old and _follows(
            fold, Change(name, old, old * after / before, fold.place.attempt, step)
        ):
            _quieten(fold, step)


def _act(fold: Fold, event: Event) -> None:
    name = str(event.body.get("parameter"))
    # one that was read late counts where the fold stands: windows cannot have begun before
    step = max(event.step, fold.place.step) if event.attempt <= fold.place.attempt else event.step
    change = Change(name, event.body.get("from"), event.body.get("to"), fold.place.attempt, step)
    _follows(fold, change)
    if event.attempt == fold.place.attempt:
        _take_over(fold, change)
    restart(fold, step, f"{name} was changed")
    _quieten(fold, step)


def _take_over(fold: Fold, change: Change) -> None:
    """Let the attempt's settings be those that it has from now on."""
    if not is_setting(change.parameter, change.after):
        return
    attempt = fold.log.attempt(change.attempt)
    attempt.settings = {**attempt.settings, change.parameter: change.after}
    fold.settle()
    steps_grow = change.parameter in ("batch_size", "accumulate_grad_batches")
    if steps_grow and is_setting(change.parameter, change.before):
        fold.step_size.expect(change.after / change.before)  # known already: it is no second change


def _follows(fold: Fold, change: Change) -> bool:
    return fold.outcomes.begin(change, fold.engine, fold.numbers_of)


def _quieten(fold: Fold, step: int) -> None:
    fold.engine.quieten({rule.id: fold.thresholds(rule.id) for rule in fold.rules}, step)


def _change_profile(fold: Fold, task: str) -> None:
    if task not in profiles():
        return
    fold.settings.profile = task
    for rule in switched_off(task) & fold.engine.entries.keys():
        fold.outcomes.drop(rule)
        fold.engine.withdraw(rule, f"switched off in the task profile {task}", fold.place.step)


def _miss(fold: Fold, event: Event) -> None:
    """Go on behind steps whose samples are lost, or not kept any more."""
    last = whole(event.body.get("to"), event.step)
    first = whole(event.body.get("from"), last)
    fold.place.miss([event.attempt, first, last])
    if event.body.get("beginning"):
        fold.facts.unkept = last
    else:
        known = fold.memory.get(LOST, {})
        gaps = [gap for gap in known.get("gaps", []) if gap != [first, last]]
        fold.memory[LOST] = {**known, "gaps": [*gaps, [first, last]][-KEPT_GAPS:]}
    restart(fold, last, "samples were lost")
