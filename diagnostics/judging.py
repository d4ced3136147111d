"""Judging a stored run: folded anew from its start, or read as the daemon committed it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from ..store import Home, Judgement, Store, UnknownRunError
from ..store.ranks import has_ended
from ..store.schemas import Json
from .fold import Fold
from .lineage import answer_of, answered, answers, numbers_of
from .obstacles import measured_of
from .own_rules import active_rules
from .reader import Reader, lacks_a_beginning
from .rule import Rule
from .rules import RULES
from .silence import exclusion
from .verdict import run_json

_log = logging.getLogger("otoscope")


def judge(
    store: Store,
    run: str,
    *,
    until: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    rules: Sequence[Rule] | None = None,
    project: Mapping[str, Json] | None = None,
) -> dict[str, Json]:
    """Fold a recorded run from its start and return the run JSON; nothing is written.

    `answers` of the JSON tells what became of the findings of its parent, where it names one.
    Where samples of its beginning are not kept any more, but a daemon judged them, the fold goes on
    from what that committed; `until` cannot be judged then but from what is left.

    Args:
        store: where the run lies.
        run: its id.
        until: judge steps up to this one only.
        progress: called with (steps done, steps in all) from time to time.
        rules: those to judge by; None takes the catalogue's and a reader's own (`active_rules`).
        project: numbers of rules (`project_numbers`), where the run has recorded none itself.

    Raises:
        UnknownRunError: there is no such run.
        ConfigError: a rule of the reader's own cannot be used.
    """
    fold = fold_run(store.home, run, until=until, progress=progress, rules=rules, project=project)
    told = _answers(store.home, fold, rules)
    return report_of(fold) | ({"answers": told} if told else {})


def summary(store: Store, run: str) -> dict[str, Json]:
    """Return the run JSON from what the daemon committed last; raises UnknownRunError."""
    told: list[dict[str, Json]] = []
    if parent := store.home.meta(run).parent:
        with contextlib.suppress(UnknownRunError):  # recorded elsewhere, or deleted
            told = answered(store.home.judgement(parent).findings, run)
    judgement = store.home.judgement(run)
    state = judgement.state
    place = state.get("place") or {}
    whole = run_json(
        run,
        judgement.findings,
        state.get("judged", []),
        _in_order(state.get("not_judged", {})),
        judgement.obstacles,
        int(place.get("step", 0)),
        place.get("missed", []),
        measured_of(judgement.obstacles, state.get("facts") or {}),
        state.get("settings") or {},
        ended=_has_ended(state),
    )
    return whole | ({"answers": told} if told else {})


def report_of(fold: Fold) -> dict[str, Json]:
    """Return the run JSON of a fold."""
    judged, missing = fold.coverage()
    step = fold.place.step
    panel = fold.obstacles.panel(fold.settled, ended=fold.ended)
    measured = measured_of(panel, fold.facts.to_json())
    return run_json(
        fold.run,
        fold.findings(),
        judged,
        missing,
        panel,
        step,
        fold.place.missed,
        measured,
        vars(fold.settings),
        ended=fold.ended,
    )


def _in_order(not_judged: Mapping[str, str]) -> dict[str, str]:
    """Return why rules were not judged in the catalogue's order, which a store does not keep.

    The first one is named in the verdict.
    """
    places = {rule.id: place for place, rule in enumerate(RULES)}
    return dict(sorted(not_judged.items(), key=lambda item: places.get(item[0], len(places))))


def _has_ended(state: Mapping[str, Json]) -> bool:
    """Tell whether a state that was committed stands at the end of its run, as `Fold.ended` does."""
    place = state.get("place") or {}
    told = (state.get("ranks") or {}).get(str(place.get("attempt"))) or {}
    last = told.get("last")
    return last is not None and int(place.get("step", 0)) >= last


def fold_run(
    home: Home,
    run: str,
    *,
    until: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    rules: Sequence[Rule] | None = None,
    project: Mapping[str, Json] | None = None,
) -> Fold:
    """Return the fold of a whole recorded run, as far as it is kept or was judged before."""
    rules = active_rules() if rules is None else rules
    if until is None and lacks_a_beginning(home, run):
        fold = resumed(home, run, rules)[0]
    else:
        fold = Fold(run, home.meta(run), home.schemas(run), rules=rules, project=project)
    reader = Reader(home, fold)
    reader.rebuild()
    total = max(int(fold.meta.progress.get("step") or 0), 1)
    while reader.pull():
        fold.judge(until=until)
        if progress is not None:
            progress(min(fold.place.step, total), total)
    if has_ended(fold.meta):
        _go_on_without(fold, until)
    return fold


def resumed(home: Home, run: str, rules: Sequence[Rule] = RULES) -> tuple[Fold, str | None]:
    """Return the fold as a daemon committed it last, and the cursor that it stood at."""
    judgement = home.judgement(run)
    meta, schemas = home.meta(run), home.schemas(run)
    fold = Fold(run, meta, schemas, rules=rules)
    if judgement.cursor is not None:
        try:
            fold.restore(judgement.state, judgement.findings)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _log.warning("run %s is judged anew, its state cannot be read: %r", run, error)
            fold = Fold(run, meta, schemas, rules=rules)
    return fold, judgement.cursor


def _answers(home: Home, fold: Fold, rules: Sequence[Rule] | None) -> list[dict[str, Json]]:
    """Return what became of the findings of the run's parent in this one."""
    parent = fold.meta.parent
    if not parent or parent == fold.run:
        return []
    known = active_rules() if rules is None else rules
    try:
        kept = home.judgement(parent)
        if kept.cursor is None:
            other = fold_run(home, parent, rules=known)
            kept = Judgement(state=other.state(), findings=other.findings())
    except UnknownRunError:  # recorded elsewhere, or deleted
        return []
    here = Judgement(state=fold.state(), findings=fold.findings())
    found = answers(kept, fold.run, here, numbers_of(known))
    by_id = {finding.id: finding for finding in kept.findings}
    return [answer_of(by_id[event.body["finding"]], event.body) for event in found]


def _go_on_without(fold: Fold, until: int | None) -> None:
    """Judge on without the ranks that sent less than others: no more of them is to come.

    The daemon comes to the same after it has waited for them.
    """
    while behind := fold.lagging():
        number = fold.place.attempt
        fold.push(events=[exclusion(number, rank, mark, 0.0) for rank, mark in behind.items()])
        fold.judge(until=until)
