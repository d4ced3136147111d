"""A recorder in a plain loop."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Activations, Gradients, attach
from otoscope.callbacks.budget import Budget
from otoscope.callbacks.ledger import BEGINNING
from otoscope.callbacks.noting import PAID_OVER
from otoscope.callbacks.probes.curvature import Curvature
from otoscope.callbacks.probes.probe import AFTERMATH
from otoscope.store import ConfigError, connect
from torch.nn import functional

from tests.callbacks.fits import Failing, data, mlp, random_states, recorded, seed


def loss_fn(model: Any, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def train(where: Path | None, steps: int = 30, accumulate: int = 1, **options: Any) -> Any:
    """Train a net with and without a recorder; returns (recorder, weights, random states)."""
    seed()
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    recorder = None
    if where is not None:
        settings = {"spool": where, "strict": True, "verdict": False, **options}
        recorder = attach(model, optimizer, loss_fn=loss_fn, **settings)
    x, y = data().tensors
    batch = None
    for _ in range(steps):
        optimizer.zero_grad()
        total = torch.zeros(())
        for _ in range(accumulate):
            rows = torch.randint(0, len(x), (16,))
            batch = (x[rows], y[rows])
            loss = loss_fn(model, batch) / accumulate
            loss.backward()
            total = total + loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        if recorder is not None:
            recorder.step(total, 16 * accumulate, batch=batch)
    if recorder is not None:
        recorder.validate({"val_loss": 0.25, "accuracy": torch.tensor(0.5), "name": "x"}, epoch=1)
        recorder.checkpoint(where / "last.pt" if where else "")
        recorder.finish()
    return recorder, model.state_dict(), random_states()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_plain_loop_ends_in_the_same_bits(accumulate: int, tmp_path: Path) -> None:
    _, bare, state = train(None, accumulate=accumulate)
    recorder, watched, other = train(tmp_path, accumulate=accumulate, budget=1.0, max_steps=30)
    for key, value in bare.items():
        assert torch.equal(value, watched[key]), key
    assert state == other
    store = recorded(tmp_path, recorder.run_id)
    assert list(store.read(recorder.run_id, "train").steps) == list(range(1, 31))


def test_curvature_is_measured_with_a_loss_and_batches(tmp_path: Path) -> None:
    _, bare, state = train(None)
    recorder, watched, other = train(tmp_path, probes=[Curvature(every=5)])
    for key, value in bare.items():
        assert torch.equal(value, watched[key]), key
    assert state == other
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "curvature")
    assert list(series.steps) == [20, 25, 30]
    assert (series.column("pool_samples") == 64).all()
    assert (series.column("lambda_1") > 0).all()


def test_events_metrics_and_cost_of_a_plain_loop_are_there(tmp_path: Path) -> None:
    recorder, _, _ = train(tmp_path, run="my loop")
    store = recorded(tmp_path, recorder.run_id)
    kinds = [event.kind for event in store.events(recorder.run_id) if event.kind != "probe_off"]
    assert kinds == ["started", "checkpoint", "finished"]
    series = store.read(recorder.run_id, "validation")
    assert sorted(series.columns) == ["accuracy", "epoch", "val_loss"]
    assert list(series.steps) == [30] and series.column("accuracy")[0] == 0.5
    assert store.meta(recorder.run_id).name == "my loop"
    assert 0 < recorder.overhead["share"] < 1
    probes = recorder.overhead["probes"]
    assert recorder.overhead["seconds"] == pytest.approx(sum(probes.values()))


def test_what_leaving_together_has_cost_is_booked_once_however_few_steps_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    booked: list[float] = []
    ended = Budget.ended

    def note(self: Budget, seconds: float, fixed: float) -> None:
        booked.append(fixed)
        ended(self, seconds, fixed)

    monkeypatch.setattr(Budget, "ended", note)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = attach(model, optimizer, spool=tmp_path, probes=[], strict=True, verdict=False)
    for step in range(1, 10 * PAID_OVER):
        if step == BEGINNING:  # the last step that leaves alone; the sender worked for 100 s
            recorder.sender.cpu_seconds += 100.0
        optimizer.step()
        recorder.step(torch.tensor(1.0), 1)
    recorder.finish()
    assert sum(booked) == pytest.approx(AFTERMATH * 100.0, rel=0.1)


def test_a_with_statement_tells_of_the_exception_and_lets_it_through(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ZeroDivisionError), attach(model, optimizer, spool=tmp_path) as recorder:
        raise ZeroDivisionError("the user's own")
    event = recorded(tmp_path, recorder.run_id).events(recorder.run_id)[-1]
    assert (event.kind, event.body["type"]) == ("exception", "ZeroDivisionError")


@pytest.mark.parametrize("where", ["attach", "arm", "sample", "disarm"])
def test_a_probe_that_raises_never_reaches_a_plain_loop(where: str, tmp_path: Path) -> None:
    _, bare, _ = train(None)
    recorder, watched, _ = train(tmp_path, strict=False, probes=[Failing(where)])
    for key, value in bare.items():
        assert torch.equal(value, watched[key]), key
    assert recorder.guard.failures["probe failing"] >= 1
    assert len(recorded(tmp_path, recorder.run_id).read(recorder.run_id, "train")) == 30


@pytest.mark.parametrize(
    "broken",
    [
        "watched.dead_units",
        "activations.saturated_share",
        "activations._tensor",
        "forwards._is_redirected",
        "forwards.is_real",
        "functional.activation_kind",
    ],
)
def test_a_measure_that_raises_in_a_forward_hook_never_reaches_the_forward_pass(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*args: Any, **options: Any) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(f"otoscope.callbacks.probes.{broken}", planted)
    recorder, _, _ = train(tmp_path, strict=False, probes=[Activations(every=1)])
    off = [
        e
        for e in recorded(tmp_path, recorder.run_id).events(recorder.run_id)
        if e.kind == "probe_off"
    ]
    assert [event.step for event in off] == [3]
    assert "failed 3 times: RuntimeError: planted" in off[0].body["why"]


def test_a_norm_that_raises_in_a_gradient_hook_never_reaches_the_backward_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otoscope.callbacks.probes import tap

    def planted(*args: Any) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(tap, "squared_norms", planted)
    recorder, _, _ = train(tmp_path, strict=False, probes=[Gradients(every=1)])
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "train")
    assert list(series.steps) == list(range(1, 31))
    assert all(math.isnan(value) for value in series.column("grad_sq"))


def test_a_step_after_the_end_is_ignored_and_finishing_twice_tells_once(tmp_path: Path) -> None:
    recorder, _, _ = train(tmp_path)
    recorder.step(1.0, 16)
    recorder.finish()
    store = recorded(tmp_path, recorder.run_id)
    assert recorder.steps == 30
    assert [e.kind for e in store.events(recorder.run_id)].count("finished") == 1


def test_finishing_twice_prints_one_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder, _, _ = train(tmp_path, verdict=True)
    recorder.finish()
    assert capsys.readouterr().out.count("otoscope report") == 1


def test_the_environment_names_the_run_and_a_second_process_is_a_new_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTOSCOPE_RUN_ID", "given-01")
    first, _, _ = train(tmp_path)
    second, _, _ = train(tmp_path)
    assert first.run_id == second.run_id == "given-01"
    assert second.sender.attempt == 2
    monkeypatch.setenv("OTOSCOPE_RUN_ID", "Not an id")
    with pytest.raises(ConfigError, match="a run id must match"):
        train(tmp_path)


def test_a_run_is_recorded_beside_a_folder_of_another_tool_that_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTOSCOPE_RUN_ID", "given-01")
    theirs = tmp_path / "given-01" / "meta.json"
    theirs.parent.mkdir()
    theirs.write_text('{"args": ["--lr", "0.1"]}')
    first, _, _ = train(tmp_path)
    second, _, _ = train(tmp_path)
    assert theirs.read_text() == '{"args": ["--lr", "0.1"]}'
    assert list(theirs.parent.iterdir()) == [theirs]
    assert first.directory == second.directory == tmp_path / "given-01-otoscope"
    assert (first.run_id, second.sender.attempt) == ("given-01", 2)
    assert connect(second.directory).runs()[0].id == "given-01"


def test_a_model_without_activations_or_parameters_to_train_is_no_error(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten())
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], 0.1)
    with attach(
        model, optimizer, spool=tmp_path, strict=True, verdict=False, budget=1.0
    ) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            loss = (weight * model(torch.ones(2, 3))).sum()
            loss.backward()
            optimizer.step()
            recorder.step(loss, 2)
    store = recorded(tmp_path, recorder.run_id)
    off = {
        e.body["probe"]: e.body["why"]
        for e in store.events(recorder.run_id)
        if e.kind == "probe_off"
    }
    assert store.events(recorder.run_id)[0].kind == "started"
    assert "no parameters that are trained" in off["gradients"]
    assert "no activation modules" in off["activations"]
    series = store.read(recorder.run_id, "train")
    assert series.column("grad_sq")[0] == pytest.approx(12.0)


def test_a_finished_recorder_holds_no_batch_and_no_hook(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = attach(
        model,
        optimizer,
        loss_fn=loss_fn,
        probes=[Curvature(every=50)],
        spool=tmp_path,
        strict=True,
        verdict=False,
    )
    x, y = data().tensors
    batch = (x[:16].clone(), y[:16])
    watch = weakref.ref(batch[0])
    loss = None
    for _ in range(20):
        optimizer.zero_grad()
        loss = loss_fn(model, batch)
        loss.backward()
        optimizer.step()
        recorder.step(loss, 16, batch=batch)
    loss = batch = None
    gc.collect()
    assert watch() is None  # sampled at step 20 and let go
    recorder.finish()
    assert all(not module._forward_hooks for module in model.modules())
    assert all(not p._post_accumulate_grad_hooks for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "net"}, "takes a torch module, got str"),
        ({"optimizer": []}, "at least one optimizer"),
        ({"optimizer": ["sgd"]}, "an optimizer of torch.optim"),
        ({"optimizer": torch.optim.SGD(mlp().parameters(), 0.1)}, "none of them is one of the"),
        ({"loss_fn": 3}, "loss_fn must be"),
        ({"max_steps": 0}, "max_steps must be a positive whole number"),
        ({"budget": 2}, "budget must be in (0, 1]"),
    ],
)
def test_what_cannot_be_attached_is_refused(change: dict[str, Any], words: str) -> None:
    model = mlp()
    settings = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), 0.1), **change}
    with pytest.raises(ConfigError) as refused:
        attach(settings.pop("model"), settings.pop("optimizer"), **settings)
    assert words in str(refused.value)


EXITS = {
    "left": ("finished", {"reason": "the process ended"}, ""),
    "raised": (
        "exception",
        {"type": "ValueError", "message": "the user's own"},
        'raise ValueError("the user\'s own")',
    ),
    "forked": (
        "finished",
        {"reason": "the process ended"},
        "if os.fork() == 0: sys.exit(0)\nos.wait()\ntrain()",
    ),
}


@pytest.mark.parametrize("how", EXITS)
def test_a_loop_that_nobody_finished_is_ended_with_its_process(how: str, tmp_path: Path) -> None:
    kind, body, lines = EXITS[how]
    program = f"""
import os, sys, torch
from otoscope.callbacks import attach

model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
recorder = attach(model, optimizer, spool=r"{tmp_path}", run="left", verdict=False)

def train():
    loss = model(torch.ones(4, 2)).square().mean()
    loss.backward()
    optimizer.step()
    recorder.step(loss, 4)

train()
{lines}
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == (1 if how == "raised" else 0), done.stderr
    (path,) = [path for path in tmp_path.iterdir() if path.name.startswith("left-")]
    store = recorded(tmp_path, path.name)
    last = store.events(path.name)[-1]
    assert (last.kind, last.body) == (kind, body)
    assert len(store.read(path.name, "train")) == (2 if how == "forked" else 1)


def test_a_recorder_that_was_let_go_is_not_kept_for_the_end_of_the_process(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = attach(model, optimizer, spool=tmp_path, verdict=False)
    recorder.sender.close(1.0)
    watch = weakref.ref(recorder)
    kept = weakref.ref(model)
    assert torch.nn.modules.module._global_forward_hooks  # its first step is to be sampled
    del recorder, optimizer, model
    gc.collect()
    assert watch() is None and kept() is None
    assert not torch.nn.modules.module._global_forward_hooks
