"""Lightning fits that end early, and modules and checkpoints that are not as usual."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Otoscope
from torch import nn
from torch.nn import functional

from tests.callbacks.fits import PACKAGES, fit, module, package, recorded


def watched(where: Path, **options: Any) -> Otoscope:
    return Otoscope(spool=where, verdict=False, **options)


def senders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "otoscope-sender"]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_fit_that_is_stopped_early_ends_its_recording(name: str, tmp_path: Path) -> None:
    class Stop(package(name).Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            trainer.should_stop = trainer.global_step >= 7

    callback = watched(tmp_path, strict=True)
    fit(name, tmp_path, [callback, Stop()], max_epochs=5)
    assert not senders()
    ended = recorded(tmp_path, str(callback.run_id)).meta(str(callback.run_id)).ended
    assert ended is not None
    assert ended["how"] == "finished"
    assert ended["reason"] == "stopped early"


@pytest.mark.parametrize("limit", [{"max_epochs": 2}, {"max_steps": 12, "max_epochs": -1}])
def test_a_fit_that_is_asked_to_stop_at_its_end_was_not_stopped_early(
    limit: dict[str, Any], tmp_path: Path
) -> None:
    class Stop(package(PACKAGES[0]).Callback):
        def on_train_end(self, trainer: Any, *args: Any) -> None:
            trainer.should_stop = True

    callback = watched(tmp_path, strict=True)
    fit(PACKAGES[0], tmp_path, [callback, Stop()], **limit)
    ended = recorded(tmp_path, str(callback.run_id)).meta(str(callback.run_id)).ended
    assert ended is not None
    assert ended["reason"] == "end of training"


def test_a_recording_ends_even_where_its_reason_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(trainer: Any) -> bool:
        raise AttributeError("another version of Lightning")

    monkeypatch.setattr("otoscope.callbacks.trainer.stopped_early", broken)
    callback = watched(tmp_path)
    fit(PACKAGES[0], tmp_path, [callback])
    assert not senders()
    assert recorded(tmp_path, str(callback.run_id)).meta(str(callback.run_id)).ended is not None


def test_a_fit_that_was_cut_off_unseen_is_ended_by_the_next(tmp_path: Path) -> None:
    class Rude(package(PACKAGES[0]).Callback):
        angry = True

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if self.angry and trainer.global_step == 3:
                raise ValueError("the first")

        def on_exception(self, *args: Any) -> None:
            raise KeyError("the second")

    rude, callback, net = Rude(), watched(tmp_path, strict=True), module(PACKAGES[0])
    with pytest.raises(KeyError, match="the second"):
        fit(PACKAGES[0], tmp_path, [rude, callback], net=net)
    first, rude.angry = str(callback.run_id), False
    fit(PACKAGES[0], tmp_path, [rude, callback], net=net)
    assert not senders()
    assert all(not child._forward_hooks for child in net.modules())
    ended = recorded(tmp_path, first).meta(first).ended
    assert ended is not None
    assert ended["how"] == "failed"
    assert len(recorded(tmp_path, str(callback.run_id)).read(str(callback.run_id), "train")) == 12


class WithoutRate(torch.optim.Optimizer):
    """An optimizer that has no learning rate, or None for it."""

    def __init__(self, parameters: Any, settings: dict[str, Any]) -> None:
        super().__init__(parameters, settings)

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        loss = closure() if closure else None
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter -= 0.01 * parameter.grad
        return loss


@pytest.mark.parametrize("settings", [{}, {"lr": None}], ids=["none", "lr=None"])
def test_an_optimizer_without_a_learning_rate_is_recorded(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    net = module(PACKAGES[0])
    net.configure_optimizers = lambda: WithoutRate(net.parameters(), settings)
    callback = watched(tmp_path, strict=True)
    fit(PACKAGES[0], tmp_path, [callback], net=net)
    store = recorded(tmp_path, str(callback.run_id))
    series = store.read(str(callback.run_id), "train")
    assert len(series) == 12
    assert torch.tensor(series.column("lr/0.0").tolist()).isnan().all()
    assert not [event for event in store.events(str(callback.run_id)) if event.kind == "lr"]


def test_a_lazy_module_costs_its_own_probe_alone(tmp_path: Path) -> None:
    def loss(self: Any, batch: Any) -> torch.Tensor:
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    net = module(PACKAGES[0], loss)
    net.net = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Linear(16, 3))
    callback = watched(tmp_path)
    fit(PACKAGES[0], tmp_path, [callback], net=net, validate=False)
    store = recorded(tmp_path, str(callback.run_id))
    assert len(store.read(str(callback.run_id), "train")) == 12


@pytest.mark.parametrize(
    "state",
    [
        {"run_id": "../x", "attempt": 1, "step": 3},
        {"run_id": "a-1", "attempt": 1, "step": -5},
        {"run_id": "a-1", "attempt": 10**30, "step": 5},
        {"run_id": 5},
        {},
    ],
)
def test_nonsense_in_a_checkpoint_begins_a_new_run(state: dict[str, Any], tmp_path: Path) -> None:
    callback = watched(tmp_path, strict=True)
    callback.load_state_dict(state)
    fit(PACKAGES[0], tmp_path, [callback])
    run = str(callback.run_id)
    assert run.startswith("net-")
    assert list(recorded(tmp_path, run).read(run, "train").steps) == list(range(1, 13))
