"""Overriding: numbers of rules that a person sets, for a project or for one run while it trains."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..store import ConfigError, Event, Store
from ..store.project import find_project, read_project
from ..store.schemas import Json
from .own_rules import active_rules
from .rule import Rule
from .settings import Own, Settings
from .thresholds import checked_key, load

_log = logging.getLogger("otoscope")


def own_numbers(rules: Sequence[Rule]) -> dict[str, Mapping[str, Json]]:
    """Return the numbers of those rules that bring theirs along."""
    return {rule.id: rule.numbers for rule in rules if rule.numbers is not None}


def project_numbers(
    rules: Sequence[Rule] | None = None, folder: Path | None = None
) -> dict[str, Json]:
    """Return what otoscope.toml sets, checked; empty where there is none.

    Raises:
        ConfigError: the file cannot be used: it names the key, its value, and what is allowed.
    """
    path = find_project(folder)
    if path is None:
        return {}
    settings, told = Settings(), read_project(path)
    settings.adopt(told, own_numbers(active_rules() if rules is None else rules))
    for why in settings.refused.values():
        raise ConfigError(f"{path}: {why}")
    return told


def project_or_defaults(rules: Sequence[Rule] | None = None) -> dict[str, Json]:
    """Return what otoscope.toml sets; a file that cannot be used is said so of and left out."""
    try:
        return project_numbers(rules)
    except ConfigError as error:
        _log.warning("the defaults of all rules hold, since %s", error)
        return {}


def set_number(
    store: Store, run: str, key: str, value: Json, *, rules: Sequence[Rule] | None = None
) -> Event:
    """Set a number of a rule for one run, from where it is judged now; None takes it back.

    Returns the event that was written: whoever judges the run obeys it, and so does a replay.

    Raises:
        ConfigError: there is no such number, or it cannot be set to that.
        UnknownRunError: there is no such run.
    """
    return set_numbers(store, run, {key: value}, rules=rules)[0]


def set_numbers(
    store: Store, run: str, wanted: Mapping[str, Json], *, rules: Sequence[Rule] | None = None
) -> list[Event]:
    """Set several numbers as `set_number` does: all of them, or none where one cannot be."""
    own: Own = own_numbers(active_rules() if rules is None else rules)
    store.home.meta(run)
    told = {**numbers_in_force(store, run, own), **wanted}
    told = {key: value for key, value in told.items() if value is not None}
    for key in wanted:
        rule, _ = checked_key(key, own)
        if wanted[key] is not None:
            load(rule, told, own.get(rule))
    return [
        request(store, run, "override", {"key": key, "value": value})
        for key, value in wanted.items()
    ]


def request(store: Store, run: str, kind: str, body: Mapping[str, Json]) -> Event:
    """Write what a person asks for (see `log.REQUESTS`), so that it counts as soon as it is read."""
    place = store.home.judgement(run).state.get("place") or {}
    attempt = int(place.get("attempt") or store.home.meta(run).attempt)
    event = Event(kind, int(place.get("step") or 0), attempt, t=time.time(), body=dict(body))
    store.home.add_event(run, event)
    return event


def numbers_in_force(store: Store, run: str, own: Own | None = None) -> dict[str, Json]:
    """Return the numbers that are not the defaults: as committed, and as they were set since.

    What a person set counts from where the run is judged next, also where no daemon has read it yet.
    `own`: numbers of a reader's own rules, None for those that are active.
    """
    kept = store.home.judgement(run).state.get("settings") or {}
    settings = Settings(
        project=dict(kept.get("project") or {}), overrides=dict(kept.get("overrides") or {})
    )
    own = own_numbers(active_rules()) if own is None else own
    for event in store.events(run):
        if event.kind == "override":
            settings.override(str(event.body.get("key")), event.body.get("value"), own)
    return settings.in_force()


def parsed(text: str) -> tuple[str, Json]:
    """Return key and value of `<rule>.<number>=<value>`.

    >>> parsed("plateau.fire=0.02"), parsed("plateau.severity = info")
    (('plateau.fire', 0.02), ('plateau.severity', 'info'))
    """
    key, sign, value = (part.strip() for part in text.partition("="))
    if not (key and sign and value):
        raise ConfigError(f"a number is set as plateau.fire=0.02, got {text!r}")
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


def normal_counts(store: Store) -> dict[str, int]:
    """Return of each rule how often a person called a finding of it normal, over all runs."""
    counts: dict[str, int] = {}
    for run, _ in store.home.run_ids():
        settings = store.home.judgement(run).state.get("settings") or {}
        for rule, count in Settings(normal=settings.get("normal") or []).normal_by_rule().items():
            counts[rule] = counts.get(rule, 0) + count
    return counts
