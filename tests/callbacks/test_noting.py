"""Steps in which nothing is due leave a note: what is recorded of them is what every step leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Otoscope
from otoscope.callbacks.noting import Noting
from otoscope.store import Series

from tests.callbacks.fits import PACKAGES, fit, module, package, recorded, seed

SAME = (
    "loss",
    "lr/0.0",
    "samples",
    "loss_scale",
    "skipped",
    "non_finite",
    "epoch",
    "wait_seconds@0",
)
"""Columns that hold no time."""


class Watched:
    """Counts the steps that were only noted; `refuse` sends them the long way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, refuse: bool = False) -> None:
        self.noted = 0
        note = Noting.note

        def counted(recorder: Noting, *told: Any) -> bool:
            taken = not refuse and note(recorder, *told)
            self.noted += taken
            return taken

        monkeypatch.setattr(Noting, "note", counted)


def trained(name: str, where: Path, *callbacks: Any, **options: Any) -> tuple[Any, Series]:
    """Return the callback and `train` of eight epochs of six batches, in which little is measured."""
    otoscope = Otoscope(spool=where, budget=1e-6, probes=[], strict=True, verdict=False)
    fit(name, where, [otoscope, *callbacks], **{"max_epochs": 8, "validate": False, **options})
    run = str(otoscope.run_id)
    return otoscope, recorded(where, run).read(run, "train")


def each_step(name: str) -> Any:
    """Return a module whose learning rate changes in every step."""
    seed()
    net = module(name)
    base = net.configure_optimizers

    def configure() -> Any:
        [optimizer], _ = base()
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    net.configure_optimizers = configure
    return net


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("parts", [1, 5])
def test_a_noted_step_records_what_the_long_way_does(
    name: str, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": parts}
    with monkeypatch.context() as patch:
        watched = Watched(patch)
        _, short = trained(name, tmp_path / "short", net=each_step(name), **options)
    with monkeypatch.context() as patch:
        Watched(patch, refuse=True)
        _, long = trained(name, tmp_path / "long", net=each_step(name), **options)
    # in a window of several micro-batches the loss is another one: it goes the long way
    assert watched.noted > 20 if parts == 1 else watched.noted == 0
    assert short.steps.tolist() == long.steps.tolist() == list(range(1, 1 + len(long.steps)))
    for column in SAME:
        np.testing.assert_array_equal(short.column(column), long.column(column), column)
    assert np.all(np.diff(short.times) > 0)
    assert np.all(short.column("step_seconds@0")[1:] > 0) and np.all(
        short.column("overhead_seconds@0") > 0
    )
    assert np.all(short.column("data_seconds@0") >= 0)


def test_a_window_that_is_cut_short_counts_all_its_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cutting(package(PACKAGES[0]).Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = 0

        def on_train_batch_start(self, trainer: Any, *told: Any) -> None:
            self.batches += 1
            trainer.accumulate_grad_batches = 3 if self.batches == 26 else 1

    with monkeypatch.context() as patch:
        watched = Watched(patch)
        _, short = trained(PACKAGES[0], tmp_path / "short", Cutting())
    with monkeypatch.context() as patch:
        Watched(patch, refuse=True)
        _, long = trained(PACKAGES[0], tmp_path / "long", Cutting())
    assert watched.noted > 20
    assert short.column("samples").tolist() == long.column("samples").tolist()
    assert sorted(set(short.column("samples"))) == [16, 32]


def test_an_event_in_the_middle_of_a_noted_step_is_told_behind_the_frame_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)

    class Telling(package(PACKAGES[0]).Callback):  # type: ignore[misc]
        def on_before_optimizer_step(self, trainer: Any, *told: Any) -> None:
            if trainer.global_step in (20, 27):
                otoscope = next(c for c in trainer.callbacks if isinstance(c, Otoscope))
                assert otoscope.recorder is not None
                otoscope.recorder.event("note", {"text": "here"})

    otoscope, series = trained(PACKAGES[0], tmp_path, Telling())
    run = str(otoscope.run_id)
    told = [event.step for event in recorded(tmp_path, run).events(run) if event.kind == "note"]
    assert [step for step in told if step in (20, 27)] == [20, 27]
    assert watched.noted > 20 and len(series.steps) == 48


def test_noted_steps_are_stored_where_the_training_ends_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)

    class Breaking(package(PACKAGES[0]).Callback):  # type: ignore[misc]
        def on_train_batch_start(self, trainer: Any, *told: Any) -> None:
            if trainer.global_step == 38:
                raise RuntimeError("planted")

    otoscope = Otoscope(spool=tmp_path, budget=1e-6, probes=[], verdict=False)
    with pytest.raises(RuntimeError, match="planted"):
        fit(PACKAGES[0], tmp_path, [otoscope, Breaking()], max_epochs=8, validate=False)
    run = str(otoscope.run_id)
    assert recorded(tmp_path, run).read(run, "train").steps.tolist() == list(range(1, 39))
    assert watched.noted > 10


def test_gradients_are_measured_again_once_they_are_due(tmp_path: Path) -> None:
    """The hook that measures them rests meanwhile."""
    called: list[bool] = []

    class Watching(package(PACKAGES[0]).Callback):  # type: ignore[misc]
        def on_before_zero_grad(self, trainer: Any, *told: Any) -> None:
            otoscope = next(c for c in trainer.callbacks if isinstance(c, Otoscope))
            called.append(callable(otoscope.on_before_optimizer_step))

    otoscope = Otoscope(spool=tmp_path, budget=0.1, strict=True, verdict=False)
    fit(PACKAGES[0], tmp_path, [otoscope, Watching()], max_epochs=30, validate=False)
    series = recorded(tmp_path, str(otoscope.run_id)).read(str(otoscope.run_id), "train")
    measured = np.isfinite(series.column("grad_sq"))
    assert len(called) == len(measured) == 180
    assert not any(m and not c for m, c in zip(measured, called, strict=True))
    assert 3 < measured.sum() < 180 and not all(called)
