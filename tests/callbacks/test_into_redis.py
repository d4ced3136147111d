"""A fit that records into a real Redis server, which may come and go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Activations, Gradients, Otoscope
from otoscope.store import connect
from torch.nn import functional

from tests.callbacks.fits import PACKAGES, fit, module
from tests.conftest import RedisProcess

pytestmark = pytest.mark.redis


def test_a_fit_arrives_whole_in_redis(redis_url: str, tmp_path: Path) -> None:
    callback = Otoscope(
        url=redis_url, spool=tmp_path / "spool", strict=True, verdict=False,
        probes=[Gradients(every=2), Activations(every=3)],
    )  # fmt: skip
    fit(PACKAGES[0], tmp_path, [callback])
    assert callback.run_id is not None
    store = connect(redis_url)
    assert list(store.read(callback.run_id, "train").steps) == list(range(1, 13))
    assert list(store.read(callback.run_id, "gradients").steps) == [1, 3, 5, 7, 9, 11]
    assert list(store.read(callback.run_id, "activations").steps) == [1, 4, 7, 10]
    assert [e.kind for e in store.events(callback.run_id)][-1] == "finished"
    assert store.run(callback.run_id).status == "finished"
    assert not (tmp_path / "spool").exists()
    store.close()


def test_the_verdict_of_a_run_in_redis_names_the_run(
    redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = Otoscope(url=redis_url, spool=tmp_path, strict=True)
    fit(PACKAGES[0], tmp_path, [callback])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert callback.run_id is not None and f"otoscope show {callback.run_id}" in lines[-1]


def test_a_server_that_dies_for_good_costs_the_run_nothing_and_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = RedisProcess(tmp_path).start()
    count = 0

    def step(net: Any, batch: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == 4:
            assert callback.recorder is not None and callback.recorder.sender.flush(10)
            server.kill()
        return functional.cross_entropy(net.net(batch[0]), batch[1])

    callback = Otoscope(url=server.url, spool=tmp_path / "spool")
    try:
        trainer, _ = fit(PACKAGES[0], tmp_path, [callback], net=module(PACKAGES[0], step))
    finally:
        server.stop()
    assert trainer.global_step == 12
    assert callback.run_id is not None
    kept = connect(tmp_path / "spool" / callback.run_id)
    steps = list(kept.read(callback.run_id, "train").steps)
    assert steps == list(range(13 - len(steps), 13)) and len(steps) >= 9
    assert [e.kind for e in kept.events(callback.run_id)][-1] == "finished"
    # and its second half alone is not judged as if it were the run
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()][-3:]
    assert lines[0].startswith("Not judged: the server went away")
    assert f"otoscope show {callback.run_id}" in lines[2]
    assert len(kept.damage) == 1 and f"before {steps[0]} are not in this folder" in kept.damage[0]


def test_nobody_at_the_address_is_no_reason_to_stop(tmp_path: Path, free_port: int) -> None:
    callback = Otoscope(
        url=f"redis://127.0.0.1:{free_port}/0", spool=tmp_path / "spool", verdict=False
    )
    trainer, _ = fit(PACKAGES[0], tmp_path, [callback])
    assert trainer.global_step == 12
    assert callback.run_id is not None
    kept = connect(tmp_path / "spool" / callback.run_id)
    assert list(kept.read(callback.run_id, "train").steps) == list(range(1, 13))
    assert kept.meta(callback.run_id).model == "Net"
