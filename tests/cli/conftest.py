"""What the tests of the command line share: recorded runs, the command as a process, and demos beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from otoscope.store import Column, Event, Frame, Schema
from otoscope.store.recording import RecordingSink

from tests.conftest import find_free_port

Demos = dict[tuple[str, int], Future[subprocess.CompletedProcess[str]]]
WHOLE_DEMO = "test_the_fault_is_found_and_mended"
"""Tests that wait for a demo, some 40 s of two cores each: they come last, and are begun long before."""
MANY = 50
"""So many other tests are long enough for demos to be played beside them, and out of their way."""

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


# ---- demos -----------------------------------------------------------------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let what waits for a demo come last, where all tests are of one process."""
    if not _is_one_of_several(config):
        items.sort(key=_waits_for_a_demo)


def _is_one_of_several(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")  # pytest-xdist's: each of its workers collects all tests


def _waits_for_a_demo(item: pytest.Item) -> bool:
    return getattr(item, "originalname", "") == WHOLE_DEMO


@pytest.fixture(scope="session", autouse=True)
def begun_early(request: pytest.FixtureRequest) -> None:
    """Begin the demos with the first test of the command line; of several workers only who waits for them."""
    if not _is_one_of_several(request.config):
        request.getfixturevalue("demos")


@pytest.fixture(scope="session")
def demos(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demos]:
    """Play each demo that a test of this session asks for.

    Beside many other tests one at a time, at what time these leave over; else two at a time, as each
    waits half of its time.
    """
    items = request.session.items
    asked = [item.callspec.params for item in items if _waits_for_a_demo(item)]  # type: ignore[attr-defined]
    beside = len(items) > MANY and not _is_one_of_several(request.config)
    # as it is now: tests that run meanwhile set variables and folders of their own
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTOSCOPE_")}
    pool = ThreadPoolExecutor(1 if beside else 2)
    try:
        yield {
            (told["fault"], told["seed"]): pool.submit(
                play, tmp_path_factory.mktemp("demo"), environment, beside, told
            )
            for told in asked
        }
    finally:
        pool.shutdown(cancel_futures=True)


def play(
    home: Path, environment: dict[str, str], beside: bool, told: dict[str, object]
) -> subprocess.CompletedProcess[str]:
    """Play a demo to its end; `beside`: behind whatever else wants the machine."""
    asked = ["--fault", str(told["fault"]), "--seed", str(told["seed"])]
    command = [*OTOSCOPE, "demo", "--once", "--json", "--port", str(find_free_port()), *asked]
    return subprocess.run(
        ["nice", "-n", "10", *command] if beside else command,
        env={**environment, "OTOSCOPE_HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=600 if beside else 280,
        check=False,
    )
