"""Packages are asked in processes of their own: one that dies, hangs or raises costs its run and no other."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from benchmarks.faults.case import Case, load_cases
from benchmarks.faults.training import train
from benchmarks.peers import _costs, _watchers, cost, living, page, running, scoring
from benchmarks.peers.alert import Alert
from benchmarks.peers.asking import LIFE, PeerError, Worker, asked
from benchmarks.peers.running import How, Run, by_package

ECHO = """
import json, os, sys, time
for line in sys.stdin:
    task = json.loads(line)
    if task["do"] == "die":
        print("no more", file=sys.stderr)
        sys.exit(3)
    if task["do"] == "hang":
        time.sleep(600)
    if task["do"] == "half":
        print('{"alerts": ', end="", flush=True)
        os._exit(1)
    print(json.dumps({"alerts": [], "from": os.getpid(), "do": task["do"]}), flush=True)
"""


def echo(patience: float = 60.0) -> Worker:
    return Worker([sys.executable, "-c", ECHO], patience, Path.cwd())


def test_a_process_that_dies_or_hangs_is_lost_for_its_task_alone() -> None:
    tasks = [{"do": do} for do in ("one", "die", "two", "half", "hang", "three")]
    answers: dict[int, dict[str, Any]] = {}

    asked([echo(patience=2.0)], tasks, answers.__setitem__, "echo")

    assert sorted(answers) == list(range(6))
    lost = {number for number, answer in answers.items() if answer.get("lost")}
    assert lost == {1, 3, 4}
    assert "ended with 3: no more" in answers[1]["error"]
    assert "took over 2 s" in answers[4]["error"]
    assert answers[5]["do"] == "three"
    assert answers[0]["from"] != answers[2]["from"]


def test_a_worker_keeps_its_process_for_so_many_tasks_and_no_more() -> None:
    worker = echo()

    seen = [worker.ask({"do": str(number)})["from"] for number in range(LIFE + 1)]
    worker.close()

    assert len(set(seen[:LIFE])) == 1
    assert seen[LIFE] != seen[0]


def test_what_is_interrupted_is_kept_nowhere_and_leaves_no_process() -> None:
    class Interrupted(Exception):
        pass

    kept: list[int] = []
    workers = [echo(), echo()]

    def keep(number: int, answer: dict[str, Any]) -> None:
        kept.append(number)
        raise Interrupted

    with pytest.raises(Interrupted):
        asked(workers, [{"do": "one"}, {"do": "hang"}, {"do": "two"}], keep, "echo")

    assert kept[0] == 0
    assert 1 not in kept  # the one that hangs was not waited for
    assert [worker._process for worker in workers] == [None, None]


def small(name: str = "mlp-sgd", **body: Any) -> Case:
    case = next(one for one in load_cases() if one.name == name)
    return Case(case.name, case.kind, case.set, {**case.body, "steps": 40, **body})


def test_when_time_is_up_nothing_more_is_asked_and_packages_share_what_is_left() -> None:
    answers: dict[int, dict[str, Any]] = {}

    asked([echo()], [{"do": "one"}], answers.__setitem__, "echo", until=time.monotonic() - 1)
    assert answers == {}

    how, peers = How(until=time.monotonic() + 900), ["Otoscope", "traintools", "torchmortem"]
    first, last = (how.share_of(peer, peers).until for peer in ("traintools", "torchmortem"))
    assert first - time.monotonic() <= 450
    assert last == pytest.approx(how.until)
    assert How().share_of("runmedic", ["runmedic"]).until == math.inf


class Fake:
    """A package in this process, which fails on the first of its tasks."""

    asked = 0

    def ask(self, task: Any) -> dict[str, Any]:
        Fake.asked += 1
        if Fake.asked == 1:
            raise PeerError("it took over 1 s")
        return {"alerts": [], "seconds": 0.1}

    def kill(self) -> None:
        """Nothing runs."""

    close = kill


def test_answers_are_kept_and_failures_asked_anew_only_when_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "OUT", tmp_path)
    monkeypatch.setattr(living, "worker", lambda peer: Fake())
    monkeypatch.setattr(running, "task", lambda peer, run: {"seed": run.seed})
    monkeypatch.setattr(Fake, "asked", 0)
    runs = {Run(small(), seed): "hash" for seed in range(3)}

    assert by_package("traintools", runs, How(only_kept=True)) == {}
    first = by_package("traintools", runs, How())
    assert ["error" in told for told in first.values()] == [True, False, False]
    assert by_package("traintools", runs, How()) == first
    assert Fake.asked == 3
    again = by_package("traintools", runs, How(again=True))

    assert Fake.asked == 4
    assert not any("error" in told for told in again.values())
    assert json.loads(next((tmp_path / "traintools").rglob("*.json")).read_text())["seconds"] == 0.1


def test_a_run_over_which_a_package_failed_unheard_counts_in_no_share() -> None:
    fault = Case("one", "fault", "tuning", {"net": "mlp", "data": "digits"}, ("lr_too_high",))
    well = Case("two", "healthy", "tuning", {"net": "mlp", "data": "digits"})
    loud = Alert("diverging", "b", 20)
    rows = [
        scoring.row_of(fault, 0, 600, [loud]),
        scoring.row_of(fault, 1, 600, [loud], "ValueError: later"),
        scoring.row_of(fault, 2, 600, [], "it took over 300 s"),
        scoring.row_of(well, 0, 600, []),
        scoring.row_of(well, 1, 600, [], "its process ended with -11: "),
    ]

    told = scoring.figures(rows)

    assert (told["not_judged"], told["faulty_runs"], told["healthy_runs"]) == (2, 2, 1)
    assert told["right_kind"] == 1.0
    assert scoring.per_net(rows) == {"mlp on digits": [2, 2, 0, 1, 0, 600]}


def test_what_was_told_of_other_runs_does_not_stay_beside_what_is_told_now() -> None:
    before = {
        "runmedic": {"runs": "old"},
        "ZClip 2.5": {"runs": "now"},
        "Otoscope": {"runs": "now"},
    }

    told = running.laid_over(before, {"Otoscope": {"runs": "now", "figures": {}}})

    assert told == {"Otoscope": {"runs": "now", "figures": {}}, "ZClip 2.5": {"runs": "now"}}


class Raising(_watchers.Watcher):
    def stepped(self, step: int, loss: float, batch: Any, scored: Any) -> None:
        assert scored == ({"val_loss": step / 10} if step % 10 == 0 else None)
        if step == 20:
            self.say("a word", "what it says", "warning", step)
        if step == 30:
            raise AttributeError("of its own")


def test_looking_on_changes_no_loss_and_one_that_raises_is_heard_up_to_there() -> None:
    body = dict(small().body)
    plain = train(body, 0)["losses"]
    task = {"body": body, "seed": 0, "val_losses": [1.0, 2.0, 3.0, 4.0]}

    quiet = _watchers.watched(_watchers.Watcher, task)
    raising = _watchers.watched(Raising, task)

    assert quiet["losses"] == plain
    assert raising["error"] == "AttributeError: of its own"
    assert [alert["step"] for alert in raising["alerts"]] == [20]
    assert raising["losses"] == plain[:3]


def test_a_step_is_timed_apart_from_what_comes_before_and_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]

    class Slow(_watchers.Watcher):
        """Takes 2 s to begin, 0.5 s a step, and 3 s for its report."""

        def __init__(self, loop: Any) -> None:
            super().__init__(loop)
            now[0] += 2.0

        def stepped(self, step: int, loss: float, batch: Any, scored: Any) -> None:
            now[0] += 0.5

        def ended(self) -> None:
            now[0] += 3.0

    class Failing(_watchers.Watcher):
        def ended(self) -> None:
            raise AttributeError("of its own")

    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0] / 2)
    monkeypatch.setattr(_costs, "time", clock)
    body = dict(small().body)

    told = _costs.timed(Slow, {"net": "convnet", "steps": 3})

    assert told == {"wall": 0.5, "cpu": 0.25, "ends": 5.0}
    assert _costs.timed(Slow, {"body": body, "seed": 0, "steps": 4})["wall"] == 0.5
    failed = _costs.timed(Failing, {"body": body, "seed": 0, "steps": 40})
    assert failed == {"error": "AttributeError: of its own"}


class Clock:
    """A process whose steps take longer each time; with traintools, twice as long as without."""

    now = 1.0
    rates: ClassVar[list[float]] = []

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, task: Any) -> dict[str, Any]:
        Clock.rates += [task["body"]["optimizer"]["lr"]] if "body" in task else []
        if self.name == "torchmortem":
            return {"error": "KeyError: none"}
        Clock.now += 0.01
        took = Clock.now * (2 if self.name == "traintools" else 1) * 1e-3
        return {"wall": took, "cpu": took, "ends": 0.5}

    def close(self) -> None:
        """Nothing runs."""


def test_costs_are_shares_of_the_plain_training_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "worker", lambda name, *_: Clock(name))

    told = cost.Turns({"net": "mlp"}, 3, 1.0, cost.Processes()).told()

    peers = told["peers"]
    assert peers["traintools"]["wall"] == pytest.approx(2.0, rel=1e-3)
    assert peers[cost.AGAIN]["wall"] == pytest.approx(1.0, rel=1e-3)
    assert peers["torchmortem"] == {"failed": "KeyError: none"}
    printed = page.cost_table({"mlp": told}, {"runmedic": 0.04})
    assert "× 2.00 (2.00 to 2.00)" in printed
    assert "failed: KeyError: none" in printed
    assert "| runmedic | × 1.00 (1.00 to 1.00); CPU × 1.00 | 0.04 |" in printed


def test_each_net_is_costed_on_its_healthiest_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "worker", lambda name, *_: Clock(name))
    said: list[str] = []
    cases = [small("mlp-sgd-5"), small("mlp-sgd"), small("convnet-adam")]

    told = cost.costs_on(cases, 2, said.append)

    assert sorted(told) == ["convnet on digits", "mlp on digits"]
    assert sorted(said) == ["cost on convnet on digits", "cost on mlp on digits"]
    assert 5.0 not in Clock.rates
    assert cases[1].body["optimizer"]["lr"] in Clock.rates
    assert told["mlp on digits"]["peers"]["traintools"]["ends"] == 0.5


def test_a_net_has_a_table_with_recall_alarms_and_cost() -> None:
    body = {"version": "1", "nets": {"mixer on digits": [3, 4, 1, 2, 5, 1000]}}
    costs = {"mixer on digits": {"plain_ms": 4.0, "peers": {"traintools": {"wall": 3.5}}}}

    told = page.net_by_net({"traintools": body, "zclip": {"failed": "x"}}, costs)

    assert "**mixer on digits**, a step of 4.0 ms" in told
    assert "| traintools 1 | 3 of 4 | 1 of 2 | 5.00 | × 3.50 |" in told
    assert "zclip" not in told
