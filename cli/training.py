"""One training of the demo: a subprocess that prints JSON lines about how far it is."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..store import OtoscopeError
from ..store.server import ends_with_parent

MODULE = "otoscope.callbacks.demo"


class TrainingFailedError(OtoscopeError):
    """Raised when a training of the demo ends with an error of its own."""


class Training:
    """`python -m otoscope.callbacks.demo …`, followed through its standard output.

    `step`, `steps` and `run` follow its lines; `result` is the last of them, once it has ended.
    """

    def __init__(
        self, name: str, arguments: list[str], *, log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        self.step = 0
        self.steps: int | None = None
        self.run: str | None = None
        self.result: dict[str, Any] | None = None
        self._rest = b""
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # One thread each: two trainings, the daemon and the page share the cores of a laptop.
        single = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", MODULE, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**os.environ, **single, **environment},
                start_new_session=sys.platform != "win32",
                preexec_fn=ends_with_parent(),
            )
        assert self.process.stdout is not None
        # Read without a thread: the next child is forked while this one runs.
        os.set_blocking(self.process.stdout.fileno(), False)

    def follow(self) -> bool:
        """Read what it printed since; tell whether it still runs.

        Raises TrainingFailedError where it ended with an error or without a result.
        """
        status = self.process.poll()
        assert self.process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.process.stdout.fileno(), 65536):
                self._take(chunk)
        if status is None:
            return True
        if status != 0 or self.result is None:
            raise TrainingFailedError(
                f"the {self.name} training ended with status {status}; its last words in "
                f"{self.log}:\n  {self._last_words()}"
            )
        return False

    def _take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            try:
                body = json.loads(line)
            except ValueError:
                continue  # a library's own print
            if isinstance(body, dict):
                self._note(body)

    def _note(self, body: dict[str, Any]) -> None:
        self.run = body.get("run", self.run)
        self.step = int(body.get("step", self.step))
        self.steps = body.get("steps", self.steps)
        if "val_loss" in body and body.get("done"):
            self.result = body

    def _last_words(self) -> str:
        text = self.log.read_text(errors="replace").strip()
        return "\n  ".join(text.splitlines()[-8:])

    def end(self, patience: float = 10.0) -> None:
        """Ask it to end, and kill it where it does not."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
