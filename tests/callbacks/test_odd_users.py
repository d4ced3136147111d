"""What users do to their model in the middle of a run, and odd things that they raise and return."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Activations, Gradients, attach
from torch.nn import functional

from tests.callbacks.fits import data, mlp, recorded, seed

Change = Callable[[Any, Any, int], None]


def nothing(model: Any, optimizer: Any, step: int) -> None:
    return None


def run(where: Path | None, change: Change = nothing, loss_as: Any = None) -> tuple[Any, Any]:
    """Train 12 steps, `change(model, optimizer, step)` before each; returns (recorder, model)."""
    seed()
    model = mlp()
    groups = [{"params": [p]} for p in model.parameters()]
    optimizer = torch.optim.SGD(groups, 0.05, momentum=0.9)
    recorder = None
    if where is not None:
        probes = [Activations(every=1), Gradients(every=1)]
        recorder = attach(model, optimizer, spool=where, verdict=False, probes=probes, budget=1.0)
    x, y = data().tensors
    for step in range(12):
        change(model, optimizer, step)
        rows = torch.randint(0, len(x), (16,))
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.step(loss if loss_as is None else loss_as(loss), 16)
    if recorder is not None:
        recorder.finish()
    return recorder, model


def pickled(model: Any, optimizer: Any, step: int) -> None:
    torch.save(model, io.BytesIO())
    torch.save(optimizer, io.BytesIO())
    copy.deepcopy((model, optimizer))


def test_model_and_optimizer_can_be_saved_and_copied_in_the_middle(tmp_path: Path) -> None:
    _, bare = run(None, pickled)
    recorder, watched = run(tmp_path, pickled)
    for key, value in bare.state_dict().items():
        assert torch.equal(value, watched.state_dict()[key]), key
    assert len(recorded(tmp_path, recorder.run_id).read(recorder.run_id, "activations")) == 12


def test_a_saved_model_asks_for_nothing_of_ours_when_it_is_loaded(tmp_path: Path) -> None:
    saved: list[bytes] = []
    run(tmp_path, lambda model, optimizer, step: saved.append(pickle.dumps(model)))
    assert all(b"otoscope" not in text for text in saved)
    loaded = pickle.loads(saved[-1])
    assert loaded(torch.zeros(4, 12)).shape == (4, 3)


def test_a_copy_of_the_model_does_not_count_into_the_run(tmp_path: Path) -> None:
    def averaged(model: Any, optimizer: Any, step: int) -> None:
        twin = copy.deepcopy(model).eval()
        twin(torch.full((1000, 12), 1e6))

    recorder, _ = run(tmp_path, averaged)
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "activations", ["absmax"])
    assert len(series) == 12
    assert series.values.max() < 1e3


def test_a_parameter_group_that_is_taken_away_costs_its_own_column_alone(tmp_path: Path) -> None:
    def shrink(model: Any, optimizer: Any, step: int) -> None:
        if step == 6:
            optimizer.param_groups.pop()

    recorder, _ = run(tmp_path, shrink)
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "train")
    assert len(series) == 12
    assert (
        torch.tensor(series.column("lr/0.5").tolist()).isnan().tolist() == [False] * 6 + [True] * 6
    )


@pytest.mark.parametrize(
    "loss_as",
    [lambda loss: loss.expand(3), lambda loss: torch.zeros(0), lambda loss: torch.tensor(1j)],
    ids=["vector", "empty", "complex"],
)
def test_a_loss_that_is_no_number_is_said_once_and_the_step_recorded(
    loss_as: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, _ = run(tmp_path, loss_as=loss_as)
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "train")
    assert len(series) == 12
    assert torch.tensor(series.column("loss").tolist()).isnan().all()
    assert caplog.text.count("the loss must be one real number") == 1


def test_an_exception_that_cannot_be_printed_ends_the_recording_like_any_other(
    tmp_path: Path,
) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with (
        pytest.raises(OddError),
        attach(model, optimizer, spool=tmp_path, verdict=False) as recorder,
    ):
        raise OddError
    assert recorder.finished
    assert not [t for t in threading.enumerate() if t.name == "otoscope-sender"]
    ended = recorded(tmp_path, recorder.run_id).meta(recorder.run_id).ended
    assert ended is not None
    assert ended["how"] == "failed"
    assert "OddError" in ended["reason"]


def test_names_that_are_no_unicode_do_not_stop_the_recording(tmp_path: Path) -> None:
    seed()
    model = mlp()
    model.add_module("half \ud800 a pair", torch.nn.Linear(3, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with attach(
        model, optimizer, spool=tmp_path, verdict=False, notes="\udcff", strict=True
    ) as recorder:
        for _ in range(3):
            loss = model(torch.randn(8, 12)).square().mean()
            loss.backward()
            optimizer.step()
            recorder.step(loss, 8)
    assert recorder.sender.dropped_frames == 0
    store = recorded(tmp_path, recorder.run_id)
    assert store.meta(recorder.run_id).ended is not None
    assert len(store.read(recorder.run_id, "train")) == 3


def test_a_home_folder_that_cannot_be_written_to_costs_the_recording_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OTOSCOPE_HOME", str(tmp_path / "file" / "home"))
    recorder, _ = run(tmp_path / "spool")
    store = recorded(tmp_path / "spool", recorder.run_id)
    assert len(store.read(recorder.run_id, "train")) == 12
    assert "set OTOSCOPE_HOME" in caplog.text
    assert "cannot write to the store" not in caplog.text
