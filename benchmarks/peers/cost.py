"""What a peer costs a step: CPU of the same training with it and without, and of reading a log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..faults.case import load_cases
from . import living
from .living import PeerError
from .running import OURS, READERS, Run, task

NETS = ("mlp", "convnet", "transformer")
"""The nets on which it is measured: each one's first healthy case of the tuning set."""
TIMES = 3
"""Each is trained so often, in turn with the plain run; the least CPU of each counts."""
LOOKING = ("plain", "otoscope", "traintools", "torchmortem")


def costs(say: Callable[[str], None]) -> dict[str, Any]:
    """Return, of each peer and net, milliseconds of CPU a step over the plain training.

    Of packages that read a log, the CPU of reading it, over the steps that it holds.
    """
    told: dict[str, Any] = {}
    for name in NETS:
        found = [
            case for case in load_cases()
            if case.kind == "healthy" and case.set == "tuning" and case.net.startswith(name + " ")
        ]  # fmt: skip
        if not found:
            continue
        case, steps = found[0], int(found[0].body["steps"])
        say(f"cost on {case.net}")
        plain = {"key": name, "body": dict(case.body), "seed": 0}
        least: dict[str, float] = {}
        for _ in range(TIMES):
            for peer in LOOKING:
                answer = _answer(peer, plain)
                if answer is not None:
                    least[peer] = min(least.get(peer, answer), answer)
        told[case.net] = {"plain": 1000 * least["plain"] / steps}
        for peer in LOOKING[1:]:
            if peer in least:
                label = OURS if peer == "otoscope" else peer
                told[case.net][label] = 1000 * (least[peer] - least["plain"]) / steps
        for peer in READERS:
            answer = _answer(peer, task(peer, Run(case, 0)))
            if answer is not None:
                told[case.net][peer] = 1000 * answer / steps
    return told


def _answer(peer: str, one: dict[str, Any]) -> float | None:
    try:
        answer = living.asked(peer, [one])[0]
    except PeerError:
        return None
    return answer.get("seconds")
