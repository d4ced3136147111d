"""Runs in the peers' own environment: packages that look on while a run of the bench trains.

Usage: -m benchmarks.peers._watchers PEER SITE, where SITE are the site-packages that this repository
runs in, appended after the peers' own. A line of its input is a task, {"body", "seed",
"val_losses": those of every tenth step, known from the run's trace}; each is answered by a line, {"alerts", "losses": every tenth, "seconds": CPU of the whole training}, or with
"error" in place of the seconds.
"""

from __future__ import annotations

import importlib
import logging
import re
import site
import sys
import time
from typing import Any

from ._readers import answered

EVERY = 10
"""Steps between two validations."""


class Watcher:
    """Looks on at nothing."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.alerts: list[dict[str, Any]] = []

    def stepped(self, step: int, loss: float, batch: Any, scored: dict[str, float] | None) -> None:
        """After a step of the optimizer."""

    def ended(self) -> None:
        """After the last step."""

    def say(self, name: str, title: str, severity: str, step: int) -> None:
        self.alerts.append({"name": name, "title": title, "severity": severity, "step": step})


class Traintools(Watcher):
    """Tracker, batch inspector and gradient monitor, as its quick start combines them."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        tools = importlib.import_module("traintools")
        tracking = importlib.import_module("traintools.callbacks.pytorch")
        self.tracker = tracking.TraintoolsTracker(loop.net, loop.judged, verbose=False)
        self.batches = tools.BatchInspector()
        self.gradients = tools.GradientHealthMonitor()
        self.step = 0
        self.stopped = False
        loop.optimizer.register_step_pre_hook(self._before)

    def _before(self, *_: Any) -> None:
        self.step += 1
        rate = self.loop.optimizer.param_groups[0]["lr"]
        report = self.gradients.inspect(self.loop.net, step=self.step, lr=rate)
        for warning in report.warnings:
            self.say(_plain(warning), warning, "warning", self.step)

    def stepped(self, step: int, loss: float, batch: Any, scored: dict[str, float] | None) -> None:
        for warning in self.batches.inspect(batch[0], batch[1], step=step).warnings:
            self.say("batch " + _plain(warning), warning, "warning", step)
        before = len(self.tracker.plasticity_history.results)
        decision = self.tracker.step(
            step=step, inputs=batch[0], targets=batch[1], val_loss=scored and scored["val_loss"]
        )
        if decision is not None and decision.should_stop and not self.stopped:
            self.stopped = True
            self.say("TrainGuard stop", decision.reason, "warning", step)
        for result in self.tracker.plasticity_history.results[before:]:
            for layer in result.layers:
                if layer.is_critical():
                    dead = any(flag.lower().startswith("dormant") for flag in layer.flags)
                    name = "dormant units" if dead else "low-rank features"
                    self.say(name, str(layer), "critical", step)


def _plain(warning: str) -> str:
    """Return a warning without the names and numbers in it."""
    known = (
        "non-finite", "vanished", "very large", "ratio is high", "ratio is tiny", "no gradients",
        "abs max", "nearly constant", "dominant class", "is empty",
    )  # fmt: skip
    return next((words for words in known if words in warning), re.sub(r"[\d.e+-]+", "#", warning))


class Torchmortem(Watcher):
    """An autopsy around the loop; its report is read at the end."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self.autopsy = importlib.import_module("torchmortem").Autopsy(
            loop.net, optimizer=loop.optimizer
        )
        self.autopsy.attach()

    def stepped(self, step: int, loss: float, batch: Any, scored: dict[str, float] | None) -> None:
        self.autopsy.step(loss=loss)

    def ended(self) -> None:
        self.autopsy.detach()
        for found in self.autopsy.get_report().findings:
            title = re.sub(r" in .*", "", found.title)
            self.say(f"{found.category}: {title}", found.title, found.severity.name.lower(), 0)


WATCHERS: dict[str, type[Watcher]] = {"traintools": Traintools, "torchmortem": Torchmortem}


def watched(watch: type[Watcher], task: dict[str, Any]) -> dict[str, Any]:
    """Train one run of the bench with a watcher; one that fails is heard up to there."""
    body, seed, validated = task["body"], task["seed"], task["val_losses"]
    importlib.import_module("numpy").random.seed(seed)  # traintools draws from it
    loop = importlib.import_module("benchmarks.faults.training").Loop(body, seed)
    begun = time.process_time()
    losses: list[float] = []
    alerts: list[dict[str, Any]] = []
    try:
        watcher = watch(loop)
        alerts = watcher.alerts
        for step in range(1, loop.last + 1):
            loss, batch = loop.step(step)
            losses.append(loss)
            scored = None if step % EVERY else {"val_loss": validated[step // EVERY - 1]}
            watcher.stepped(step, loss, batch, scored)
            loop.stepped()
        watcher.ended()
    except Exception as error:  # raised into the user's training: a result here
        said = f"{type(error).__name__}: {error}"
        return {"alerts": alerts, "losses": losses[::EVERY], "error": said}
    seconds = time.process_time() - begun
    return {"alerts": alerts, "losses": losses[::EVERY], "seconds": seconds}


def prepared(packages: str) -> None:
    """Let what the repository's training code needs be found, after the peers' own packages."""
    site.addsitedir(packages)
    importlib.import_module("torch").set_num_threads(1)
    logging.disable(logging.ERROR)


def main() -> int:
    prepared(sys.argv[2])
    watch = WATCHERS[sys.argv[1]]
    return answered(lambda task: watched(watch, task))


if __name__ == "__main__":
    sys.exit(main())
