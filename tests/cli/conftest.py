"""What the tests of the command line share: a recorded run, and the command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from otoscope.store import Column, Event, Frame, Schema
from otoscope.store.recording import RecordingSink

OTOSCOPE = [sys.executable, "-m", "otoscope.cli.main"]
COLUMNS = ("loss", "lr", "non_finite")


def record(
    directory: Path,
    run: str,
    *,
    steps: int = 300,
    bad_from: int | None = None,
    columns: tuple[str, ...] = COLUMNS,
) -> Path:
    """Write a finished run of falling loss, or of one that is NaN from a step on."""
    schema = Schema("train", tuple(Column.of(name) for name in columns))
    sink = RecordingSink(directory, run)
    sink.begin_attempt(run)
    sink.write_meta(run, {"name": "toy", "model": "Toy", "started": 1000.0, "world_size": 1})
    sink.add_schema(run, schema)
    frames = []
    for step in range(1, steps + 1):
        bad = bad_from is not None and step >= bad_from
        loss = np.nan if bad else 2.3 * np.exp(-step / 100)
        row = {"loss": loss, "lr": 0.1, "non_finite": float(bad)}
        values = np.array([row[name] for name in columns], dtype=np.float32)
        frames.append(Frame("train", 0, 1, step, 1000.0 + step, schema.hash, values))
    events = [
        Event("started", t=1000.0, body={"world_size": 1, "batch_size": 32, "start_step": 0}),
        Event("finished", step=steps, t=1000.0 + steps, body={"reason": "max_steps"}),
    ]
    fields = {
        "heartbeat": {"0": 1000.0 + steps},
        "progress": {"step": steps, "loss": float(frames[-1].values[0]), "loss_best": 0.2},
        "ended": {"attempt": 1, "how": "finished", "t": 1000.0 + steps, "reason": "max_steps"},
    }
    sink.append(run, frames, events, fields)
    sink.close()
    return directory


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    return record(tmp_path / "healthy", "healthy-01")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return record(tmp_path / "broken", "broken-01", bad_from=150)


def otoscope(
    *arguments: str | Path, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*OTOSCOPE, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(environment or {})},
        cwd=cwd,
    )


def wait_until(condition: Callable[[], object], patience: float = 60.0) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "the condition never came"
        time.sleep(0.05)


class Up:
    """`otoscope up` as a person starts it in a terminal: a process group of its own."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        self._file: IO[bytes] = log.open("wb")
        self.process = subprocess.Popen(
            [*OTOSCOPE, "up", "--no-browser", *arguments],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def said(self) -> str:
        return self.log.read_text()

    def wait_until_ready(self) -> Up:
        wait_until(lambda: "is up at" in self.said() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()
        return self

    def children(self) -> dict[str, int]:
        """Return the pids of the parts, by name."""
        listing = subprocess.run(
            ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        ).stdout
        found = {}
        for line in listing.splitlines():
            pid, parent, arguments = line.split(None, 2)
            if int(parent) == self.process.pid:
                for name in ("redis-server", "valkey-server", "daemon", "dashboard"):
                    if name in arguments:
                        found["server" if name.endswith("-server") else name] = int(pid)
        return found

    def end(self, number: int) -> int:
        """Send a signal to the process alone and return the exit code."""
        self.process.send_signal(number)
        status = self.process.wait(60)
        self._file.close()
        return status

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self._file.close()


@pytest.fixture
def up(tmp_path: Path, redis_program: object) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str) -> Up:
        started.append(Up(tmp_path / f"up-{len(started)}.log", *arguments))
        return started[-1]

    yield start
    for one in started:
        one.clean_up()


@pytest.fixture(scope="session")
def redis_program() -> object:
    from otoscope.store import ServerError
    from otoscope.store.server_binary import find_binary

    from tests.conftest import missing

    try:
        return find_binary()
    except ServerError as error:
        missing("redis", str(error))
