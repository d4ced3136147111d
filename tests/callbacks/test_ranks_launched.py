"""The launchers of ranks, plain loops among them: all find each other; a rank may die; one resumes."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from otoscope.callbacks import Otoscope
from otoscope.dashboard.delta import delta
from otoscope.diagnostics import Daemon
from otoscope.store import Store, connect
from otoscope.store.ranks import rank_states

from ..conftest import RedisProcess
from .fits import QUIET
from .launching import LONGEST, Job, until
from .ranks_job import SLOW_SECONDS, STEPS, Net, rows


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory, server: RedisProcess) -> Iterator[Path]:
    """A script that launches its second rank itself (strategy "ddp"): two fits in a row."""
    with Job(tmp_path_factory.mktemp("script")) as job:
        job.start("ranks_job.py", ["ddp", "halfway", "after"], {"OTOSCOPE_URL": server.url})
        job.wait()
        yield job.folder


def runs_of(store: Store, name: str) -> list[str]:
    return [row.id for row in store.runs() if row.name == name]


def streams_of(store: Store, run: str, family: str = "train") -> set[tuple[int, int]]:
    return {(s.rank, s.attempt) for s in store.home.streams(run) if s.family == family}


@pytest.mark.redis
@pytest.mark.parametrize("phase", ["halfway", "after"])
def test_ranks_that_a_script_launches_record_one_run(
    script: Path, server: RedisProcess, phase: str
) -> None:
    store = connect(server.url)
    (run,) = runs_of(store, phase)
    told = [json.loads((script / f"{phase}-{rank}.json").read_text()) for rank in (0, 1)]
    assert [found["with"]["run"] for found in told] == [run, run]
    assert streams_of(store, run) == {(0, 1), (1, 1)}
    assert len(store.read(run, "train", ["loss"])) == STEPS
    assert [found["with"]["collectives"] for found in told] == [
        found["without"]["collectives"] for found in told
    ]
    assert not (script / "spool").exists()  # nothing waited on disk, and nothing was told there


@pytest.mark.redis
def test_a_run_resumes_with_another_number_of_ranks(
    script: Path, server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect(server.url)
    (run,) = runs_of(store, "halfway")
    monkeypatch.setenv("OTOSCOPE_URL", server.url)
    monkeypatch.chdir(script)
    callback = Otoscope("halfway", strict=True, verdict=False)
    trainer = pl.Trainer(
        max_steps=STEPS + 6, enable_checkpointing=False, callbacks=[callback], **QUIET
    )
    loader = torch.utils.data.DataLoader(rows(), 8)
    trainer.fit(Net("halfway"), loader, ckpt_path=str(script / "half.ckpt"))
    assert callback.run_id == run
    assert streams_of(store, run) == {(0, 1), (1, 1), (0, 2)}
    info = store.run(run)
    assert (info.attempt, info.world_size, info.status, info.lost_ranks) == (2, 1, "finished", [])
    samples = store.read(run, "train", ["samples"])
    assert samples.steps.tolist() == list(range(1, STEPS + 7))
    half = STEPS // 2
    assert set(samples.values[:half, 0]) == {16.0}
    assert set(samples.values[half:, 0]) == {8.0}


@pytest.mark.redis
def test_ranks_that_are_spawned_record_one_run(tmp_path: Path, server: RedisProcess) -> None:
    with Job(tmp_path) as job:
        job.start("ranks_job.py", ["ddp_spawn", "spawned"], {"OTOSCOPE_URL": server.url})
        job.wait()
    store = connect(server.url)
    assert len(runs_of(store, "spawned")) == 1, job.said()
    (run,) = runs_of(store, "spawned")
    assert streams_of(store, run) == {(0, 1), (1, 1)}, job.said()
    assert store.read(run, "train", ["samples"]).values[:, 0].tolist() == [16.0] * STEPS


def test_a_plain_loop_is_recorded_from_every_rank(tmp_path: Path) -> None:
    with Job(tmp_path) as job:
        job.start_ranks("ranks_loop.py", ["ddp"], {})
        job.wait()
    told = [json.loads((tmp_path / f"ddp-{rank}.json").read_text()) for rank in (0, 1)]
    run = told[0]["run"]
    assert told[1]["run"] == run
    store = connect(tmp_path / "spool" / run)
    assert streams_of(store, run) == {(0, 1), (1, 1)}
    assert streams_of(store, run, "gradients") == {(0, 1)}
    found = store.read(run, "train", ["grad_sq", "clip_factor", "wait_seconds"])
    # averaged over the ranks, and not yet clipped: as the loop itself saw them
    np.testing.assert_allclose(found.column("grad_sq"), told[0]["grad_sq"], rtol=1e-5)
    assert told[0]["grad_sq"] == told[1]["grad_sq"]
    clip = np.minimum(1, 0.1 / np.sqrt(told[0]["grad_sq"]))
    np.testing.assert_allclose(found.column("clip_factor"), clip, rtol=1e-3)
    medians = [np.nanmedian(found.column(f"wait_seconds@{rank}")) for rank in (0, 1)]
    assert medians[0] > SLOW_SECONDS / 2 > medians[1]


@pytest.mark.redis
def test_a_rank_that_is_killed_is_lost_and_the_other_is_judged_on(
    tmp_path: Path, server: RedisProcess
) -> None:
    store = connect(server.url)
    ahead = 0.0

    def clock() -> float:
        return time.time() + ahead

    daemon = Daemon(store.home, clock=clock, heartbeat=tmp_path / "beat")
    with Job(tmp_path) as job:
        job.start_ranks("ranks_loop.py", ["alone"], {"OTOSCOPE_URL": server.url})
        until(lambda: all((tmp_path / f"steps-{r}").exists() for r in (0, 1)), job)
        until(lambda: runs_of(store, "alone"), job)
        (run,) = runs_of(store, "alone")
        until(lambda: streams_of(store, run) == {(0, 1), (1, 1)}, job)
        job.processes[1].send_signal(signal.SIGKILL)
        job.processes[1].wait(10)
        died = store.home.last_id(run, _train(store, run, 1))
        assert died is not None
        until(lambda: _last(store, run, 0) > died[0] + 100, job)
        daemon.tick()
        assert _judged(store, run) <= died[0]
        ahead = 31.0
        daemon.tick()
        assert _judged(store, run) > died[0] + 50
        assert [e.body for e in store.events(run) if e.kind == "excluded"] == [
            {"rank": 1, "from_step": died[0]}
        ]
        assert rank_states(store.meta(run), clock())[1] in ("stale", "lost")
        (tmp_path / "stop").touch()
        assert job.processes[0].wait(60) == 0, job.said()
    later = Store(store.home, clock=lambda: clock() + 60)
    info = later.run(run)
    assert (info.status, info.lost_ranks) == ("finished", [1])
    assert [row.lost_ranks for row in later.runs() if row.id == run] == [[1]]


def _train(store: Store, run: str, rank: int) -> Any:
    return next(s for s in store.home.streams(run) if (s.family, s.rank) == ("train", rank))


def _last(store: Store, run: str, rank: int) -> int:
    last = store.home.last_id(run, _train(store, run, rank))
    return 0 if last is None else last[0]


def _judged(store: Store, run: str) -> int:
    return int(store.judgement(run).state["place"]["step"])


def test_the_error_of_the_rank_that_failed_first_is_the_one_that_is_shown(tmp_path: Path) -> None:
    with Job(tmp_path) as job:
        job.start_ranks("ranks_job.py", ["ddp", "raising"], {"TORCHELASTIC_RUN_ID": "raising"})
        assert [process.wait(LONGEST) != 0 for process in job.processes] == [True, True]
        assert "planted in rank 1" in job.said()
    (folder,) = (tmp_path / "spool").glob("raising-*")
    store = connect(folder)
    told = {e.rank: e.body["type"] for e in store.events(folder.name) if e.kind == "exception"}
    assert told == {0: "RuntimeError", 1: "ArithmeticError"}  # rank 0 fails at rank 1's absence
    shown = delta(store, folder.name)["run"]
    assert (shown["status"], shown["lost_ranks"]) == ("failed", [])
    assert shown["error"] == {"type": "ArithmeticError", "message": "planted in rank 1"}
