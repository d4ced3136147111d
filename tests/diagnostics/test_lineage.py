"""Lineage: a run that names another as its parent tells what became of that one's findings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from otoscope.callbacks import attach
from otoscope.callbacks.answering import applied_of
from otoscope.diagnostics import Daemon, judge, outcome_words, summary
from otoscope.store import Event, MemoryHome, Recommendation, Store
from otoscope.store.replaying import replay
from otoscope.store.schemas import dumps
from torch import nn

from .clock import Clock
from .lab import digits, mlp
from .scripted import TRAIN, frames, rule

ENDED = {"attempt": 1, "how": "finished", "t": 2.0, "reason": "done"}
RULES = (rule(), rule("dead_units", 5.0, severity="critical"))


def train(folder: Path, lr: float, steps: int = 300) -> str:
    """Train on digits with the real recorder; the run's parent is what the environment names."""
    torch.manual_seed(0)
    x, y = digits()
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr)
    recorder = attach(model, optimizer, run="digits", spool=folder, budget=1.0, verdict=False)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,), generator=draw)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        recorder.step(loss, 64)
    recorder.finish()
    return recorder.run_id


def test_the_run_that_takes_the_advice_marks_the_finding_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = train(tmp_path, 3.0)
    home = MemoryHome()
    replay(tmp_path / parent, home)
    daemon = Daemon(home, heartbeat=tmp_path / "beat")
    daemon.tick()
    (root, *_) = home.judgement(parent).findings
    assert (root.rule, root.outcome) == ("lr_too_high", None)
    assert root.recommendation is not None
    monkeypatch.setenv("OTOSCOPE_PARENT", parent)
    child = train(tmp_path, float(root.recommendation.proposed))  # type: ignore[arg-type]
    replay(tmp_path / child, home)
    for _ in range(11):  # the parent rests, and is looked at in every tenth tick
        daemon.tick()
    found = next(item for item in home.judgement(parent).findings if item.id == root.id)
    assert (found.state, found.outcome) == ("firing", "helped")
    assert found.followed is not None
    assert (found.followed["parameter"], found.followed["run"]) == ("lr", child)
    assert f"in run {child}" in outcome_words(found.to_json())
    assert dumps(summary(Store(home), parent)) == dumps(judge(Store(home), parent))
    answers = summary(Store(home), child)["answers"]
    assert {(item["run"], item["outcome"]) for item in answers} == {(parent, "helped")}
    assert answers[0]["finding"] == root.id
    assert judge(Store(home), child)["answers"] == answers


def a_home(clock: Clock, child: float, *, lr: float = 0.03, steps: int = 400) -> MemoryHome:
    """Return a home with a run that ends with a finding, and one that answers it."""
    home = MemoryHome(clock)
    add(home, "parent", 0.1, 2.0, 300)
    add(home, "child", lr, child, steps, parent="parent")
    return home


def add(home: MemoryHome, run: str, rate: float, loss: float, steps: int, **told: str) -> None:
    """Add a whole run of one loss at one rate."""
    home.write_meta(run, {"name": run, "started": 1.0, **told})
    home.add_schema(run, TRAIN)
    settings = {"optimizers": [{"name": "SGD", "lr": rate}]}
    body = {"world_size": 1, "start_step": 0, "settings": settings}
    log = frames(range(1, steps + 1), lambda step: loss)
    home.append(run, log, [Event("started", body=body, id="started")])
    home.write_meta(run, {"ended": ENDED})


@pytest.mark.parametrize(
    ("loss", "lr", "steps", "outcome"),
    [
        (0.5, 0.03, 400, "helped"),
        (2.0, 0.03, 400, "no effect"),
        (9.0, 0.03, 400, "worse"),
        (0.5, 0.1, 400, None),
        (0.5, 0.3, 400, None),
    ],
    ids=["gone", "stands", "a critical one came", "nothing was changed", "the other way"],
)
def test_what_became_of_it_is_told_once_whichever_is_judged_first(
    loss: float, lr: float, steps: int, outcome: str | None, tmp_path: Path, clock: Clock
) -> None:
    for order in (("parent", "child"), ("child", "parent")):
        whole = a_home(clock, loss, lr=lr, steps=steps)
        daemon = Daemon(whole, clock=clock, heartbeat=tmp_path / "beat", rules=RULES)
        whole.acquire(order[1], "another", 1000)
        daemon.tick()
        clock.now += 2
        for _ in range(12):
            daemon.tick()
        (finding,) = [item for item in whole.judgement("parent").findings if item.rule == "plateau"]
        assert (finding.outcome, finding.followed is not None) == (outcome, outcome is not None)
        told = [event for _, event in whole.events("parent") if event.kind == "outcome"]
        assert len({event.id for event in told}) == len(told) <= 1


@pytest.mark.parametrize("begun_anew", [False, True])
def test_a_parent_that_comes_after_its_child_was_judged_is_told_of_it(
    begun_anew: bool, tmp_path: Path, clock: Clock
) -> None:
    home = MemoryHome(clock)
    add(home, "child", 0.03, 0.5, 400, parent="parent")
    daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=RULES)
    for _ in range(12):
        daemon.tick()
    assert home.judgement("child").state["place"]["step"] == 400
    add(home, "parent", 0.1, 2.0, 300)  # its spool was sent later
    if begun_anew:
        daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=RULES)
    for _ in range(24):
        daemon.tick()
    (finding,) = [item for item in home.judgement("parent").findings if item.rule == "plateau"]
    assert (finding.outcome, (finding.followed or {}).get("run")) == ("helped", "child")
    assert [event.kind for _, event in home.events("parent")].count("heir") == 1


