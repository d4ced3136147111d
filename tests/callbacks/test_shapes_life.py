"""How fits begin, go on and end: schedules, early stopping, resuming, signals, checkpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Activations, Gradients, Otoscope
from otoscope.store import ConfigError, connect

from tests.callbacks.fits import PACKAGES, QUIET, data, fit, module, package, recorded
from tests.callbacks.shapes import both, remembering

NAME = PACKAGES[0]


def watched(where: Path, **options: Any) -> Otoscope:
    return Otoscope(**{"spool": where, "strict": True, "verdict": False, **options})


def test_a_schedule_per_step_is_the_rate_that_each_step_used(tmp_path: Path) -> None:
    def optimizers(net: Any) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=12)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    told = both(tmp_path, lambda: remembering(optimizers), max_epochs=2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=12)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(told.column("lr/0.0"), expected, rtol=1e-6)


def test_early_stopping_ends_the_run_where_it_stopped(tmp_path: Path) -> None:
    def stopping() -> list[Any]:
        stop = package(NAME).callbacks.EarlyStopping("val_loss", mode="max", patience=1)
        return [stop]

    callback = watched(tmp_path)
    _, bare = fit(NAME, tmp_path, stopping(), max_epochs=20)
    trainer, net = fit(NAME, tmp_path, [callback, *stopping()], max_epochs=20)
    for key, value in bare.state_dict().items():
        assert torch.equal(value, net.state_dict()[key]), key
    run = str(callback.run_id)
    store = recorded(tmp_path, run)
    steps = trainer.global_step
    assert 6 < steps < 120
    assert list(store.read(run, "train").steps) == list(range(1, steps + 1))
    ended = store.meta(run).ended
    assert ended is not None and ended["reason"] == "stopped early"


class Killed(Exception):
    """The user's process is gone."""


@pytest.mark.parametrize("save_after", [False, True], ids=["ModelCheckpoint", "save_checkpoint"])
def test_resuming_in_the_middle_of_an_epoch_goes_on_with_the_run(
    save_after: bool, tmp_path: Path
) -> None:
    lightning = package(NAME)

    def saving() -> Any:
        return lightning.callbacks.ModelCheckpoint(tmp_path / "saved", every_n_train_steps=4)

    first = watched(tmp_path)
    if save_after:
        trainer, _ = fit(NAME, tmp_path, [first], max_steps=4, validate=False)
        path = tmp_path / "after.ckpt"
        trainer.save_checkpoint(path)
    else:

        class Kill(lightning.Callback):
            def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
                if trainer.global_step == 7:
                    raise Killed

        with pytest.raises(Killed):
            callbacks = [first, saving(), Kill()]
            fit(NAME, tmp_path, callbacks, enable_checkpointing=True, validate=False)
        (path,) = (tmp_path / "saved").glob("*.ckpt")
    second = watched(tmp_path)
    trainer, _ = fit(NAME, tmp_path, [second], ckpt_path=str(path), validate=False)
    end = trainer.global_step  # Lightning ends an epoch with the fit that was stopped in it
    assert end >= 10

    assert second.run_id == first.run_id
    run = str(first.run_id)
    store = recorded(tmp_path, run)
    assert list(store.read(run, "train").steps) == list(range(1, end + 1))
    again = store.read(run, "train", attempt=2)
    assert list(again.steps) == list(range(5, end + 1))
    resumed = [e for e in store.events(run) if e.kind == "resumed"]
    assert [e.body for e in resumed] == [{"from_attempt": 1, "from_step": 4}]
    # the later attempt wins the steps that both have done
    losses = store.read(run, "train").column("loss")
    np.testing.assert_allclose(losses[4:], again.column("loss"))


