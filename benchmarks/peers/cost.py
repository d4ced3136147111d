"""What a package costs a step: the same training with it and without, in turns, each in its own process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..faults.case import Case
from . import living
from .asking import PeerError, Worker
from .living import READERS
from .page import SCALARS
from .running import OURS, Run, task, trace_of

NETS = ("mlp", "convnet", "transformer")
"""The nets of benchmarks/overhead.py."""
AGAIN = "nothing (A/A)"
COSTED = {
    AGAIN: "again",
    SCALARS: "scalars",
    OURS: "otoscope",
    "training-doctor": "training-doctor",
    "traintools": "traintools",
    "torchmortem": "torchmortem",
}
"""What looks on, and its name in _costs.py; packages that read a log cost what `SCALARS` costs."""
ROUNDS, SECONDS = 5, 2.0
"""Runs of each on a net of the overhead bench, and the seconds that one without anything takes."""
SHORT_ROUNDS, SHORT = 3, 0.7
"""The same on a held-out net, of which there are many."""
WARM = 30
"""Steps of a run that warms up, and of one that tells the pace."""
LIFE = 1000
"""Trainings after which a process is replaced; none holds much of so short ones."""
PATIENCE = 600.0
"""Seconds that a training may take with a package looking on, the start of its process included."""


class Processes:
    """A process for each of what looks on, kept from one net to the next."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()

    def timed(self, name: str, task: Mapping[str, Any]) -> dict[str, float]:
        """Return what a training took with something looking on; PeerError where that failed."""
        if name not in self.workers:
            self.workers[name] = living.worker(name, "_costs", PATIENCE)
            self.workers[name].life = LIFE  # a fresh process would have to warm up first
        told = self.workers[name].ask(task)
        if "error" in told:
            raise PeerError(str(told["error"]))
        return told


class Turns:
    """One net in all processes: between two packages the plain training, by which both are divided."""

    def __init__(
        self, one: Mapping[str, Any], rounds: int, seconds: float, processes: Processes
    ) -> None:
        self.one, self.rounds, self.seconds, self.processes = one, rounds, seconds, processes

    def told(self) -> dict[str, Any]:
        """Return milliseconds of a plain step, and of each package its ratios and seconds at the ends."""
        try:
            return self._told()
        except PeerError as error:  # the plain training itself
            return {"failed": str(error), "peers": {}}

    def _told(self) -> dict[str, Any]:
        pace = self._timed("plain", WARM)
        pace = self._timed("plain", WARM)
        steps = max(WARM, round(self.seconds / pace["wall"]))
        found: dict[str, list[dict[str, float]]] = {}
        failed: dict[str, str] = {}
        for peer, name in COSTED.items():
            self._try(peer, name, WARM, failed)  # the first run of a process warms up
        plain: list[float] = []
        for turn in range(self.rounds):
            before = self._timed("plain", steps)
            for peer, name in list(COSTED.items())[:: 1 if turn % 2 == 0 else -1]:
                told = self._try(peer, name, steps, failed)
                after = self._timed("plain", steps)
                if told is not None:
                    beside = {key: (before[key] + after[key]) / 2 for key in ("wall", "cpu")}
                    row = {key: told[key] / beside[key] for key in beside}
                    found.setdefault(peer, []).append({**row, "ends": told["ends"]})
                plain.append(after["wall"])
                before = after
        peers: dict[str, Any] = {peer: _summed(rows) for peer, rows in found.items()}
        peers |= {peer: {"failed": why} for peer, why in failed.items()}
        return {"plain_ms": 1000 * statistics.median(plain), "steps": steps, "peers": peers}

    def _try(
        self, peer: str, name: str, steps: int, failed: dict[str, str]
    ) -> dict[str, float] | None:
        if peer in failed:
            return None
        try:
            return self._timed(name, steps)
        except PeerError as error:
            failed[peer] = str(error)
            return None

    def _timed(self, name: str, steps: int) -> dict[str, float]:
        return self.processes.timed(name, {**self.one, "steps": steps})


def _summed(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    walls = [row["wall"] for row in rows]
    return {
        "wall": statistics.median(walls),
        "wall_range": [min(walls), max(walls)],
        "cpu": statistics.median([row["cpu"] for row in rows]),
        "ends": statistics.median([row["ends"] for row in rows]),
    }


def costs(say: Callable[[str], None]) -> dict[str, Any]:
    """Return what each package costs on the nets of the overhead bench."""
    told: dict[str, Any] = {}
    with Processes() as processes:
        for net in NETS:
            say(f"cost on the {net} of benchmarks/overhead.py")
            told[net] = Turns({"net": net}, ROUNDS, SECONDS, processes).told()
    return told


def costs_on(cases: Sequence[Case], jobs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what each package costs on each net among the cases, on its first healthy one."""
    chosen: dict[str, Case] = {}
    for case in sorted(cases, key=lambda case: ("healthy", "look-alike", "fault").index(case.kind)):
        chosen.setdefault(case.net, case)

    def told(nets: Sequence[str]) -> dict[str, Any]:
        found = {}
        with Processes() as processes:
            for net in nets:
                say(f"cost on {net}")
                one = {"body": dict(chosen[net].body), "seed": 0}
                found[net] = Turns(one, SHORT_ROUNDS, SHORT, processes).told()
        return found

    jobs = max(1, jobs)
    with ThreadPoolExecutor(jobs) as pool:
        parts = pool.map(told, [list(chosen)[part::jobs] for part in range(jobs)])
        return dict(sorted((net, body) for part in parts for net, body in part.items()))


def readings(case: Case) -> dict[str, float]:
    """Return, of each package that reads a log, its CPU seconds over the log of one run."""
    run = Run(case, 0)
    trace_of(run)
    told: dict[str, float] = {}
    for peer in READERS:
        worker = living.worker(peer)
        try:
            told[peer] = min(float(worker.ask(task(peer, run))["seconds"]) for _ in range(3))
        finally:
            worker.close()
    return told
