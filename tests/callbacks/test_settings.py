"""Settings that a script changes in the middle of a fit are told, and what had asked for them followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from otoscope.callbacks import Otoscope
from otoscope.diagnostics.judging import fold_run

from tests.callbacks.fits import PACKAGES, fit, package, recorded


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