def test_a_later_run_that_did_not_get_so_far_leaves_it_open(tmp_path: Path, clock: Clock) -> None:
    home = a_home(clock, 0.5, steps=100)
    daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=RULES)
    for _ in range(12):
        daemon.tick()
    finding = home.judgement("parent").findings[0]
    assert (finding.outcome, (finding.followed or {})["run"]) == (None, "child")
    assert "in run child: wait for what becomes of it" in summary(Store(home), "parent")["verdict"]


def test_an_outcome_that_is_nonsense_changes_nothing(tmp_path: Path, clock: Clock) -> None:
    home = a_home(clock, 0.5, lr=0.1)
    name = "plateau:run:1:10"
    for i, body in enumerate(
        ({"finding": name}, {"finding": name, "outcome": "great", "run": "x"})
    ):
        home.add_event("parent", Event("outcome", 300, body=body, id=f"odd-{i}"))
    Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=RULES).tick()
    assert [item.followed for item in home.judgement("parent").findings] == [None]


def test_a_parent_that_is_not_here_is_no_error(tmp_path: Path, clock: Clock) -> None:
    home = a_home(clock, 2.0)
    home.delete("parent")
    Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=RULES).tick()
    assert home.judgement("child").findings
    assert "answers" not in judge(Store(home), "child", rules=RULES)
    assert "answers" not in summary(Store(home), "child")


def test_the_second_of_three_runs_is_answered_though_it_is_judged_last(
    tmp_path: Path, clock: Clock
) -> None:
    home = a_home(clock, 0.5)
    home.write_meta("parent", {"parent": "first"})
    daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=RULES)
    home.acquire("parent", "another", 1000)
    daemon.tick()
    assert home.judgement("parent").cursor is None
    clock.now += 2
    for _ in range(12):
        daemon.tick()
    assert "helped" in {item.outcome for item in home.judgement("parent").findings}


@pytest.mark.parametrize("first", ["parent", "child"])
def test_what_became_of_it_is_told_by_two_daemons_that_judge_one_of_both_each(
    first: str, tmp_path: Path, clock: Clock
) -> None:
    """As it is with one that is started anew between the two: none knows what the other has seen."""
    home = a_home(clock, 0.5)
    other = "child" if first == "parent" else "parent"
    home.acquire(other, "another", 1000)
    one = Daemon(home, clock=clock, heartbeat=tmp_path / "one", rules=RULES)
    one.tick()
    assert home.judgement(other).cursor is None
    clock.now += 2
    home.acquire(first, "one", 1_000_000)
    two = Daemon(home, clock=clock, heartbeat=tmp_path / "two", rules=RULES)
    for _ in range(12):
        two.tick()
    home.release(first, "one")
    for _ in range(12):
        one.tick()
    (finding,) = [item for item in home.judgement("parent").findings if item.rule == "plateau"]
    assert (finding.outcome, (finding.followed or {})["run"]) == ("helped", "child")
    told = [event.id for _, event in home.events("parent")]
    assert len(set(told)) == len(told)
    assert dumps(summary(Store(home), "parent")) == dumps(judge(Store(home), "parent", rules=RULES))


UNITS = Recommendation(
    "activation", current={"net.1": "ReLU"}, proposed={"net.1": "LeakyReLU"}, also=[]
)


@pytest.mark.parametrize(
    ("applied", "outcome"),
    [
        ([{"parameter": "activation", "proposed": {"net.1": "LeakyReLU"}}], "helped"),
        ([{"parameter": "activation", "proposed": {"net.4": "LeakyReLU"}}], None),
        ([{"parameter": "activation"}, 3], None),
        (None, None),
    ],
    ids=["as advised", "in another layer", "nonsense", "nothing"],
)
def test_advice_that_no_setting_shows_is_followed_where_a_script_says_that_it_applied_it(
    applied: object, outcome: str | None, tmp_path: Path, clock: Clock
) -> None:
    home = a_home(clock, 0.5, lr=0.1)
    body = {"world_size": 1, "start_step": 0, "settings": {"optimizers": [], "applied": applied}}
    home.write_meta("heir", {"name": "heir", "parent": "parent", "started": 1.0})
    home.add_schema("heir", TRAIN)
    log = frames(range(1, 401), lambda step: 0.5)
    home.append("heir", log, [Event("started", body=body, id="started")])
    home.write_meta("heir", {"ended": ENDED})
    daemon = Daemon(home, clock=clock, heartbeat=tmp_path / "beat", rules=[rule(advice=UNITS)])
    for _ in range(12):
        daemon.tick()
    (finding,) = home.judgement("parent").findings
    assert finding.outcome == outcome
    if outcome is not None:
        assert (finding.followed or {})["to"] == {"net.1": "LeakyReLU"}
        assert "activation ReLU in `net.1` → LeakyReLU in `net.1`" in outcome_words(
            finding.to_json()
        )


def test_a_run_tells_what_was_applied_of_the_advice_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTOSCOPE_PARENT", "mlp-01jd4tq2")
    advice = {"parameter": "lr", "proposed": 0.1, "also": [{"parameter": "shuffle"}, "x"]}
    monkeypatch.setenv("OTOSCOPE_APPLIED", json.dumps(advice))
    run = train(tmp_path, 0.1, steps=3)
    home = MemoryHome()
    replay(tmp_path / run, home)
    (started,) = [event for _, event in home.events(run) if event.kind == "started"]
    assert started.body["settings"]["applied"] == [{"parameter": "lr", "proposed": 0.1}]
    for nonsense in ("{", "[" * 20_000, "3", json.dumps({"parameter": 1}), "x" * 40_000):
        told = {"OTOSCOPE_PARENT": "mlp-01jd4tq2", "OTOSCOPE_APPLIED": nonsense}
        assert applied_of(told) == []
