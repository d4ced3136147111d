"""The life of a run under a Lightning Trainer: beginning, resuming, failing, ending."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Activations, Gradients, Otoscope
from otoscope.store import ConfigError, Event, MemoryHome
from otoscope.store.places import recordings
from torch.nn import functional

from tests.callbacks.fits import PACKAGES, QUIET, data, fit, mlp, module, package, recorded

NAME = PACKAGES[0]


def events(where: Path, run: str | None) -> list[Event]:
    assert run is not None
    return recorded(where, run).events(run)


def quiet(where: Path, **options: Any) -> Any:
    return Otoscope(**{"spool": where, "strict": True, "verdict": False, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": 5.0}, "budget must be in (0, 1], got 5.0; 0.05 means five percent"),
        ({"budget": 0}, "budget must be in (0, 1]"),
        ({"budget": float("nan")}, "budget must be in (0, 1]"),
        ({"budget": True}, "budget must be in (0, 1]"),
        ({"task": "segmentation"}, "task must be one of supervised"),
        ({"probes": "some"}, 'probes must be "default", "all" or a list'),
        ({"probes": [Gradients]}, "call the class"),
        ({"probes": [Gradients(), Gradients()]}, "each probe may be given once"),
        ({"tags": "baseline"}, 'write tags=["baseline"]'),
        ({"tags": [1]}, "tags must be a list of strings"),
        ({"url": "localhost:6379"}, "redis://"),
        ({"run": 3}, "run must be a name"),
        ({"notes": None}, "notes must be a string"),
        ({"spool": 3}, "spool must be the path"),
        ({"strict": 1}, "strict must be True or False"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_with_a_remedy(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Otoscope(**options)
    assert words in str(refused.value)


def test_making_the_callback_starts_nothing(tmp_path: Path) -> None:
    import threading

    before = threading.active_count()
    callback = quiet(tmp_path)
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []
    assert callback.run_id is None and callback.overhead == {}


@pytest.mark.parametrize("name", PACKAGES)
def test_the_callback_is_one_for_the_trainer_of_either_package(name: str, tmp_path: Path) -> None:
    both = [package(each).Callback for each in PACKAGES]
    callback = quiet(tmp_path)
    assert all(isinstance(callback, base) for base in both)
    assert isinstance(callback, Otoscope)
    # alone, not in a list: a Trainer asks for its own class then
    loader = torch.utils.data.DataLoader(data(), 16)
    trainer = package(name).Trainer(
        callbacks=callback, max_epochs=1, enable_checkpointing=False, **QUIET
    )
    trainer.fit(module(name), loader)
    kinds = [event.kind for event in events(tmp_path, callback.run_id)]
    assert kinds[0] == "started" and kinds[-1] == "finished"


def test_a_fit_leaves_a_registered_recording_with_its_meta(tmp_path: Path) -> None:
    callback = quiet(tmp_path, run="Base line", tags=["a", "b"], notes="first", budget=0.5)
    fit(NAME, tmp_path, [callback], accumulate_grad_batches=2, gradient_clip_val=1.0)
    assert callback.run_id is not None and callback.run_id.startswith("base-line-")
    store = recorded(tmp_path, callback.run_id)
    meta = store.meta(callback.run_id)
    assert (meta.name, meta.model, meta.tags, meta.notes) == (
        "Base line",
        "Net",
        ["a", "b"],
        "first",
    )
    assert meta.max_steps == 6 and meta.batch_size == 16 and meta.training_samples == 96
    assert meta.accumulate_grad_batches == 2 and meta.gradient_clip_val == 1.0
    assert meta.gradient_clip_algorithm == "norm" and meta.precision == "32-true"
    assert meta.parameter_count == sum(p.numel() for p in mlp().parameters())
    assert meta.optimizers[0]["name"] == "SGD" and meta.optimizers[0]["momentum"] == 0.9
    kinds = {row["name"]: row["kind"] for row in meta.parameters}
    assert kinds["net.0.weight"] == "weight" and kinds["net.0.bias"] == "bias"
    assert kinds["net.1.weight"] == "norm"
    assert meta.progress["step"] == 6 and 0 < meta.progress["loss_best"] < 10
    assert meta.ended is not None and meta.ended["how"] == "finished"
    assert meta.heartbeat["0"] >= meta.started > 0
    assert set(meta.overhead) == {"share", "seconds", "probes"}
    assert meta.overhead["seconds"] == pytest.approx(callback.overhead["seconds"], rel=0.2)
    assert store.run(callback.run_id).status == "finished"
    assert recordings() == [tmp_path / callback.run_id]


def test_train_holds_every_step_once_and_leaves_after_all_others(tmp_path: Path) -> None:
    home = MemoryHome()
    order: list[tuple[int, str]] = []
    append = home.append

    def spy(run: str, frames: Any, *args: Any, **options: Any) -> int:
        order.extend((frame.step, frame.family) for frame in frames)
        return append(run, frames, *args, **options)

    home.append = spy  # type: ignore[method-assign]
    callback = quiet(tmp_path, probes=[Gradients(every=2), Activations(every=3)])
    callback.sink = lambda: home
    fit(NAME, tmp_path, [callback])
    assert callback.run_id is not None
    trains = [step for step, family in order if family == "train"]
    assert trains == list(range(1, 13))
    for place, (step, family) in enumerate(order):
        if family != "train":
            assert all(s != step or f != "train" for s, f in order[:place]), (step, family)
    assert (6, "validation") in order and (12, "validation") in order


def test_sanity_checks_are_not_recorded_and_events_tell_the_story(tmp_path: Path) -> None:
    callback = quiet(tmp_path)
    fit(NAME, tmp_path, [callback], num_sanity_val_steps=2, enable_checkpointing=True)
    told = events(tmp_path, callback.run_id)
    story = [(e.kind, e.step) for e in told if e.kind != "probe_off"]
    assert story == [
        ("started", 0),
        ("epoch", 0),
        ("checkpoint", 6),
        ("epoch", 6),
        ("checkpoint", 12),
        ("finished", 12),
    ]
    started = told[0].body
    settings = started.pop("settings")
    assert started == {"world_size": 1, "batch_size": 16, "start_step": 0}
    assert settings["batch_size"] == 16
    saved = [e.body for e in told if e.kind == "checkpoint"]
    assert all(body["finite"] is True for body in saved)
    assert Path(saved[-1]["path"]).exists()
    assert callback.run_id is not None
    series = recorded(tmp_path, callback.run_id).read(callback.run_id, "validation")
    assert list(series.steps) == [6, 12]


@pytest.mark.parametrize("doing", ["fast_dev_run", "validate", "predict"])
def test_what_does_not_train_is_not_recorded(doing: str, tmp_path: Path) -> None:
    callback = quiet(tmp_path)
    if doing == "fast_dev_run":
        fit(NAME, tmp_path, [callback], fast_dev_run=True)
    else:
        loader = torch.utils.data.DataLoader(data(), 16)
        trainer = package(NAME).Trainer(callbacks=[callback], enable_checkpointing=False, **QUIET)
        net = module(NAME)
        net.predict_step = lambda batch, index=0: net.net(batch[0])
        getattr(trainer, doing)(net, loader)
    assert callback.run_id is None
    assert not list(tmp_path.glob("**/*.spool"))


def test_an_exception_is_the_users_own_and_is_told(tmp_path: Path) -> None:
    count = 0

    def step(net: Any, batch: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == 5:
            raise ZeroDivisionError("the user's own")
        return functional.cross_entropy(net.net(batch[0]), batch[1])

    callback = quiet(tmp_path)
    net = module(NAME, step)
    with pytest.raises(ZeroDivisionError, match="the user's own"):
        fit(NAME, tmp_path, [callback], net=net)
    told = events(tmp_path, callback.run_id)
    assert told[-1].kind == "exception" and told[-1].step == 4
    assert told[-1].body == {"type": "ZeroDivisionError", "message": "the user's own"}
    assert callback.run_id is not None
    store = recorded(tmp_path, callback.run_id)
    assert len(store.read(callback.run_id, "train")) == 4
    assert store.run(callback.run_id).status == "failed"
    assert all(not m._forward_hooks for m in net.modules())


def test_ctrl_c_is_told_and_passed_on(tmp_path: Path) -> None:
    def step(net: Any, batch: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    callback = quiet(tmp_path)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(NAME, tmp_path, [callback], net=module(NAME, step))
    assert events(tmp_path, callback.run_id)[-1].body["type"] == "KeyboardInterrupt"


def test_resuming_from_a_checkpoint_begins_a_new_attempt(tmp_path: Path) -> None:
    first = quiet(tmp_path)
    trainer, _ = fit(NAME, tmp_path, [first], enable_checkpointing=True)
    path = (
        trainer.checkpoint_callback.best_model_path or trainer.checkpoint_callback.last_model_path
    )

    second = quiet(tmp_path)
    fit(NAME, tmp_path, [second], max_epochs=3, ckpt_path=path)

    assert second.run_id == first.run_id
    told = events(tmp_path, first.run_id)
    resumed = next(event for event in told if event.kind == "resumed")
    assert resumed.attempt == 2 and resumed.body == {"from_attempt": 1, "from_step": 12}
    assert [e.body["start_step"] for e in told if e.kind == "started"] == [0, 12]
    assert first.run_id is not None
    store = recorded(tmp_path, first.run_id)
    assert store.meta(first.run_id).attempt == 2
    assert list(store.read(first.run_id, "train").steps) == list(range(1, 19))
    assert list(store.read(first.run_id, "train", attempt=2).steps) == list(range(13, 19))


def test_a_second_fit_without_a_checkpoint_is_a_new_run(tmp_path: Path) -> None:
    callback = quiet(tmp_path)
    fit(NAME, tmp_path, [callback])
    first = callback.run_id
    fit(NAME, tmp_path, [callback])
    assert callback.run_id != first
    for run in (first, callback.run_id):
        assert [e.kind for e in events(tmp_path, run)][-1] == "finished"


def test_a_checkpoint_of_a_run_with_otoscope_loads_without_it(tmp_path: Path) -> None:
    trainer, _ = fit(NAME, tmp_path, [quiet(tmp_path)], enable_checkpointing=True)
    path = trainer.checkpoint_callback.best_model_path
    state = torch.load(path, weights_only=True)["callbacks"]["Otoscope"]
    assert {key: type(value) for key, value in state.items()} == {
        "run_id": str,
        "attempt": int,
        "step": int,
    }
    again, _ = fit(NAME, tmp_path, [], max_epochs=3, ckpt_path=path)
    assert again.global_step == 18


def test_two_otoscope_callbacks_in_one_trainer_are_refused(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, RuntimeError), match="Otoscope"):
        fit(NAME, tmp_path, [quiet(tmp_path), quiet(tmp_path)])


def test_two_that_a_module_brings_along_are_refused_with_a_reason(tmp_path: Path) -> None:
    net = module(NAME)
    net.configure_callbacks = lambda: [Second(spool=tmp_path, verdict=False)]
    with pytest.raises(ConfigError, match="takes one Otoscope callback, got 2"):
        fit(NAME, tmp_path, [quiet(tmp_path)], net=net)


class Second(Otoscope):
    """A callback of a class of its own, which a module's `configure_callbacks` adds."""


