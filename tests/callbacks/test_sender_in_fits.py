"""The sender in real fits: what it has sent when a fit ends, however it ends, and what stays of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis
import torch
from otoscope.callbacks import Otoscope, sender
from otoscope.store import MemoryHome, StreamName, connect, keys
from torch.nn import functional

from tests.callbacks.fits import PACKAGES, data, fit, module, package
from tests.callbacks.fits import QUIET as SETTINGS

NAME = PACKAGES[0]


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "otoscope-sender"]


def stored_steps(url: str, run: str) -> list[int]:
    client: Any = redis.Redis.from_url(url)
    rows = client.xrange(keys.raw(run, StreamName("train", 0, 1)))
    client.close()
    return [int(place.split(b"-")[0]) for place, _ in rows]


def failing_at(step: int, error: BaseException) -> Any:
    seen = 0

    def training_step(net: Any, batch: Any) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if seen == step:
            raise error
        return functional.cross_entropy(net.net(batch[0]), batch[1])

    return module(NAME, training_step)


@pytest.mark.redis
@pytest.mark.parametrize("error", [ValueError("planted"), KeyboardInterrupt()], ids=repr)
def test_an_exception_in_a_step_leaves_every_step_before_it_stored(
    error: BaseException, redis_url: str, tmp_path: Path
) -> None:
    callback = Otoscope(url=redis_url, spool=tmp_path / "spool", verdict=False)
    with pytest.raises((ValueError, KeyboardInterrupt, SystemExit)):
        fit(NAME, tmp_path, [callback], net=failing_at(8, error))
    assert callback.run_id is not None
    assert stored_steps(redis_url, callback.run_id) == list(range(1, 8))
    store = connect(redis_url)
    assert [e.kind for e in store.events(callback.run_id)][-1] == "exception"
    store.close()
    assert threads() == [] and not (tmp_path / "spool").exists()


@pytest.mark.redis
def test_forked_workers_of_a_loader_send_nothing(redis_url: str, tmp_path: Path) -> None:
    callback = Otoscope(url=redis_url, spool=tmp_path / "spool", verdict=False, strict=True)
    loader = torch.utils.data.DataLoader(
        data(), 16, num_workers=1, multiprocessing_context="fork", persistent_workers=False
    )
    trainer = package(NAME).Trainer(
        callbacks=[callback], **SETTINGS, max_epochs=2, enable_checkpointing=False
    )
    trainer.fit(module(NAME), loader)
    assert callback.run_id is not None
    assert stored_steps(redis_url, callback.run_id) == list(range(1, 13))
    client: Any = redis.Redis.from_url(redis_url)
    events = client.xrange(keys.events(callback.run_id))
    client.close()
    assert len({row[b"e"] for _, row in events}) == len(events)
    assert threads() == []


def test_a_fit_cut_off_before_we_were_told_ends_the_thread_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "CUT_OFF_SECONDS", 0.3)
    home = MemoryHome()

    class Rude(package(NAME).Callback):  # type: ignore[misc]
        def on_exception(self, *args: Any) -> None:
            raise RuntimeError("no space left for a checkpoint")

    callback = Otoscope(spool=tmp_path, verdict=False)
    callback.sink = lambda: home
    with pytest.raises(RuntimeError, match="no space left"):
        fit(NAME, tmp_path, [Rude(), callback], net=failing_at(8, ValueError("planted")))
    first = callback.run_id
    assert first is not None and threads() == ["otoscope-sender"]
    end = time.monotonic() + 20
    while threads():
        assert time.monotonic() < end, "the thread stays"
        time.sleep(0.02)
    ended = home.meta(first).ended
    assert ended is not None and ended["how"] == "failed" and "cut off" in ended["reason"]

    fit(NAME, tmp_path, [callback])
    steps = [frame.step for frame in home.frames(first, StreamName("train", 0, 1))]
    assert steps == list(range(1, 8))
    # what the recorder told when the next fit ended it, although the thread had ended
    assert [event.kind for _, event in home.events(first)][-1] == "exception"
    assert threads() == []
