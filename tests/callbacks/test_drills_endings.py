"""Drills of the end: a full disk beside an absent server, deadlines, signals, processes that exit.

Compared as sets by a second reader, as in test_drills.py; times are held against the deadline.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from otoscope.callbacks.sender import MARGIN, Sender
from otoscope.store import MemoryHome, StoreUnavailableError, connect
from otoscope.store.places import recordings
from otoscope.store.redis_home import RedisHome
from otoscope.store.replaying import replay

from tests.callbacks.drills import RUN, Id, Training, stored, training, until
from tests.conftest import RedisProcess, find_free_port

pytestmark = pytest.mark.redis
SLACK = 6.0
"""Seconds for a loaded machine to schedule threads; deadlines are held to within it."""


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: writing goes on to a part and then fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def recorded(folder: Path) -> list[Id]:
    """What the folder of a run holds, in the order of each stream."""
    home = connect(folder).home
    found: list[Id] = []
    for stream in home.streams(RUN):
        found += [(stream.family, f.step, f.seq) for f in home.frames(RUN, stream)]
    return found


def test_a_full_disk_beside_an_absent_server_is_counted_to_the_last_sample(tmp_path: Path) -> None:
    process = RedisProcess(tmp_path, port=find_free_port())
    drill = training(process.url, tmp_path, held=50)

    def loses() -> bool:
        drill.steps(20)
        return drill.sender.dropped_frames > 0

    with small_disk(30_000):
        until(loses, "a loss")
    process.start()
    try:
        drill.steps(100)
        assert drill.sender.flush(20) and drill.sender.close()
        found = stored(process.url)
        lost = set(drill.emitted) - set(found.ids)
        assert 0 < len(lost) < len(drill.emitted)
        assert drill.sender.dropped_frames == len(lost)
        assert found.twice == [] and set(found.ids) <= set(drill.emitted)
        named = [
            (gap["family"], step, 1)
            for gap in found.gaps
            for step in range(int(gap["from"]), int(gap["to"]) + 1)
        ]
        assert lost <= set(named) and not set(named) & set(found.ids)
        assert sorted(found.events) == sorted(drill.events)
        assert not (tmp_path / RUN).exists() and recordings() == []
    finally:
        process.stop()


def test_a_full_disk_and_no_server_to_the_end_is_counted_to_the_last_sample(
    tmp_path: Path, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    drill = training(f"redis://127.0.0.1:{free_port}/0", tmp_path, held=50)
    with small_disk(30_000):
        drill.steps(600, pace=0.0005)
        assert drill.sender.close(0.3)
    there = recorded(tmp_path / RUN)
    lost = set(drill.emitted) - set(there)
    assert len(there) == len(set(there)) > 0
    assert drill.sender.dropped_frames == len(lost) > 0
    gaps = [event.body for event in connect(tmp_path / RUN).events(RUN) if event.kind == "gap"]
    for gap in gaps:
        named = {(gap["family"], step, 1) for step in range(gap["from"], gap["to"] + 1)}
        assert not named & set(there)
    assert "samples are lost" in caplog.text


def test_the_end_of_a_run_waits_for_a_stalled_server_no_longer_than_its_deadline(
    tmp_path: Path,
) -> None:
    process = RedisProcess(tmp_path).start()
    drill = training(process.url, tmp_path)
    drill.steps(100)
    assert drill.sender.flush(20)
    assert process.process is not None
    process.process.send_signal(signal.SIGSTOP)
    try:
        drill.steps(200)
        begun = time.monotonic()
        assert drill.sender.close(0.5)
        assert time.monotonic() - begun < 0.5 + MARGIN + SLACK
    finally:
        process.process.send_signal(signal.SIGCONT)
    there, here = set(stored(process.url).ids), set(recorded(tmp_path / RUN))
    process.stop()
    assert there | here == set(drill.emitted)
    assert recordings() == [tmp_path / RUN]


def hanging(release: threading.Event) -> Callable[[], Any]:
    """A store that answers no call at all, as a name server that never resolves."""

    class Hanging(MemoryHome):
        def append(self, *args: Any, **options: Any) -> int:
            release.wait(30)
            raise StoreUnavailableError("at last")

    return Hanging


def test_a_call_that_never_returns_leaves_everything_on_disk(tmp_path: Path) -> None:
    release = threading.Event()
    drill = Training(Sender(RUN, hanging(release), tmp_path / RUN, linger=0.01)).begin()
    drill.steps(100)
    begun = time.monotonic()
    assert not drill.sender.close(0.2)
    assert time.monotonic() - begun < 0.2 + MARGIN + SLACK
    assert set(recorded(tmp_path / RUN)) == set(drill.emitted)
    release.set()
    until(lambda: not threads(), "the end of the thread")
    assert set(recorded(tmp_path / RUN)) == set(drill.emitted)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "otoscope-sender"]


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.callbacks.drills import training
drill = training({url!r}, Path({folder!r}))
drill.steps(100)
assert drill.sender.flush(20)
print("flushed", flush=True)
sys.stdin.readline()
drill.steps(300)
print("over", flush=True)
{ending}
"""

