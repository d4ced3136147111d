"""The verdict at the end of a fit: three lines, judged in this process by the daemon's own fold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..store import Home, Store, connect
from ..store.places import read_address
from ..store.recording import RecordingSink

if TYPE_CHECKING:
    from .recorder import Recorder

LONGEST = 20_000
"""Steps up to which a run is judged again here; beyond, the daemon's own summary is printed."""


def print_verdict(recorder: Recorder) -> None:
    """Judge what was recorded and print state and action, what was judged, where to look."""
    for line in verdict_of(recorder):
        print(line)


def verdict_of(recorder: Recorder) -> list[str]:
    """Return the three lines; empty where nothing was recorded that could be judged."""
    from ..diagnostics import judge, summary, verdict_lines

    if recorder.steps == 0:
        return []
    if recorder.sender.spooled_frames and recorder.sender.sent_frames:
        return _of_a_torn_run(recorder)
    store, where = _store(recorder)
    try:
        judged = (judge if recorder.steps <= LONGEST else summary)(store, recorder.run_id)
        return verdict_lines(judged, where=where, overhead=recorder.overhead)
    finally:
        store.close()


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
