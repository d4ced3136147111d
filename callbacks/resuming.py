"""Resuming: what a checkpoint of the user's holds of us, so that a later fit goes on with its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..store.keys import RUN_ID
from .recorder import Origin, Recorder


def state_of(recorder: Recorder) -> dict[str, Any]:
    """Return what a checkpoint keeps of a run.

    Plain Python values only: one numpy number makes the user's checkpoint unloadable.
    """
    return {
        "run_id": str(recorder.run_id),
        "attempt": int(recorder.sender.attempt),
        "step": int(recorder.steps),
    }


def is_sound(state: Mapping[str, Any]) -> bool:
    """Tell whether a state is one of ours.

    >>> is_sound({"run_id": "net-01j5", "attempt": 1, "step": 40}), is_sound({"step": 40})
    (True, False)
    """
    known = {"run_id": str, "attempt": int, "step": int}
    if not all(isinstance(state.get(key), kind) for key, kind in known.items()):
        return False
    counts = (state["attempt"], state["step"])
    return bool(RUN_ID.match(state["run_id"])) and all(0 <= count < 2**53 for count in counts)


def origin_of(state: Mapping[str, Any] | None) -> Origin:
    """Return where a fit begins: a new run, or the next attempt of the one in the state."""
    if not state:
        return Origin()
    attempt = int(state["attempt"])
    return Origin(str(state["run_id"]), attempt + 1, int(state["step"]), from_attempt=attempt)
