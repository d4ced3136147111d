"""Settings that a script changes in the middle of a fit are told, and what had asked for them followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Otoscope, recorder
from otoscope.callbacks.describing import described_anew, described_optimizer
from otoscope.callbacks.huggingface import OtoscopeCallback
from otoscope.diagnostics.judging import fold_run
from otoscope.store import Store

from tests.callbacks.fits import PACKAGES, fit, module, package, recorded


@pytest.mark.parametrize("name", PACKAGES)
def test_a_clip_value_and_an_accumulation_set_while_training_are_told_from_that_step_on(
    name: str, tmp_path: Path
) -> None:
    class Changing(package(name).Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 20:
                trainer.gradient_clip_val = 0.5

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            if trainer.current_epoch == 7:
                trainer.accumulate_grad_batches = 2

    callback = Otoscope(spool=tmp_path, strict=True, verdict=False)
    options = {"max_epochs": 9, "validate": False, "gradient_clip_val": 5.0}
    fit(name, tmp_path, [callback, Changing()], **options)
    store = recorded(tmp_path, str(callback.run_id))
    run = str(callback.run_id)
    told = [(e.step, e.body) for e in store.events(run) if e.kind == "action"]
    assert told == [
        (20, {"parameter": "gradient_clip_val", "from": 5.0, "to": 0.5}),
        (42, {"parameter": "accumulate_grad_batches", "from": 1, "to": 2}),
    ]
    fold = fold_run(store.home, run)
    assert (fold.settled.gradient_clip_val, fold.settled.accumulate_grad_batches) == (0.5, 2)


def test_a_fit_that_changes_nothing_tells_nothing(tmp_path: Path) -> None:
    callback = Otoscope(spool=tmp_path, strict=True, verdict=False)
    fit(PACKAGES[0], tmp_path, [callback], gradient_clip_val=5.0, accumulate_grad_batches=2)
    store = recorded(tmp_path, str(callback.run_id))
    assert not [e for e in store.events(str(callback.run_id)) if e.kind == "action"]


def set_anew(optimizer: torch.optim.Optimizer, **more: Any) -> None:
    """Set what a pasted rollback sets: rates, and what a schedule counts from."""
    for group in optimizer.param_groups:
        group.update(lr=0.3 * group["lr"], initial_lr=0.3 * group["initial_lr"], **more)


def told_rows(store: Store, run: str) -> list[Any]:
    """Return the first optimizer as Meta tells of it, and as each attempt does."""
    begun = [e.body["settings"]["optimizers"] for e in store.events(run) if e.kind == "started"]
    return [rows[0] for rows in (store.meta(run).optimizers, *begun)]


@pytest.mark.parametrize("name", PACKAGES)
def test_what_the_modules_own_hook_sets_at_the_start_is_told_as_the_attempts_settings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Any] = []
    monkeypatch.setattr(
        recorder, "described_anew", lambda *told: looks.append(told) or described_anew(*told)
    )

    class Going(type(module(name))):
        def on_train_start(self) -> None:
            if self.trainer.global_step:
                set_anew(self.trainer.optimizers[0], momentum=0.5)

    whole = Otoscope(spool=tmp_path, strict=True, verdict=False)
    trainer, _ = fit(name, tmp_path, [whole], net=Going(), max_steps=8)
    trainer.save_checkpoint(tmp_path / "a.ckpt")  # in the middle of an epoch
    later = Otoscope(spool=tmp_path, strict=True, verdict=False)
    kept = str(tmp_path / "a.ckpt")
    fit(name, tmp_path, [later], net=Going(), ckpt_path=kept, max_epochs=9)
    assert whole.run_id == later.run_id
    rows = told_rows(recorded(tmp_path, str(later.run_id)), str(later.run_id))
    told = [(row["base_lr"], row["lr"], row["momentum"]) for row in rows]
    mended = pytest.approx((0.015, 0.015, 0.5))
    assert told == [mended, (0.05, 0.05, 0.9), mended]
    assert len(looks) == 2  # once an attempt


def test_a_warm_up_by_hand_leaves_the_rate_as_the_optimizer_was_made_with_it(
    tmp_path: Path,
) -> None:
    name = PACKAGES[0]

    class Warming(package(name).Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = 0.05 * min(1.0, (trainer.global_step + 1) / 10)

    callback = Otoscope(spool=tmp_path, strict=True, verdict=False)
    fit(name, tmp_path, [Warming(), callback])
    rows = told_rows(recorded(tmp_path, str(callback.run_id)), str(callback.run_id))
    assert [row["lr"] for row in rows] == [0.05, 0.05]


def test_what_another_callback_of_hugging_faces_trainer_sets_at_the_start_is_told(
    tmp_path: Path,
) -> None:
    import transformers

    class Anew(transformers.TrainerCallback):
        def on_train_begin(self, *told: Any, **more: Any) -> None:
            set_anew(more["optimizer"], betas=(0.8, 0.9))

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(2, 1)

        def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
            return {"loss": self.net(x).square().mean(), "logits": x}

    callback = OtoscopeCallback(spool=tmp_path, strict=True, verdict=False)
    options: dict[str, Any] = {"max_steps": 3, "use_cpu": True, "report_to": [], "save_steps": 99}
    arguments = transformers.TrainingArguments(str(tmp_path / "out"), learning_rate=0.1, **options)
    rows: Any = [{"x": torch.ones(2), "labels": torch.zeros(1)}] * 40
    trainer = transformers.Trainer(Net(), arguments, train_dataset=rows, callbacks=[callback])
    trainer.add_callback(Anew())
    trainer.train()
    told = told_rows(recorded(tmp_path, str(callback.run_id)), str(callback.run_id))
    assert [(row["base_lr"], row["betas"]) for row in told] == [
        (pytest.approx(0.03), [0.8, 0.9])
    ] * 2


def test_a_setting_that_lies_on_a_device_is_not_waited_for_but_stays_as_told() -> None:
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=torch.tensor(0.1), capturable=True)
    told = described_optimizer(optimizer)
    (group,) = optimizer.param_groups
    far = torch.tensor(0.3, device="meta")  # to read it raises
    group.update(lr=far, betas=(far, 0.9), weight_decay=0.5)
    row = described_anew(optimizer, told)
    assert row == told | {"weight_decay": 0.5}
    group.update(lr=torch.tensor(0.25), betas=(0.8, 0.9))
    assert (described_anew(optimizer, told)["lr"], row["betas"]) == (0.25, [0.9, 0.999])
