"""The demonstration: a healthy and a faulty training, the finding, and the training it mends.

Nothing is staged: the trainings are ordinary subprocesses with the callback, the finding is read
from the store as the daemon committed it, and its recommendation is applied as it stands.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from threading import Event
from typing import Any

from ..store import Finding, OtoscopeError, Store, connect
from ..store.places import home_folder
from .gap import MENDED, gap_closed
from .printing import number
from .training import Training

FAULTS = ("lr_too_high", "exploding_gradients", "dead_units")
JUDGING_PATIENCE = 30.0
"""Seconds that the daemon may need after the last step of a run; it needs one or two."""


class StoppedError(OtoscopeError):
    """Raised when the demonstration is ended before it is through."""


@dataclass(slots=True)
class Outcome:
    """What came of it; losses are final validation losses."""

    fault: str
    seed: int
    url: str
    found: bool = False
    rule: str | None = None
    recommendation: dict[str, Any] | None = None
    before: float = math.nan
    after: float = math.nan
    healthy: float = math.nan
    gap_closed: float = math.nan
    mended: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as a JSON object."""
        return asdict(self)


def root_finding(findings: Sequence[Finding]) -> Finding | None:
    """Return the finding to act on: the first root cause with advice, in the daemon's order.

    That order (standing ones first, then by severity, then by step) is also the page's, so this is
    what a person would read first there.

    >>> root_finding([]) is None
    True
    """
    caused = {name for finding in findings for name in finding.caused}
    return next(
        (item for item in findings if item.recommendation is not None and item.id not in caused),
        None,
    )


class Demonstration:
    """Runs the trainings against the store at `url`; `move` hears how far each one is.

    `move(name, step, steps)` is called often, `say(line)` once for each thing that happened.
    """

    def __init__(
        self,
        fault: str,
        seed: int,
        *,
        url: str,
        page: str,
        check: Callable[[], None],
        stop: Event,
        say: Callable[[str], None],
        move: Callable[[str, int, int | None], None],
    ) -> None:
        self.outcome = Outcome(fault, seed, page)
        self._url = url
        self._check = check
        self._stop = stop
        self._say = say
        self._move = move
        self._trainings: list[Training] = []
        self._announced = False

    def run(self) -> Outcome:
        """Train, wait for the finding, train as advised, and return what came of it."""
        store = connect(self._url)
        try:
            self._say(
                f"Training a healthy net, and beside it one with the fault {self.outcome.fault}."
            )
            healthy, faulty = self._start("healthy"), self._start("faulty")
            self._follow([healthy, faulty], lambda: self._announce(store, faulty))
            self.outcome.healthy = final_loss(healthy)
            self.outcome.before = final_loss(faulty)
            finding = self._finding(store, faulty)
            if finding is None:
                self._say("No finding on the faulty training.")
                return self.outcome
            self._note(finding)
            self._say(f"Training the faulty net again with {advised_setting(self.outcome)}.")
            advised = self._start("advised", self.outcome.recommendation)
            self._follow([advised], lambda: None)
            self.outcome.after = final_loss(advised)
            self._weigh(int(advised.result["classes"]) if advised.result else 2)
            return self.outcome
        finally:
            for training in self._trainings:
                training.end()
            store.close()

    def _start(self, role: str, advice: dict[str, Any] | None = None) -> Training:
        arguments = ["--role", role, "--fault", self.outcome.fault]
        arguments += ["--seed", str(self.outcome.seed)]
        if advice is not None:
            arguments += ["--apply", json.dumps(advice)]
        log = home_folder() / "logs" / f"demo-{role}.log"
        environment = {"OTOSCOPE_URL": self._url}
        if advice is not None and (answers := self._trainings[1].run):
            environment["OTOSCOPE_PARENT"] = answers  # what becomes of its finding is written there
            environment["OTOSCOPE_APPLIED"] = json.dumps(advice)
        self._trainings.append(Training(role, arguments, log=log, environment=environment))
        return self._trainings[-1]

    def _follow(self, trainings: Sequence[Training], meanwhile: Callable[[], None]) -> None:
        """Return once all of them have ended."""
        running = list(trainings)
        while running:
            running = [training for training in running if training.follow()]
            for training in trainings:
                self._move(training.name, training.step, training.steps)
            self._pause()
            meanwhile()

    def _pause(self) -> None:
        if self._stop.wait(0.2):
            raise StoppedError("the demonstration was ended before it was through")
        self._check()

    def _announce(self, store: Store, faulty: Training) -> None:
        """Say what the daemon finds while the faulty run still trains."""
        if faulty.run is None or self._announced:
            return
        finding = root_finding(store.findings(faulty.run))
        if finding is not None:
            self._announced = True
            self._say(f"Found while it trains, at step {faulty.step}: {finding.title}")

    def _finding(self, store: Store, faulty: Training) -> Finding | None:
        """Return the finding to act on, once the daemon has judged the whole run."""
        assert faulty.run is not None
        deadline = time.monotonic() + JUDGING_PATIENCE
        last = faulty.step // 10 * 10  # the daemon judges every ten steps
        while time.monotonic() < deadline:
            place = store.judgement(faulty.run).state.get("place") or {}
            if place.get("step", 0) >= last:
                break
            self._pause()
        return root_finding(store.findings(faulty.run))

    def _note(self, finding: Finding) -> None:
        self.outcome.rule = finding.rule
        self.outcome.found = finding.rule == self.outcome.fault
        self.outcome.recommendation = finding.to_json()["recommendation"]

    def _weigh(self, classes: int) -> None:
        outcome = self.outcome
        outcome.gap_closed = gap_closed(outcome.before, outcome.after, outcome.healthy, classes)
        outcome.mended = outcome.gap_closed >= MENDED


def advised_setting(outcome: Outcome) -> str:
    """Return what is set, in words: "lr 3 → 0.14"; empty where nothing was found."""
    advice = outcome.recommendation
    if advice is None:
        return ""
    change = f"{advice['parameter']} {number(advice['current'])} → {number(advice['proposed'])}"
    also = [f"{pair['parameter']} {number(pair['proposed'])}" for pair in advice["also"]]
    return " and ".join([change, *also])


def final_loss(training: Training) -> float:
    """Return the final validation loss that a training printed; JSON writes NaN as null."""
    value = (training.result or {}).get("val_loss")
    return math.nan if value is None else float(value)