WAITING = """
import threading
def tell():
    drill.sender._closing.wait(60)
    print("waiting", flush=True)
threading.Thread(target=tell, daemon=True).start()
try:
    drill.sender.close(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""

FORKED = """
pid = os.fork()
if not pid:
    drill.steps(50)
    sys.exit(0)
os.waitpid(pid, 0)
"""


@contextmanager
def process_at_its_end(tmp_path: Path, ending: str, stall: bool) -> Iterator[Any]:
    """A training process that has emitted 400 steps, 300 of them since its server stalled."""
    server = RedisProcess(tmp_path).start()
    root = str(Path(__file__).parents[2])
    code = SCRIPT.format(root=root, url=server.url, folder=str(tmp_path), ending=ending)
    environment = {**os.environ, "OTOSCOPE_HOME": str(tmp_path / "otoscope-home")}
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdin is not None and server.process is not None
    try:
        assert child.stdout.readline() == "flushed\n"
        if stall:
            server.process.send_signal(signal.SIGSTOP)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "over\n"
        yield child, server
    finally:
        child.kill()
        child.wait(10)
        child.stdout.close()
        child.stdin.close()
        server.process.send_signal(signal.SIGCONT)
        server.stop()


def assert_all_400(tmp_path: Path, server: RedisProcess, *, on_disk: bool) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGCONT)
    there = set(stored(server.url).ids)
    here = set(recorded(tmp_path / RUN)) if on_disk else set()
    steps = range(1, 401)
    rows = {("train", s, 1) for s in steps} | {("gradients", s, 1) for s in steps if s % 5 == 0}
    assert there | here == rows


def test_a_process_that_forgot_to_finish_exits_within_the_deadline_and_loses_nothing(
    tmp_path: Path,
) -> None:
    with process_at_its_end(tmp_path, "", stall=True) as (child, server):
        begun = time.monotonic()
        assert child.wait(20) == 0
        assert time.monotonic() - begun < 2.0 + MARGIN + SLACK
        assert_all_400(tmp_path, server, on_disk=True)


def test_a_second_signal_ends_the_waiting_and_nothing_is_lost(tmp_path: Path) -> None:
    with process_at_its_end(tmp_path, WAITING, stall=True) as (child, server):
        assert child.stdout.readline() == "waiting\n"
        begun = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0
        assert time.monotonic() - begun < 2.0 + MARGIN + SLACK
        assert_all_400(tmp_path, server, on_disk=True)


def test_a_forked_child_that_exits_sends_nothing_and_its_parent_everything(tmp_path: Path) -> None:
    with process_at_its_end(tmp_path, FORKED, stall=False) as (child, server):
        assert child.wait(20) == 0
        assert_all_400(tmp_path, server, on_disk=False)


SPOOLING = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.callbacks.drills import training, until
drill = training({url!r}, Path({folder!r}))
drill.steps(400)
until(lambda: drill.sender.spooled_frames == len(drill.emitted), "the spool")
print("spooled", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_leaves_its_spool_where_it_is_found(
    tmp_path: Path, free_port: int, own_home: Path
) -> None:
    root, url = str(Path(__file__).parents[2]), f"redis://127.0.0.1:{free_port}/0"
    code = SPOOLING.format(root=root, url=url, folder=str(tmp_path))
    environment = {**os.environ, "OTOSCOPE_HOME": str(own_home)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,  # it reads until it is killed, or until this process is gone
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "spooled\n"
        child.kill()
    (folder,) = recordings()
    process = RedisProcess(tmp_path).start()
    try:
        taken = replay(folder, RedisHome(process.url))
        found = stored(process.url)
        assert taken.samples == len(found.ids) == 480
        assert {("train", step, 1) for step in range(1, 401)} < set(found.ids)
        assert found.twice == []
    finally:
        process.stop()
