"""The demo for real: three faults, two seeds, each found by the daemon and mended by its advice."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from otoscope.cli.demonstration import FAULTS, Outcome
from otoscope.cli.gap import gap_closed
from otoscope.store.places import process_lives

from tests.cli.conftest import OTOSCOPE, wait_until
from tests.conftest import find_free_port

SEEDS = (0, 1)
KEYS = set(Outcome("", 0, "").to_json())
pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(900)]


def play(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*OTOSCOPE, "demo", "--once", "--json", "--port", str(find_free_port()), *arguments],
        env={**os.environ, "OTOSCOPE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture(scope="module")
def demos(
    tmp_path_factory: pytest.TempPathFactory, redis_program: object
) -> Iterator[dict[tuple[str, int], Future[subprocess.CompletedProcess[str]]]]:
    """Every fault with every seed, two demos at a time: each of them waits half of its time."""
    root = tmp_path_factory.mktemp("demos")
    with ThreadPoolExecutor(2) as pool:
        yield {
            (fault, seed): pool.submit(
                play, root / f"{fault}-{seed}", "--fault", fault, "--seed", str(seed)
            )
            for fault in FAULTS
            for seed in SEEDS
        }


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_found_and_mended(demos, fault, seed):
    done = demos[fault, seed].result()

    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == KEYS
    assert (answer["fault"], answer["seed"], answer["rule"]) == (fault, seed, fault), answer
    assert answer["found"] and answer["mended"], answer
    assert done.returncode == 0
    # and what it claims follows from the three losses
    losses = [answer[name] for name in ("before", "after", "healthy")]
    before, after, healthy = (float("nan") if loss is None else float(loss) for loss in losses)
    assert answer["gap_closed"] == pytest.approx(gap_closed(before, after, healthy, classes=10))
    assert answer["gap_closed"] >= 0.8
    assert after < before or before != before


def test_without_once_it_serves_on_until_ctrl_c(tmp_path, redis_program, free_port, own_home):
    log = tmp_path / "demo.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*OTOSCOPE, "demo", "--no-browser", "--port", str(free_port)],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "is up at" in log.read_text() or process.poll() is not None)
        wait_until(lambda: children(process.pid) >= 5 or process.poll() is not None)
        parts = pids(process.pid)
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(60)

    # Ctrl-C in the middle of it ends trainings, page, daemon and server
    assert status == 0
    assert [pid for pid in parts if process_lives(pid)] == []


def pids(parent: int) -> list[int]:
    listing = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    ).stdout
    return [int(word) for word in listing.split()]


def children(parent: int) -> int:
    return len(pids(parent))
