"""Runs in the peers' own environment: packages that look on while a run of the bench trains.

Usage: _watchers.py PEER ROOT SITE < tasks > told, where ROOT holds this repository and SITE the
site-packages that it runs in, appended after the peers' own. A task is {"key", "body", "seed"};
told are {"key", "alerts", "losses": every tenth, "seconds": CPU of the whole training}, or
"error" in place of the seconds. PEER may be `plain`, which looks at nothing, or `otoscope`.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import site
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

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


class Ours(Watcher):
    """Otoscope with its defaults, recording to disk, and its verdict at the end."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        attach = importlib.import_module("otoscope.callbacks").attach
        self.torch = importlib.import_module("torch")
        self.folder = tempfile.TemporaryDirectory()
        self.recorder = attach(
            loop.net, loop.optimizer, loss_fn=loop.on, run="cost", max_steps=loop.last,
            spool=Path(self.folder.name), verdict=False,
        )  # fmt: skip

    def stepped(self, step: int, loss: float, batch: Any, scored: dict[str, float] | None) -> None:
        self.recorder.step(self.torch.tensor(loss), self.loop.samples, batch)
        if scored:
            self.recorder.validate(scored)

    def ended(self) -> None:
        self.recorder.finish()
        judge = importlib.import_module("otoscope.diagnostics").judge
        connect = importlib.import_module("otoscope.store").connect
        run = str(self.recorder.run_id)
        judge(connect(Path(self.folder.name) / run), run)
        self.folder.cleanup()


WATCHERS = {
    "plain": Watcher,
    "traintools": Traintools,
    "torchmortem": Torchmortem,
    "otoscope": Ours,
}


def watched(watch: type[Watcher], body: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train one run of the bench with a watcher; one that fails is heard up to there."""
    loop = importlib.import_module("benchmarks.faults.training").Loop(body, seed)
    loop.scored()
    begun = time.process_time()
    watcher = watch(loop)
    losses: list[float] = []
    try:
        for step in range(1, loop.last + 1):
            loss, batch = loop.step(step)
            losses.append(loss)
            watcher.stepped(step, loss, batch, loop.scored() if step % EVERY == 0 else None)
            loop.stepped()
        watcher.ended()
    except Exception as error:  # raised into the user's training: a result here
        said = f"{type(error).__name__}: {error}"
        return {"alerts": watcher.alerts, "losses": losses[::EVERY], "error": said}
    seconds = time.process_time() - begun
    return {"alerts": watcher.alerts, "losses": losses[::EVERY], "seconds": seconds}


def main() -> int:
    peer, root, packages = sys.argv[1:4]
    site.addsitedir(packages)
    sys.path.insert(0, root)
    importlib.import_module("torch").set_num_threads(1)
    logging.disable(logging.ERROR)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a peer may print, and so does LAPACK where a matrix holds NaN
    told = [
        {"key": task["key"], **watched(WATCHERS[peer], task["body"], task["seed"])}
        for task in json.load(sys.stdin)
    ]
    with answer:
        json.dump(told, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