def test_a_resumed_run_may_have_another_world_size(tmp_path: Path) -> None:
    first = watched(tmp_path)
    trainer, _ = fit(NAME, tmp_path, [first], max_steps=4, validate=False)
    trainer.save_checkpoint(tmp_path / "four.ckpt")
    program = f"""
        import torch
        from otoscope.callbacks import Otoscope
        from tests.callbacks.fits import QUIET, data, module, package, seed

        if __name__ == "__main__":
            seed()
            lightning = package("{NAME}")
            callback = Otoscope(spool=r"{tmp_path}", strict=True, verdict=False)
            trainer = lightning.Trainer(
                **{{**QUIET, "accelerator": "cpu"}}, devices=2, strategy="ddp", max_steps=7,
                callbacks=[callback], enable_checkpointing=False, default_root_dir=r"{tmp_path}",
            )
            loader = torch.utils.data.DataLoader(data(192), 16)
            trainer.fit(module("{NAME}"), loader, ckpt_path=r"{tmp_path / "four.ckpt"}")
    """
    path = tmp_path / "two_ranks.py"
    path.write_text(textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = str(first.run_id)
    store = recorded(tmp_path, run)
    started = [e.body["world_size"] for e in store.events(run) if e.kind == "started"]
    assert started == [1, 2]
    assert store.meta(run).world_size == 2
    assert list(store.read(run, "train").steps) == list(range(1, 8))


def test_a_real_interrupt_ends_the_recording_and_is_passed_on(tmp_path: Path) -> None:
    class Interrupt(package(NAME).Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    callback = watched(tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(NAME, tmp_path, [callback, Interrupt()], max_epochs=5)
    assert signal.getsignal(signal.SIGINT) is handler
    run = str(callback.run_id)
    store = recorded(tmp_path, run)
    last = store.events(run)[-1]
    assert (last.kind, last.body["type"]) == ("exception", "KeyboardInterrupt")
    assert list(store.read(run, "train").steps) in ([1, 2, 3], [1, 2, 3, 4])
    ended = store.meta(run).ended
    assert ended is not None and ended["how"] == "failed"


@pytest.mark.parametrize("name", PACKAGES)
def test_two_callbacks_in_one_trainer_are_refused_by_us_with_a_reason(
    name: str, tmp_path: Path
) -> None:
    package(name)
    with pytest.raises(ConfigError, match="takes one Otoscope callback, got 2"):
        fit(name, tmp_path, [watched(tmp_path), watched(tmp_path)])


def test_evaluating_alone_makes_no_run_and_leaves_no_hook(tmp_path: Path) -> None:
    callback, net = watched(tmp_path, probes=[Gradients(every=1)]), module(NAME)
    loader = torch.utils.data.DataLoader(data(), 16)
    options = {**QUIET, "enable_checkpointing": False, "default_root_dir": tmp_path}
    trainer = package(NAME).Trainer(callbacks=[callback], **options)
    net.predict_step = lambda batch, index=0: net.net(batch[0])
    net.test_step = net.validation_step
    for doing in (trainer.validate, trainer.test, trainer.predict):
        doing(net, loader)
    assert callback.run_id is None and callback.recorder is None
    assert not list(tmp_path.glob("**/*.spool"))
    assert all(not m._forward_hooks for m in net.modules())


def test_a_checkpoint_loads_in_a_process_that_has_no_otoscope(tmp_path: Path) -> None:
    trainer, _ = fit(NAME, tmp_path, [watched(tmp_path)], max_steps=4)
    trainer.save_checkpoint(tmp_path / "with.ckpt")
    program = f"""
        import sys
        sys.modules["otoscope"] = None          # importing it fails
        import torch, {NAME} as lightning

        class Net(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                nn = torch.nn
                self.net = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(),
                                         nn.Dropout(0.2), nn.Linear(16, 3))
            def training_step(self, batch, index):
                return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            def configure_optimizers(self):
                optimizer = torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)
                return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)]

        torch.load(r"{tmp_path / "with.ckpt"}", weights_only=True)
        data = torch.utils.data.TensorDataset(torch.randn(96, 12), torch.zeros(96).long())
        trainer = lightning.Trainer(max_steps=9, accelerator="cpu", logger=False, max_epochs=9,
            enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False)
        loader = torch.utils.data.DataLoader(data, 16)
        trainer.fit(Net(), loader, ckpt_path=r"{tmp_path / "with.ckpt"}")
        print("steps", trainer.global_step)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "steps 9" in done.stdout


def test_a_second_fit_from_no_checkpoint_saves_the_state_of_its_own_run(tmp_path: Path) -> None:
    callback = watched(tmp_path)
    for _ in range(2):
        trainer, _ = fit(NAME, tmp_path, [callback], max_steps=3)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        state = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["Otoscope"]
        assert state == {"run_id": callback.run_id, "attempt": 1, "step": 3}
    runs = {path.name for path in tmp_path.iterdir() if path.name.startswith("net-")}
    assert len(runs) == 2
    assert all(connect(tmp_path / run).meta(run).ended is not None for run in runs)


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_a_loss_is_no_activation_also_where_a_strategy_leads_it_through_forward(
    strategy: str, tmp_path: Path
) -> None:
    class Hinge(package(NAME).LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = torch.nn.Linear(12, 8), torch.nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.first(x)))

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            signs = 2.0 * torch.nn.functional.one_hot(batch[1], 3) - 1
            return (1 - signs * self(batch[0])).clamp(min=0).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    callback = watched(tmp_path, probes=[Activations(every=1)])
    options: dict[str, Any] = {"validate": False, "max_steps": 3}
    try:
        fit(NAME, tmp_path, [callback], net=Hinge(), strategy=strategy, devices=1, **options)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    run = str(callback.run_id)
    series = recorded(tmp_path, run).read(run, "activations")
    names = [name for name in series.columns if name.startswith("saturated/")]
    assert names == ["saturated/relu()"]
    assert (series.column("numel/relu()") == 16 * 8).all()
