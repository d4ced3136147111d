"""The data endpoints: the list of runs, the delta of one run, and what a person may change."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask, Response, request

from ..diagnostics.overriding import request as ask
from ..diagnostics.overriding import set_number
from ..store import ConfigError, Event, OtoscopeError, RunInfo, Store, StoreError
from ..store.keys import checked_run_id
from .cursor import LONGEST
from .delta import Query, delta
from .findings import evidence_of, numbers_of
from .replies import as_text, failure, failure_of, reply, reply_text
from .shelf import Shelf

RUNS = 5000
"""Rows of the list of runs."""

CURVES = 300
"""Rows that come with their small curve and the obstacles; older ones are seen rarely."""

ANSWERS = ("acknowledged", "snoozed", "normal", "note")
TEXT = 4000
"""Characters of a note; names are cut at 200, tags at 50."""


def add_routes(server: Flask, shelf: Shelf, prefix: str) -> None:
    """Add the endpoints below a prefix."""
    api = f"{prefix}api/runs"

    @server.errorhandler(OtoscopeError)
    def _failed(error: OtoscopeError) -> Response:
        if isinstance(error, StoreError):
            shelf.lost(error)
        return failure_of(error)

    @server.errorhandler(413)
    def _too_large(_error: Exception) -> Response:
        return failure(413, "the request is larger than a megabyte")

    @server.get(f"{prefix}healthz")
    def _healthz() -> Response:
        return reply({"status": "ok"})

    @server.get(f"{prefix}readyz")
    def _readyz() -> Response:
        shelf.store().home.ping()
        return reply({"status": "ok"})

    @server.route(f"{prefix}api/<path:rest>", methods=["GET", "POST"])
    def _nothing(rest: str) -> Response:
        return failure(404, "no such endpoint")  # else Dash answers with its page

    @server.get(api)
    def _runs() -> Response:
        rows = shelf.runs()
        now = time.time()
        listed = []
        for info in rows[:RUNS]:
            row = info.to_json()
            row["age_seconds"] = round(max(0.0, now - info.last_seen), 1)
            if len(listed) >= CURVES:
                row["spark"], row["obstacles"] = [], {}
            listed.append(row)
        return reply({"runs": listed, "left_out": max(0, len(rows) - RUNS)})

    @server.get(f"{api}/<run>/delta")
    def _delta(run: str) -> Response:
        query = Query(request.args.get("quantity", "gradient"), request.args.get("page", "run"))
        since = request.args.get("since", "")[: LONGEST + 1]
        question = (checked_run_id(run), since, query)
        return reply_text(
            shelf.answer(question, lambda: as_text(delta(shelf.store(), run, since, query)))
        )

    @server.get(f"{api}/<run>/evidence")
    def _evidence(run: str) -> Response:
        finding = request.args.get("finding", "")
        question = ("evidence", checked_run_id(run), finding)
        return reply_text(
            shelf.answer(question, lambda: as_text(evidence_of(shelf.store(), run, finding)))
        )

    @server.get(f"{api}/<run>/numbers")
    def _numbers(run: str) -> Response:
        rule = request.args.get("rule", "")
        return reply(numbers_of(shelf.store(), checked_run_id(run), rule))

    @server.post(f"{api}/<run>/events")
    def _event(run: str) -> Response:
        body, store = body_of_request(), shelf.store()
        event = write_event(store, store.run(checked_run_id(run)), body)
        shelf.forget()
        return reply({"event": event.to_json()}, 201)

    @server.post(f"{api}/<run>/labels")
    def _labels(run: str) -> Response:
        labels = labels_of(body_of_request())
        shelf.store().run(checked_run_id(run))
        shelf.store().home.set_labels(run, labels)
        shelf.forget()
        return reply({"run": shelf.store().run(run).to_json()})

    @server.post(f"{api}/<run>/delete")
    def _delete(run: str) -> Response:
        info = shelf.store().run(checked_run_id(run))
        typed = body_of_request().get("name")
        if typed != info.name:
            raise ConfigError(
                f"to delete this run, type its name: {info.name!r}; got {str(typed)[:100]!r}"
            )
        shelf.store().home.delete(run)
        shelf.forget()
        return reply({"deleted": run})


def body_of_request() -> dict[str, Any]:
    """Return the JSON object of a request; raises ConfigError where it is anything else."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # brackets within brackets, a thousand deep
        body = None
    if not isinstance(body, dict):
        raise ConfigError(
            "the request's body must be a JSON object with content type application/json"
        )
    return body


def write_event(store: Store, run: RunInfo, body: dict[str, Any]) -> Event:
    """Write what a person did as an event of a run, and return it.

    Raises ConfigError for a kind that a page may not send, or a body without what it needs.
    """
    kind = body.get("kind")
    if kind == "override":
        return set_number(store, run.id, _text(body.get("key"), "key", 200), body.get("value"))
    if kind == "closed":
        finding = _text(body.get("finding"), "finding", 500)
        return ask(store, run.id, "closed", {"finding": finding})
    event = event_of(body, run)
    store.home.add_event(run.id, event)
    return event


def event_of(body: dict[str, Any], run: RunInfo) -> Event:
    """Return the event that a person's answer becomes: what the fold obeys and replay repeats.

    Raises ConfigError for a kind that a page may not send, or a body without what it needs.
    """
    kind, step = body.get("kind"), run.step
    if kind not in ANSWERS:
        known = ", ".join((*ANSWERS, "closed", "override"))
        raise ConfigError(f"kind must be one of {known}, got {str(kind)[:40]!r}")
    if kind == "note":
        text = _text(body.get("text"), "text", TEXT)
        return Event("note", step, run.attempt, t=time.time(), body={"text": text})
    told: dict[str, Any] = {"finding": _text(body.get("finding"), "finding", 500)}
    if kind == "snoozed":
        until = body.get("until_step")
        if type(until) is not int or not step < until < 2**53:
            raise ConfigError(
                f"until_step must be a step after the present one ({step}), got {until!r}"
            )
        told["until_step"] = until
    return Event(kind, step, run.attempt, t=time.time(), body=told)


def labels_of(body: dict[str, Any]) -> dict[str, Any]:
    """Return the labels among a body's fields; null takes one back.

    >>> labels_of({"name": "Second try", "tags": ["lr", "lr"]})
    {'name': 'Second try', 'tags': ['lr']}
    """
    unknown = set(body) - {"name", "tags", "notes", "closed"}
    if unknown or not body:
        raise ConfigError(f"labels are name, tags, notes and closed, got {sorted(body)}")
    labels: dict[str, Any] = {}
    for key, value in body.items():
        if value is None:
            labels[key] = None
        elif key == "closed":
            if not isinstance(value, bool):
                raise ConfigError(f"closed must be true or false, got {value!r}")
            labels[key] = value
        elif key == "tags":
            if not isinstance(value, list) or len(value) > 50:
                raise ConfigError(
                    f"tags must be a list of at most 50 words, got {str(value)[:100]}"
                )
            labels[key] = list(dict.fromkeys(_text(tag, "a tag", 50) for tag in value))
        else:
            labels[key] = _text(value, key, 200 if key == "name" else TEXT)
    return labels


def _text(value: Any, what: str, longest: int) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > longest:
        raise ConfigError(
            f"{what} must be text of 1 to {longest} characters, got {str(value)[:100]!r}"
        )
    return value.strip()
