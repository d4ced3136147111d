"""Runs in the peers' own environment: how long the steps of a training take with a package looking on.

Usage: -m benchmarks.peers._costs PEER SITE (see _watchers.py). A line of its input is a task,
{"net": a name of benchmarks/overhead.py, "steps"} or {"body", "seed", "steps"}; each is answered by
a line, {"wall", "cpu": seconds a step, "ends": seconds before the first step and after the last}.
"""

from __future__ import annotations

import csv
import importlib
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any

from ._readers import answered
from ._watchers import WATCHERS, Watcher, prepared

VALIDATED = 50
"""Steps between two validations, which every training makes: the fault bench's own default."""


class Scalars(Watcher):
    """Loss, rate and gradient norm of every step, into a CSV: what packages that read a log need."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self.norm = importlib.import_module("torch").nn.utils.get_total_norm
        self.now = 0.0
        loop.optimizer.register_step_pre_hook(self._before)
        self.begin()

    def begin(self) -> None:
        self.file = tempfile.TemporaryFile("w", newline="", encoding="utf-8")  # noqa: SIM115
        self.rows = csv.writer(self.file)

    def _before(self, *_: Any) -> None:
        parameters = self.loop.net.parameters()
        self.now = float(self.norm([one.grad for one in parameters if one.grad is not None]))

    def stepped(self, step: int, loss: float, batch: Any, scored: dict[str, float] | None) -> None:
        rate = self.loop.optimizer.param_groups[0]["lr"]
        self.rows.writerow([step, loss, rate, self.now, scored["val_loss"] if scored else ""])

    def ended(self) -> None:
        self.file.close()


class TrainingDoctor(Scalars):
    """`doctor.log` in every step, as its quick start has it, with the gradient norm."""

    def begin(self) -> None:
        self.doctor = importlib.import_module("training_doctor").Doctor()
        self.doctor.set_auto_print(False)

    def stepped(self, step: int, loss: float, batch: Any, scored: dict[str, float] | None) -> None:
        known = {"eval_loss": scored["val_loss"]} if scored else {}
        rate = self.loop.optimizer.param_groups[0]["lr"]
        self.doctor.log(step=step, loss=loss, lr=rate, grad_norm=self.now, **known)

    def ended(self) -> None:
        """It has said all that it has to say."""


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


COSTED: dict[str, type[Watcher]] = {
    "plain": Watcher,
    "again": Watcher,
    "scalars": Scalars,
    "otoscope": Ours,
    "training-doctor": TrainingDoctor,
    **WATCHERS,
}


class Subject:
    """A net of benchmarks/overhead.py on random data, as the bench's own loop trains."""

    def __init__(self, name: str) -> None:
        torch = importlib.import_module("torch")
        nets = importlib.import_module("benchmarks.overhead").NETS
        about = next(net for net in nets if net.name == name)
        torch.manual_seed(0)
        self.net, self.samples, self.last = about.make(), about.batch, 0
        self.judged = torch.nn.functional.cross_entropy
        self.optimizer = torch.optim.AdamW(self.net.parameters(), 1e-3)
        rows, shape = 8 * about.batch, about.shape
        words = about.words
        x = torch.randint(0, words, (rows, *shape)) if words else torch.randn(rows, *shape)
        y = torch.randint(0, 10, (rows,))
        self.stream = cycle(zip(x.split(about.batch), y.split(about.batch), strict=True))
        self.no_grad = torch.no_grad

    def on(self, net: Any, batch: Any) -> Any:
        return self.judged(net(batch[0]), batch[1])

    def step(self, step: int) -> tuple[float, Any]:
        self.optimizer.zero_grad()
        batch = next(self.stream)
        loss = self.on(self.net, batch)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach()), batch

    def stepped(self) -> None:
        """It has no schedule."""

    def scored(self) -> dict[str, float]:
        self.net.eval()
        with self.no_grad():
            loss = float(self.on(self.net, next(self.stream)))
        self.net.train()
        return {"val_loss": loss}


def timed(watch: type[Watcher], task: dict[str, Any]) -> dict[str, Any]:
    """Train as many steps as the task says, and tell how long they took."""
    if "net" in task:
        loop: Any = Subject(task["net"])
    else:
        training = importlib.import_module("benchmarks.faults.training")
        loop = training.Loop(task["body"], task["seed"])
    steps = loop.last = int(task["steps"])
    importlib.import_module("gc").collect()
    marks = [(time.perf_counter(), time.process_time())]
    try:
        watcher = watch(loop)
        marks.append((time.perf_counter(), time.process_time()))
        for step in range(1, steps + 1):
            loss, batch = loop.step(step)
            watcher.stepped(step, loss, batch, loop.scored() if step % VALIDATED == 0 else None)
            loop.stepped()
        marks.append((time.perf_counter(), time.process_time()))
        watcher.ended()
    except Exception as error:  # raised into the user's training: a result here
        return {"error": f"{type(error).__name__}: {error}"}
    marks.append((time.perf_counter(), time.process_time()))
    (begun, _), (first, first_cpu), (last, last_cpu), (ended, _) = marks
    return {
        "wall": (last - first) / steps,
        "cpu": (last_cpu - first_cpu) / steps,
        "ends": first - begun + ended - last,
    }


def main() -> int:
    prepared(sys.argv[2])
    watch = COSTED[sys.argv[1]]
    return answered(lambda task: timed(watch, task))


if __name__ == "__main__":
    sys.exit(main())
