"""Places on this machine that several processes write to at one moment."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

from otoscope.store.places import forget_recording, recordings, register_recording


def register(home: str, folders: list[Path], start: Any) -> None:
    os.environ["OTOSCOPE_HOME"] = home
    start.wait(20)
    for folder in folders:
        register_recording(folder)


def test_processes_that_register_their_recordings_at_one_moment_lose_none(
    tmp_path: Path, own_home: Path
) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    folders = [tmp_path / f"run-{i}" for i in range(60)]
    for folder in folders:
        folder.mkdir()
    jobs = [
        context.Process(target=register, args=(str(own_home), folders[i::4], start))
        for i in range(4)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
    assert [job.exitcode for job in jobs] == [0] * 4
    assert sorted(recordings()) == sorted(folders)
    forget_recording(folders[0])
    assert folders[0] not in recordings() and len(recordings()) == 59