def test_the_callback_can_be_pickled_before_and_after_a_fit(tmp_path: Path) -> None:
    callback = quiet(tmp_path, budget=0.5, tags=["x"])
    copy = pickle.loads(pickle.dumps(callback))
    assert copy.options == callback.options
    fit(NAME, tmp_path, [copy])
    again = pickle.loads(pickle.dumps(copy))
    assert again.run_id == copy.run_id and again.overhead == copy.overhead


def test_several_optimizers_are_told_apart(tmp_path: Path) -> None:
    base = package(NAME).LightningModule

    class Two(base):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.a, self.b = torch.nn.Linear(12, 3), torch.nn.Linear(12, 3)

        def training_step(self, batch: Any, index: int) -> None:
            for optimizer, net in zip(self.optimizers(), (self.a, self.b), strict=True):
                optimizer.zero_grad()
                self.manual_backward(functional.cross_entropy(net(batch[0]), batch[1]))
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [
                torch.optim.SGD(self.a.parameters(), 0.1),
                torch.optim.SGD(self.b.parameters(), 0.2),
            ]

    callback = quiet(tmp_path, probes=[Gradients(every=1)])
    fit(NAME, tmp_path, [callback], net=Two(), validate=False)
    assert callback.run_id is not None
    series = recorded(tmp_path, callback.run_id).read(callback.run_id, "train")
    assert list(series.steps) == list(range(1, 13))
    assert series.column("lr/0.0")[0] == pytest.approx(0.1)
    assert series.column("lr/1.0")[0] == pytest.approx(0.2)
    assert (series.column("loss") > 0).all()
    layers = recorded(tmp_path, callback.run_id).read(callback.run_id, "gradients")
    total = layers.column("grad_sq/a") + layers.column("grad_sq/b")
    assert (series.column("grad_sq") > total).all()  # and the biases


