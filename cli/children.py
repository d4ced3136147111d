"""A child process: its output in a log file, ended by its own pid and in the order that we choose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..store.server import ends_with_parent


class Child:
    """One started part: the daemon, the page.

    It runs in a session of its own. Ctrl-C goes to the whole foreground group of a terminal, and
    the page has to end before the daemon, the daemon before the server.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                start_new_session=sys.platform != "win32",
                preexec_fn=ends_with_parent(),
            )

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self.process.poll()

    def end(self, patience: float = 15.0) -> None:
        """Ask it to end, wait for it, and kill it where it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_words(self, lines: int = 8) -> str:
        """Return the end of its log."""
        try:
            text = self.log.read_text(errors="replace").strip()
        except OSError:
            return ""
        return "\n  ".join(text.splitlines()[-lines:])
