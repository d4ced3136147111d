"""The verdict at the end of a fit: three lines, judged in this process by the daemon's own fold."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..store import ConfigError, Home, Store, connect
from ..store.places import read_address
from ..store.recording import RecordingSink
from ..store.recording_sink import read_json

if TYPE_CHECKING:
    from .recorder import Recorder

OTHERS_SECONDS = 2.0
"""How long the other ranks are waited for; one that was killed never ends."""

LONGEST = 20_000
"""Steps up to which a run is judged again here; beyond, the daemon's own summary is printed."""


def print_verdict(recorder: Recorder) -> None:
    """Judge what was recorded and print state and action, what was judged, where to look."""
    for line in verdict_of(recorder):
        print(line)


def verdict_of(recorder: Recorder) -> list[str]:
    """Return the three lines; empty where nothing was recorded that could be judged."""
    from ..diagnostics import active_rules, judge, summary, verdict_lines
    from ..diagnostics.rules import RULES

    if recorder.steps == 0:
        return []
    if recorder.sender.spooled_frames and recorder.sender.sent_frames:
        return _of_a_torn_run(recorder)
    _wait_for_other_ranks(recorder)
    store, where = _store(recorder)
    told: list[str] = []
    rules = None
    try:
        try:
            rules = active_rules()
        except ConfigError as error:
            told.append(f"Your own rules were left out: {error}")
        if recorder.steps <= LONGEST:
            judged = judge(store, recorder.run_id, rules=rules or RULES)
        else:
            judged = summary(store, recorder.run_id)
        return [*verdict_lines(judged, where=where, overhead=recorder.overhead), *told]
    finally:
        store.close()


def _wait_for_other_ranks(recorder: Recorder) -> None:
    """Give the other ranks a moment to write their last samples: all end at the same time."""
    end = time.monotonic() + OTHERS_SECONDS
    while recorder.world_size > len(_left(recorder)) and time.monotonic() < end:
        time.sleep(0.05)


def _left(recorder: Recorder) -> set[str]:
    """Return the ranks that have told of their end."""
    sink = recorder.sender.sink
    if recorder.world_size > 1 and hasattr(sink, "meta"):
        return set(_as_home(sink).meta(recorder.run_id).left)
    told = {str(recorder.rank)}
    for path in recorder.directory.glob("rank-*/meta.json"):
        with contextlib.suppress(OSError, ValueError):
            told |= set(read_json(path).get("left", {}))
    return told


def _of_a_torn_run(recorder: Recorder) -> list[str]:
    """Return what to say where the server has the run's first part and the disk the rest.

    Judged alone, the rest has no beginning to be held against: a healthy loss of 0.005 with a
    ripple of 0.001 was called a fault.
    """
    return [
        "Not judged: the server went away, and what was recorded since waits on this disk.",
        f"`otoscope up` takes it in from {os.path.relpath(recorder.directory, Path.cwd())}, "
        "and the whole run is judged.",
        f"More: otoscope show {recorder.run_id}",
    ]


def _store(recorder: Recorder) -> tuple[Store, str]:
    sink = recorder.sender.sink
    if sink is None or isinstance(sink, RecordingSink) or recorder.sender.spooled_frames:
        shown = os.path.relpath(recorder.directory, Path.cwd())
        return connect(recorder.directory), f"otoscope report {shown}"
    address = read_address()
    if address is not None and address.dashboard and recorder.options.url in (None, address.url):
        where = f"{address.dashboard.rstrip('/')}/run/{recorder.run_id}"
    else:
        where = f"otoscope show {recorder.run_id}"
    if hasattr(sink, "judgement"):
        return Store(_as_home(sink)), where
    return connect(recorder.options.url), where


def _as_home(sink: object) -> Home:
    return sink  # type: ignore[return-value]  # RedisHome and MemoryHome are homes