def test_raw_optimizers_of_a_manual_loop_are_counted(tmp_path: Path) -> None:
    base = package(NAME).LightningModule

    class Raw(base):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.net = torch.nn.Linear(12, 3)

        def training_step(self, batch: Any, index: int) -> Any:
            optimizer = self.optimizers(use_pl_optimizer=False)
            loss = functional.cross_entropy(self.net(batch[0]), batch[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    callback = quiet(tmp_path, probes=[Gradients(every=1)])
    fit(NAME, tmp_path, [callback], net=Raw(), validate=False)
    assert callback.run_id is not None
    store = recorded(tmp_path, callback.run_id)
    assert list(store.read(callback.run_id, "train").steps) == list(range(1, 13))
    layers = store.read(callback.run_id, "gradients")
    assert (layers.column("update_sq/net") > 0).all()
    assert store.meta(callback.run_id).config == {"loop": "lightning", "optimization": "manual"}


def test_a_verdict_of_three_lines_ends_the_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = quiet(tmp_path, verdict=True)
    fit(NAME, tmp_path, [callback])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()][-3:]
    assert "Judged" in lines[1]
    assert "%" not in lines[1]  # what a second of training cost is no measure
    assert callback.run_id is not None and callback.run_id in lines[2]


def test_an_unusable_spool_is_logged_and_leaves_the_run_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("no folder")
    with caplog.at_level(logging.WARNING, "otoscope"):
        trainer, _ = fit(NAME, tmp_path, [Otoscope(spool=blocked)])
    assert trainer.global_step == 12
    assert "cannot record into" in caplog.text
