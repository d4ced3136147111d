"""A run that validates for long is alive: its heartbeat goes on although it makes no steps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from otoscope.callbacks import Otoscope
from otoscope.store import connect
from otoscope.store.home import Sink
from otoscope.store.recording import RecordingSink
from torch.utils.data import DataLoader

from tests.callbacks.fits import PACKAGES, QUIET, data, module, package, seed


@pytest.mark.parametrize("name", PACKAGES)
def test_the_heartbeat_goes_on_during_a_validation(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    during: list[str] = []
    write_meta = RecordingSink.write_meta

    def listen(self: Sink, run: str, fields: Any) -> None:
        if "heartbeat" in fields:
            told.append(fields["heartbeat"]["0"])
        write_meta(self, run, fields)  # type: ignore[arg-type]

    monkeypatch.setattr(RecordingSink, "write_meta", listen)
    seed()
    net = module(name)
    slow = net.validation_step

    def validation_step(batch: Any, batch_idx: int) -> None:
        during.append("validation")
        assert otoscope.recorder is not None
        otoscope.recorder.sender.flush(10)  # what was told before does not count
        begun = len(told)
        deadline = time.monotonic() + 10
        slow(batch, batch_idx)
        if batch_idx == 1:  # a second passes, and the sender has its turn
            while len(told) == begun and time.monotonic() < deadline:
                time.sleep(0.05)
                otoscope.on_validation_batch_end(net.trainer)
            assert len(told) > begun, "no heartbeat came while the validation went on"

    net.validation_step = validation_step
    otoscope = Otoscope(spool=tmp_path, verdict=False, strict=True, probes=[])
    trainer = package(name).Trainer(
        max_epochs=1,
        callbacks=[otoscope],
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        **QUIET,
    )
    trainer.fit(net, DataLoader(data(), 16), DataLoader(data(), 48))
    assert during
    assert told == sorted(told)


def test_the_pace_of_the_run_is_told_so_that_a_slow_step_is_not_taken_for_a_loss(
    tmp_path: Path,
) -> None:
    seed()
    otoscope = Otoscope(spool=tmp_path, verdict=False, strict=True, probes=[])
    trainer = package(PACKAGES[0]).Trainer(
        max_epochs=1, callbacks=[otoscope], enable_checkpointing=False, **QUIET
    )
    trainer.fit(module(PACKAGES[0]), DataLoader(data(), 16))
    meta = connect(tmp_path / str(otoscope.run_id)).meta(str(otoscope.run_id))
    assert 0 < meta.progress["step_seconds"] < 10
