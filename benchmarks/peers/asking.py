"""Asking a package in a process of its own, which may die or hang: a task a line, an answer a line."""

from __future__ import annotations

import json
import math
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from otoscope.store.errors import OtoscopeError

from ..faults.running import progress

Answer = dict[str, Any]
LIFE = 25
"""Tasks after which a process is replaced: torchmortem holds every net that it saw until the end."""


class PeerError(OtoscopeError):
    """Raised where a peer cannot be installed or does not run; holds its reason."""


class Worker:
    """A process that answers tasks, started at the first of them, anew after it died and at times."""

    def __init__(
        self, command: Sequence[str], patience: float, folder: Path, **environment: str
    ) -> None:
        self.command, self.patience, self.folder = list(command), patience, folder
        self._process: subprocess.Popen[str] | None = None
        self.environment, self.life, self._asked = environment, LIFE, 0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the worker

    def ask(self, task: Mapping[str, Any]) -> Answer:
        """Return the answer to a task; PeerError where the process dies, or takes over `patience` s."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()
        timer = threading.Timer(self.patience, lambda: (late.set(), process.kill()))
        timer.start()
        try:
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (BrokenPipeError, ConnectionResetError):
            answer = ""
        whole = answer.endswith("\n")
        code = None if whole else process.wait()
        timer.cancel()
        if whole and not late.is_set():
            return json.loads(answer)
        self.close()
        if late.is_set():
            raise PeerError(f"it took over {self.patience:g} s")
        raise PeerError(f"its process ended with {code}: {self._last_words()}")

    def kill(self) -> None:
        """End the process, from whichever thread; who waits for its answer gets PeerError."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process, where nobody waits for an answer."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _started(self) -> subprocess.Popen[str]:
        if self._asked >= self.life:
            self.close()
        self._asked += 1
        if self._process is None:
            self._asked = 1
            self._errors.seek(0)
            self._errors.truncate()
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                text=True, cwd=self.folder,
                env={**os.environ, **self.environment},
            )  # fmt: skip
        return self._process

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-300:]


def asked(
    workers: Sequence[Worker],
    tasks: Sequence[Mapping[str, Any]],
    keep: Callable[[int, Answer], None],
    what: str,
    until: float = math.inf,
) -> None:
    """Ask every task of whichever worker is free; `keep` gets its place and answer at once.

    Tasks that were not begun `until` then, of `time.monotonic()`, are left.

    A task over which a process dies or hangs is answered by `{"alerts": [], "error": the reason,
    "lost": True}`, and the next one is asked of a new process.
    """
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)
    ending = threading.Event()

    def ask(number: int) -> None:
        if ending.is_set() or time.monotonic() > until:
            return
        worker = idle.get()
        try:
            answer = worker.ask(tasks[number])
        except PeerError as error:
            answer = {"alerts": [], "error": str(error), "lost": True}
        finally:
            idle.put(worker)
        if not ending.is_set():  # what we killed ourselves says nothing of the package
            keep(number, answer)

    pool = ThreadPoolExecutor(len(workers))
    try:
        with progress(what, len(tasks)) as advance:
            for future in as_completed([pool.submit(ask, number) for number in range(len(tasks))]):
                future.result()
                advance()
    finally:
        ending.set()
        for worker in workers:
            worker.kill()
        pool.shutdown(wait=True, cancel_futures=True)
        for worker in workers:
            worker.close()
