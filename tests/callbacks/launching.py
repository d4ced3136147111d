"""Launching the processes of a distributed job, so that they end in any case."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..conftest import find_free_port

HERE = Path(__file__).parent
LONGEST = 120.0
"""Seconds after which a job is killed; it takes some fifteen."""

LAUNCHERS = ("MASTER_", "RANK", "LOCAL_", "WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_", "OTOSCOPE_")


@dataclass
class Job:
    """Processes of one job; leaving the `with` kills those that still live."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, script: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
        """Start one process, which writes what it says into the folder."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
        clean |= {"OMP_NUM_THREADS": "1", "OTOSCOPE_HOME": str(self.folder / "home")}
        clean |= {"PYTHONWARNINGS": "ignore", "GLOO_SOCKET_IFNAME": "lo"}
        log = (self.folder / f"log-{len(self.processes)}.txt").open("wb")
        command = [sys.executable, str(HERE / script), str(self.folder), *arguments]
        with log:
            self.processes.append(
                subprocess.Popen(
                    command, env={**clean, **environment}, stdout=log, stderr=subprocess.STDOUT
                )
            )

    def start_ranks(
        self, script: str, arguments: Sequence[str], environment: dict[str, str]
    ) -> None:
        """Start two ranks as a launcher would."""
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_port())}
        meet |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
        for rank in ("0", "1"):
            places = {"RANK": rank, "LOCAL_RANK": rank}
            self.start(script, arguments, {**meet, **places, **environment})

    def wait(self) -> None:
        """Wait until all processes ended well."""
        end = time.monotonic() + LONGEST
        for process in self.processes:
            assert process.wait(max(1.0, end - time.monotonic())) == 0, self.said()

    def said(self) -> str:
        """Return the last words of every process."""
        logs = sorted(self.folder.glob("log-*.txt"))
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in logs)

    def __enter__(self) -> Job:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *what: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)


def until(condition: object, job: Job, seconds: float = 60.0) -> None:
    """Wait until a condition (a function without arguments) holds."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, f"waited too long: {job.said()}"
        time.sleep(0.05)
